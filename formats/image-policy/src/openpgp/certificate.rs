//! A key with what it says of itself: RFC 9580 10.1. The newest self-signature decides about flags and expiry; any
//! revocation ends a key, whatever its reason and date.

use super::CLOCK_SKEW;
use super::key::{Key, Material};
use super::signature::{
    CERTIFICATION_REVOCATION, DIRECT_KEY, KEY_REVOCATION, Life, PRIMARY_BINDING, SUBKEY_BINDING,
    SUBKEY_REVOCATION, Signature,
};
use super::subpacket::SIGNS_DATA;

/// A primary key, its names and its subkeys, each with the signatures that follow it.
#[derive(Clone, Debug)]
pub(super) struct Certificate {
    pub(super) primary: Key,
    pub(super) direct: Vec<Signature>,
    /// What signatures over a name hash beside the key.
    pub(super) names: Vec<(Vec<u8>, Vec<Signature>)>,
    pub(super) subkeys: Vec<(Key, Vec<Signature>)>,
}

impl Certificate {
    /// All its keys.
    pub(super) fn keys(&self) -> impl Iterator<Item = &Key> {
        std::iter::once(&self.primary).chain(self.subkeys.iter().map(|(key, _)| key))
    }

    /// Whether one of its keys may sign data at `now`; otherwise why not.
    pub(super) fn may_sign(&self, key: &Key, now: u64) -> Result<(), String> {
        let own = self.primary_in_force(now)?;
        let subkey = self.subkeys.iter().find(|(subkey, _)| std::ptr::eq(subkey, key));
        let decides = match subkey {
            None => own,
            Some((subkey, signatures)) => self.binding(subkey, signatures, now)?,
        };
        if let Material::Other(reason) = key.material {
            return Err(reason.to_owned());
        }
        match decides.subpackets.flags {
            Some(flags) if flags & SIGNS_DATA != 0 => Ok(()),
            _ => Err("is not for signing (its key flags don't say so)".into()),
        }
    }

    /// The newest self-signature of the primary key, if the key is in force.
    fn primary_in_force(&self, now: u64) -> Result<&Signature, String> {
        let key = &self.primary;
        if self.revoked(&self.direct, KEY_REVOCATION, &[]) {
            return Err("was revoked".into());
        }
        let direct = self.direct.iter().filter(|it| it.kind == DIRECT_KEY).map(|it| (it, &[][..]));
        let names = self
            .names
            .iter()
            .filter(|(name, signatures)| !self.revoked(signatures, CERTIFICATION_REVOCATION, name));
        let certified = names.flat_map(|(name, signatures)| {
            let certifications = signatures.iter().filter(|it| matches!(it.kind, 0x10..=0x13));
            certifications.map(|it| (it, name.as_slice()))
        });
        let own = direct
            .chain(certified)
            .filter(|(signature, _)| signature.life(now) == Life::Current)
            .filter_map(|(signature, over)| match self.made_by_primary(signature, over) {
                Ok(false) => None,
                made => Some((signature, made.is_ok())),
            })
            .max_by_key(|(signature, _)| signature.created);
        // A newer one over an old hash may say that the key expires, or may no longer sign.
        let own = own.filter(|(_, verified)| *verified).map(|(signature, _)| signature).ok_or(
            "has no self-signature in force over SHA-256 or better that is its newest, so nothing vouches for its use",
        )?;
        in_force(key, own, now)?;
        Ok(own)
    }

    /// The newest binding of a subkey, if it is in force.
    fn binding<'a>(
        &self,
        subkey: &Key,
        signatures: &'a [Signature],
        now: u64,
    ) -> Result<&'a Signature, String> {
        let subkey_bytes = subkey.hashed()?;
        if self.revoked(signatures, SUBKEY_REVOCATION, &subkey_bytes) {
            return Err("was revoked".into());
        }
        let binding = signatures
            .iter()
            .filter(|it| it.kind == SUBKEY_BINDING && it.life(now) == Life::Current)
            .filter(|it| self.made_by_primary(it, &subkey_bytes) == Ok(true))
            .max_by_key(|it| it.created);
        let binding =
            binding.ok_or("isn't bound to its primary key by a signature in force over SHA-256 or better")?;
        in_force(subkey, binding, now)?;
        // Without it anybody could claim a stranger's signing key as a subkey.
        let both = [self.primary.hashed()?, subkey_bytes].concat();
        let back = binding.subpackets.back_signature.as_ref().is_some_and(|back| {
            back.kind == PRIMARY_BINDING
                && back.life(now) == Life::Current
                && back.verifies(subkey, both) == Ok(true)
        });
        if !back {
            return Err("has no signature of its own over its primary key".into());
        }
        Ok(binding)
    }

    /// Whether there is a revocation of this kind over `over`. One that can't be verified for its old hash counts, and
    /// so does one of a key by somebody else: that is what designated revokers make, whose keys aren't looked for.
    fn revoked(&self, signatures: &[Signature], kind: u8, over: &[u8]) -> bool {
        let revocations = signatures.iter().filter(|it| it.kind == kind);
        revocations.into_iter().any(|it| {
            (kind != CERTIFICATION_REVOCATION && self.is_others(it))
                || self.made_by_primary(it, over) != Ok(false)
        })
    }

    fn is_others(&self, signature: &Signature) -> bool {
        signature.subpackets.issuer.is_some_and(|issuer| issuer != self.primary.id)
    }

    fn made_by_primary(&self, signature: &Signature, over: &[u8]) -> Result<bool, ()> {
        if self.is_others(signature) {
            return Ok(false);
        }
        let mut data = self.primary.hashed().map_err(|_| ())?;
        data.extend_from_slice(over);
        signature.verifies(&self.primary, data).map_err(|_| ())
    }
}

fn in_force(key: &Key, decides: &Signature, now: u64) -> Result<(), String> {
    if key.created > now + CLOCK_SKEW {
        return Err("was made in the future; check the clocks".into());
    }
    match decides.subpackets.key_expires_after {
        Some(after) if after != 0 && key.created + after <= now => Err("has expired".into()),
        _ => Ok(()),
    }
}

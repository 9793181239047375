//! Which key of a certificate may be encrypted to at a given time: self-signatures verified, revocations and
//! expiry heeded, the newest encryption key taken (RFC 4880, sections 5.2.3.3 and 5.2.3.21).

use pgp::composed::RawSessionKey;
use pgp::crypto::sym::SymmetricKeyAlgorithm as Cipher;
use pgp::packet::{
    PublicKey, PublicKeyEncryptedSessionKey as SessionKeyPacket, PublicSubkey, Signature, SignatureType,
};
use pgp::ser::Serialize;
use pgp::types::{EcdhPublicParams, KeyDetails, KeyVersion, PublicParams, Tag};
use rand08::rngs::OsRng;

use super::Unusable;
use super::certificate::{Certificate, Signed};

/// Bits of the shortest RSA key that is encrypted to.
const LEAST_RSA: u16 = 2048;

/// The key that a session key is encrypted to.
pub(super) enum EncryptionKey {
    Primary(PublicKey),
    Subkey(PublicSubkey),
}

impl EncryptionKey {
    pub(super) fn details(&self) -> &dyn KeyDetails {
        match self {
            Self::Primary(key) => key,
            Self::Subkey(key) => key,
        }
    }

    /// Version 3 of the packet, for a v4 key.
    pub(super) fn wrap(
        &self,
        session: &RawSessionKey,
        cipher: Cipher,
    ) -> pgp::errors::Result<SessionKeyPacket> {
        match self {
            Self::Primary(key) => SessionKeyPacket::from_session_key_v3(OsRng, session, cipher, key),
            Self::Subkey(key) => SessionKeyPacket::from_session_key_v3(OsRng, session, cipher, key),
        }
    }
}

impl Certificate {
    /// The newest usable encryption key at `now` (seconds since 1970).
    pub(super) fn encryption_key(&self, now: u32) -> Result<EncryptionKey, Unusable> {
        let primary = &self.primary.it;
        if primary.version() != KeyVersion::V4 {
            return Err(Unusable::Unsupported(format!("version {} key", u8::from(primary.version()))));
        }
        if self.revoked() {
            return Err(Unusable::Revoked);
        }
        let self_signature = self.newest_self_signature(now).ok_or(Unusable::Unsigned)?;
        alive(primary, self_signature, now)?;

        // RSA first: peers use an RSA primary key rather than an ECDH subkey, and can open nothing else.
        let mut best: Option<((bool, bool, u32), EncryptionKey)> = None;
        let mut refused: Option<Unusable> = None;
        for subkey in &self.subkeys {
            match self.subkey(subkey, now) {
                None => {}
                Some(Ok(made)) => {
                    let rank = (is_rsa(&subkey.it), true, made);
                    if best.as_ref().is_none_or(|(other, _)| *other <= rank) {
                        best = Some((rank, EncryptionKey::Subkey(subkey.it.clone())));
                    }
                }
                Some(Err(why)) => refused = Some(why),
            }
        }
        let flags = self_signature.key_flags();
        if flags.encrypt_comms() || flags.encrypt_storage() {
            let rank = (is_rsa(primary), false, primary.created_at().as_secs());
            match supported(primary) {
                Ok(()) if best.as_ref().is_none_or(|(other, _)| *other < rank) => {
                    best = Some((rank, EncryptionKey::Primary(primary.clone())));
                }
                Ok(()) => {}
                Err(why) => refused = refused.or(Some(why)),
            }
        }
        if let Some((_, key)) = best {
            return Ok(key);
        }
        if refused.is_none() && self.unreadable_subkeys > 0 {
            return Err(Unusable::Unsupported("unknown algorithm".into()));
        }
        Err(refused.unwrap_or(Unusable::NoEncryptionSubkey))
    }

    /// The user ids that the key itself vouches for now.
    pub(super) fn valid_users(&self, now: u32) -> impl Iterator<Item = &str> {
        self.users
            .iter()
            .filter(move |user| self.certification(user, now).is_some())
            .filter_map(|user| user.it.as_str())
    }

    fn revoked(&self) -> bool {
        self.primary.signatures.iter().any(|signature| {
            signature.typ() == Some(SignatureType::KeyRevocation)
                && signature.verify_key(&self.primary.it).is_ok()
        })
    }

    /// Expiry and flags of the primary key are in its newest self-signature: on itself or on a user id.
    fn newest_self_signature(&self, now: u32) -> Option<&Signature> {
        let direct = self.primary.signatures.iter().filter(|signature| {
            signature.typ() == Some(SignatureType::Key)
                && in_force(signature, now)
                && signature.verify_key(&self.primary.it).is_ok()
        });
        let users = self.users.iter().filter_map(|user| self.certification(user, now));
        direct.chain(users).max_by_key(|signature| made(signature))
    }

    /// The newest certification of a user id by its own key, unless a later one revokes it.
    fn certification<'a>(&self, user: &'a Signed<pgp::packet::UserId>, now: u32) -> Option<&'a Signature> {
        let newest = user
            .signatures
            .iter()
            .filter(|signature| {
                signature.is_certification()
                    && in_force(signature, now)
                    && signature.verify_certification(&self.primary.it, Tag::UserId, &user.it).is_ok()
            })
            .max_by_key(|signature| {
                (made(signature), signature.typ() == Some(SignatureType::CertRevocation))
            })?;
        (newest.typ() != Some(SignatureType::CertRevocation)).then_some(newest)
    }

    /// `None`: not for encryption. Otherwise when it was made, or why it can't be used.
    fn subkey(&self, subkey: &Signed<PublicSubkey>, now: u32) -> Option<Result<u32, Unusable>> {
        let valid = |kind: SignatureType| {
            subkey.signatures.iter().filter(move |signature| {
                signature.typ() == Some(kind)
                    && signature.verify_subkey_binding(&self.primary.it, &subkey.it).is_ok()
            })
        };
        let binding = valid(SignatureType::SubkeyBinding)
            .filter(|signature| in_force(signature, now))
            .max_by_key(|signature| made(signature))?;
        let flags = binding.key_flags();
        if !flags.encrypt_comms() && !flags.encrypt_storage() {
            return None;
        }
        if valid(SignatureType::SubkeyRevocation).next().is_some() {
            return Some(Err(Unusable::SubkeysRevoked));
        }
        let usable = alive(&subkey.it, binding, now)
            .map_err(|why| match why {
                Unusable::Expired(day) => Unusable::SubkeysExpired(day),
                other => other,
            })
            .and_then(|()| supported(&subkey.it));
        Some(usable.map(|()| subkey.it.created_at().as_secs()))
    }
}

fn is_rsa(key: &impl KeyDetails) -> bool {
    matches!(key.public_params(), PublicParams::RSA(_))
}

fn made(signature: &Signature) -> u32 {
    signature.created().map_or(0, |time| time.as_secs())
}

/// Made already, and not past its own expiry.
fn in_force(signature: &Signature, now: u32) -> bool {
    let Some(created) = signature.created().map(|time| time.as_secs()) else {
        return false;
    };
    let lasts = signature.signature_expiration_time().map_or(0, |duration| duration.as_secs());
    created <= now && (lasts == 0 || created.saturating_add(lasts) > now)
}

fn alive(key: &impl KeyDetails, signature: &Signature, now: u32) -> Result<(), Unusable> {
    let created = key.created_at().as_secs();
    if created > now {
        return Err(Unusable::Future(day(created)));
    }
    match signature.key_expiration_time().map_or(0, |duration| duration.as_secs()) {
        0 => Ok(()),
        lasts => {
            let end = created.saturating_add(lasts);
            if end > now { Ok(()) } else { Err(Unusable::Expired(day(end))) }
        }
    }
}

/// Keys that can be encrypted to. Ours also opens what is encrypted to ECDH keys; ocicrypt does not.
fn supported(key: &impl KeyDetails) -> Result<(), Unusable> {
    if key.version() != KeyVersion::V4 {
        return Err(Unusable::Unsupported(format!("version {} key", u8::from(key.version()))));
    }
    match key.public_params() {
        PublicParams::RSA(parameters) => {
            // The modulus comes first, and a number begins with its length in bits.
            let mut numbers = Vec::new();
            parameters.to_writer(&mut numbers).map_err(|_| Unusable::Unsupported("RSA".into()))?;
            let bits = numbers.first_chunk().map_or(0, |bits| u16::from_be_bytes(*bits));
            if bits < LEAST_RSA { Err(Unusable::Weak(bits)) } else { Ok(()) }
        }
        PublicParams::ECDH(
            EcdhPublicParams::Curve25519Legacy { .. }
            | EcdhPublicParams::P256 { .. }
            | EcdhPublicParams::P384 { .. }
            | EcdhPublicParams::P521 { .. },
        ) => Ok(()),
        _ => Err(Unusable::Unsupported(format!("{:?}", key.algorithm()))),
    }
}

/// A day as ISO 8601 writes it.
fn day(seconds: u32) -> String {
    time::OffsetDateTime::from_unix_timestamp(seconds.into())
        .map_or_else(|_| "?".into(), |at| at.date().to_string())
}

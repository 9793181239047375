//! Signature subpackets: RFC 9580 5.2.3.7.

use super::cursor::Cursor;
use super::signature::Signature;

/// What of a signature's subpackets matters here.
#[derive(Clone, Debug, Default)]
pub(super) struct Subpackets {
    /// Seconds since 1970.
    pub(super) created: Option<u64>,
    /// Seconds after its creation at which the signature ends.
    pub(super) expires_after: Option<u64>,
    /// Seconds after the key's creation at which the key ends.
    pub(super) key_expires_after: Option<u64>,
    /// First octet of the key flags.
    pub(super) flags: Option<u8>,
    /// Key id of the signer.
    pub(super) issuer: Option<[u8; 8]>,
    /// A subkey's signature over its primary key.
    pub(super) back_signature: Option<Box<Signature>>,
}

/// Key flag: may sign data.
pub(super) const SIGNS_DATA: u8 = 0x02;

impl Subpackets {
    /// Adds an area. Of the unhashed one only what verifies by itself, or is no more than a hint, is taken.
    pub(super) fn add(&mut self, area: &[u8], hashed: bool, depth: u8) -> Result<(), String> {
        let mut cursor = Cursor::new(area);
        while !cursor.is_empty() {
            let first = cursor.u8()?;
            let length = match first {
                0..192 => usize::from(first),
                192..255 => ((usize::from(first) - 192) << 8) + usize::from(cursor.u8()?) + 192,
                255 => usize::try_from(cursor.u32()?).unwrap_or(usize::MAX),
            };
            let mut body = Cursor::new(cursor.take(length)?);
            let kind = body.u8()?;
            self.one(kind & 0x7f, kind & 0x80 != 0, body, hashed, depth)?;
        }
        Ok(())
    }

    fn one(
        &mut self,
        kind: u8,
        critical: bool,
        mut body: Cursor<'_>,
        hashed: bool,
        depth: u8,
    ) -> Result<(), String> {
        match kind {
            16 => {
                self.issuer.get_or_insert(body.array()?);
            }
            33 if body.u8()? == 4 => {
                let fingerprint: [u8; 20] = body.array()?;
                self.issuer.get_or_insert(last_eight(&fingerprint));
            }
            32 if depth == 0 => {
                // One that can't be read doesn't count; whoever needs it misses it.
                if let Ok(signature) = Signature::parse_at(body.rest(), depth + 1) {
                    self.back_signature = Some(Box::new(signature));
                }
            }
            _ if !hashed => {}
            2 => set(&mut self.created, u64::from(body.u32()?), "creation time")?,
            3 => set(&mut self.expires_after, u64::from(body.u32()?), "expiration time")?,
            9 => set(&mut self.key_expires_after, u64::from(body.u32()?), "key expiration time")?,
            27 => set(&mut self.flags, body.u8().unwrap_or(0), "key flags")?,
            // Exportable, revocable, preferences, key server, primary user id, policy, features, signer's user id,
            // reason for revocation, embedded signature of a deeper level: they change nothing here.
            4 | 7 | 11 | 21..=26 | 28..=30 | 32..=34 | 39 => {}
            _ if critical => return Err(format!("it has a critical subpacket of the unknown type {kind}")),
            _ => {}
        }
        Ok(())
    }
}

fn set<T>(place: &mut Option<T>, value: T, what: &str) -> Result<(), String> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(format!("its {what} is there twice")),
    }
}

fn last_eight(fingerprint: &[u8; 20]) -> [u8; 8] {
    let mut id = [0; 8];
    id.copy_from_slice(&fingerprint[12..]);
    id
}

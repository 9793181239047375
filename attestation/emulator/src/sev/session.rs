//! What a guest's owner sends for LAUNCH_START (SEV API, "Guest Owner Session"): transport keys, wrapped for
//! the holder of the PDH key, and a MAC over the policy.

use super::certificate::read_dh_key;
use super::crypto::{KEY, Key, counter_mode, derive, mac};
use super::guest::Status;
use p384::PublicKey;
use p384::ecdsa::SigningKey;
use p384::elliptic_curve::ecdh::diffie_hellman;
use zeroize::Zeroizing;

/// Bytes of a session blob: nonce 16, wrapped keys 32, IV 16, their MAC 32, the policy's MAC 32.
pub const LENGTH: usize = 128;

/// The transport keys of one launch.
pub struct Session {
    /// Transport encryption key.
    pub(crate) tek: Key,
    /// Transport integrity key.
    pub(crate) tik: Key,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Session")
    }
}

impl Session {
    /// Unwraps the keys with the PDH key; `policy` is compared with its MAC unless it is `None`.
    pub fn open(blob: &[u8], godh: &[u8], pdh: &SigningKey, policy: Option<u32>) -> Result<Self, Status> {
        let blob: &[u8; LENGTH] = blob.try_into().map_err(|_| Status::InvalidLength)?;
        let (nonce, rest) = blob.split_at(KEY);
        let (wrapped, rest) = rest.split_at(2 * KEY);
        let (iv, rest) = rest.split_at(KEY);
        let (wrap_mac, policy_mac) = rest.split_at(32);

        let peer = read_dh_key(godh).ok_or(Status::InvalidCertificate)?;
        let peer = PublicKey::from_sec1_bytes(&peer).map_err(|_| Status::InvalidCertificate)?;
        let shared = diffie_hellman(pdh.as_nonzero_scalar(), peer.as_affine());
        let master = derive(shared.raw_secret_bytes(), "sev-master-secret", nonce);
        let (kek, kik) = (derive(&*master, "sev-kek", &[]), derive(&*master, "sev-kik", &[]));
        if mac(&*kik, &[wrapped])[..] != *wrap_mac {
            return Err(Status::BadMeasurement);
        }
        let mut keys = Zeroizing::new([0; 2 * KEY]);
        keys.copy_from_slice(wrapped);
        let mut first = [0; KEY];
        first.copy_from_slice(iv);
        counter_mode(&kek, &first, &mut *keys);
        let (mut tek, mut tik) = (Key::default(), Key::default());
        tek.copy_from_slice(&keys[..KEY]);
        tik.copy_from_slice(&keys[KEY..]);
        match policy {
            Some(policy) if mac(&*tik, &[&policy.to_le_bytes()])[..] != *policy_mac => {
                Err(Status::BadMeasurement)
            }
            _ => Ok(Self { tek, tik }),
        }
    }
}

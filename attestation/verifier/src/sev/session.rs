//! A launch session: transport keys that only the platform with the checked PDH can unwrap. AMD 55766 §2.2.2, §5.
//! One session is for one launch of one guest: its initdata and sealed spec are part of it.

use tee_evidence::sev::{Algorithm, Certificate, Policy, SessionBlob, Unsigned, Usage};

use super::crypto::{Key, NoRandomness, Randomness, aes_ctr, derive, mac};
use super::{ChainChecked, SevProduct, curve};
use crate::{CheckRecord, Trust};

/// Why there is no session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// No randomness.
    #[error(transparent)]
    Random(#[from] NoRandomness),
    /// A policy with bits that have no meaning.
    #[error("guest policy {0:#x} has reserved bits set")]
    Policy(u32),
}

/// What QEMU needs for LAUNCH_START.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaunchFiles {
    /// The guest owner's Diffie-Hellman certificate (`dh-cert-file`, in base64).
    pub godh: Box<[u8; Certificate::LEN]>,
    /// The session blob (`session-file`, in base64).
    pub session: [u8; SessionBlob::LEN],
}

/// A session whose launch has not been measured. Good for one measurement.
pub struct Session {
    pub(super) tek: Key,
    pub(super) tik: Key,
    pub(super) nonce: [u8; 16],
    pub(super) policy: Policy,
    pub(super) init_data: [u8; 32],
    pub(super) sealed_spec: [u8; 32],
    pub(super) product: SevProduct,
    pub(super) trust: Trust,
    pub(super) chip: [u8; 32],
    pub(super) checks: Vec<CheckRecord>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("policy", &self.policy).finish_non_exhaustive()
    }
}

impl ChainChecked {
    /// Opens a session for one launch: of a guest with this initdata (SHA-256), for this sealed spec (SHA-256).
    ///
    /// # Errors
    /// [`SessionError`].
    pub fn open_session(
        self,
        policy: Policy,
        init_data: [u8; 32],
        sealed_spec: [u8; 32],
        random: &mut dyn Randomness,
    ) -> Result<(Session, LaunchFiles), SessionError> {
        if !policy.reserved_is_zero() {
            return Err(SessionError::Policy(policy.0));
        }
        let mut draw = || -> Result<[u8; 16], NoRandomness> {
            let mut bytes = [0; 16];
            random.fill(&mut bytes)?;
            Ok(bytes)
        };
        let (nonce, wrap_iv) = (draw()?, draw()?);
        let (tek, tik) = (Key::new(draw()?), Key::new(draw()?));
        let (public, shared) = curve::agree(&self.pdh, random)?;
        let master = derive(shared.as_slice(), "sev-master-secret", &nonce);
        let kek = derive(master.as_slice(), "sev-kek", &[]);
        let kik = derive(master.as_slice(), "sev-kik", &[]);
        let mut wrap_tk = [0; 32];
        wrap_tk[..16].copy_from_slice(tek.as_slice());
        wrap_tk[16..].copy_from_slice(tik.as_slice());
        aes_ctr(&kek, &wrap_iv, &mut wrap_tk);
        let blob = SessionBlob {
            nonce,
            wrap_iv,
            wrap_mac: mac(&kik, &wrap_tk),
            policy_mac: mac(&tik, &policy.0.to_le_bytes()),
            wrap_tk,
        };
        // The platform takes the key alone from it: nothing signs it.
        let godh = Unsigned { api: (0, 0), usage: Usage::Pdh, algorithm: Algorithm::EcdhSha256, key: public };
        let files = LaunchFiles {
            godh: Box::new(Certificate::assemble(&godh, &[None, None])),
            session: blob.to_bytes(),
        };
        let Self { product, trust, chip, checks, .. } = self;
        let session =
            Session { tek, tik, nonce, policy, init_data, sealed_spec, product, trust, chip, checks };
        Ok((session, files))
    }
}

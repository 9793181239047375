//! The packet with the guest's secrets: made once for a launch, and only from a [`Grant`] for exactly that launch.
//! AMD 55766 §6.6.

use tee_evidence::sev::{SecretEntry, SecretHeader, SecretTable, SecretTableError};
use zeroize::Zeroizing;

use super::crypto::{NoRandomness, Randomness, aes_ctr, mac};
use super::{Launched, Measured};
use crate::Grant;

/// Why there is no packet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// The grant is for another launch.
    #[error("the grant is for another launch than the secret")]
    OtherLaunch,
    /// The secrets don't fit.
    #[error(transparent)]
    Table(#[from] SecretTableError),
    /// No randomness.
    #[error(transparent)]
    Random(#[from] NoRandomness),
}

/// What QMP's `sev-inject-launch-secret` needs. Only the platform that was measured can open it, and only for that
/// launch: the code covers MEASURE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaunchSecret {
    /// `packet-header`.
    pub header: [u8; SecretHeader::LEN],
    /// `secret`: the encrypted table.
    pub data: Vec<u8>,
}

impl Measured {
    /// Seals secrets for the launch, and hands out what is known about it for when the guest comes back. Consumes the
    /// session's keys: no second packet can be made.
    ///
    /// # Errors
    /// [`SecretError`].
    pub fn seal(
        self,
        grant: &Grant,
        entries: &[SecretEntry<'_>],
        random: &mut dyn Randomness,
    ) -> Result<(LaunchSecret, Launched), SecretError> {
        let (granted, own) = (grant.verdict(), self.appraised().verdict());
        if (&granted.claims, granted.tee, granted.init_data) != (&own.claims, own.tee, own.init_data) {
            return Err(SecretError::OtherLaunch);
        }
        let Self { tek, tik, measure, launched, .. } = self;
        let mut table = Zeroizing::new(vec![0; SecretTable::len(entries)?]);
        SecretTable::write(entries, &mut table)?;
        let mut iv = [0; 16];
        random.fill(&mut iv)?;
        let guest_len = table.len() as u32;
        aes_ctr(&tek.0, &iv, &mut table);
        let message = SecretHeader::message(0, &iv, guest_len, &table, &measure);
        let header = SecretHeader { flags: 0, iv, mac: mac(&tik.0, &message) };
        let secret = LaunchSecret { header: header.to_bytes(), data: table.to_vec() };
        Ok((secret, launched))
    }
}

//! LAUNCH_MEASURE: what the platform authenticates about a launched guest, and its answer. AMD 55766 §6.5.

use super::{FirmwareApi, Policy};
use crate::reader::{ReadError, Reader};

/// What `query-sev-launch-measure` hands out, decoded: the authentication code and the platform's nonce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measurement {
    /// HMAC-SHA256 under TIK of [`LaunchMeasure::message`].
    pub measure: [u8; 32],
    /// The platform's nonce.
    pub mnonce: [u8; 16],
}

impl Measurement {
    /// Bytes of it.
    pub const LEN: usize = 48;

    /// Reads exactly [`Measurement::LEN`] bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, ReadError> {
        let mut reader = Reader::new(bytes);
        let measurement = Self { measure: reader.array()?, mnonce: reader.array()? };
        reader.finish()?;
        Ok(measurement)
    }

    /// Its bytes.
    pub fn to_bytes(&self) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        out[..32].copy_from_slice(&self.measure);
        out[32..].copy_from_slice(&self.mnonce);
        out
    }
}

/// What the code covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaunchMeasure {
    /// API of the firmware that launched the guest.
    pub api: FirmwareApi,
    /// Its build.
    pub build: u8,
    /// Policy of the launch.
    pub policy: Policy,
    /// Launch digest.
    pub digest: [u8; 32],
    /// The platform's nonce.
    pub mnonce: [u8; 16],
}

impl LaunchMeasure {
    /// The bytes that the code is computed over.
    pub fn message(&self) -> [u8; 56] {
        let mut out = [0; 56];
        out[..4].copy_from_slice(&[4, self.api.major, self.api.minor, self.build]);
        out[4..8].copy_from_slice(&self.policy.0.to_le_bytes());
        out[8..40].copy_from_slice(&self.digest);
        out[40..].copy_from_slice(&self.mnonce);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_has_every_part_in_its_place() {
        let measure = LaunchMeasure {
            api: FirmwareApi { major: 1, minor: 49 },
            build: 6,
            policy: Policy(5),
            digest: [7; 32],
            mnonce: [8; 16],
        };
        let message = measure.message();
        assert_eq!(message[..9], [4, 1, 49, 6, 5, 0, 0, 0, 7]);
        assert_eq!(message[39..41], [7, 8]);
    }

    #[test]
    fn an_answer_has_48_bytes() {
        let bytes: Vec<u8> = (0..48).collect();
        let read = Measurement::parse(&bytes).unwrap();
        assert_eq!((read.measure[31], read.mnonce[0]), (31, 32));
        assert_eq!(read.to_bytes(), *bytes);
        assert!(
            Measurement::parse(&bytes[..47]).is_err()
                && Measurement::parse(&[bytes, vec![0]].concat()).is_err()
        );
    }
}

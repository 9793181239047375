//! Attestation reports, version 3 (SEV-SNP firmware ABI, table "ATTESTATION_REPORT"), written and signed.

use crate::product::{Product, Tcb};
use p384::ecdsa::signature::Signer;
use p384::ecdsa::{Signature, SigningKey};

/// Bytes in a report.
pub const LENGTH: usize = 1184;
const SIGNED: usize = 0x2a0;
/// Bytes of r and of s in the signature.
const COMPONENT: usize = 72;
const VERSION: u32 = 3;
const ECDSA_P384_SHA384: u32 = 1;
/// SMT enabled, ECC memory, alias check complete.
const PLATFORM_INFO: u64 = 0x25;
/// Build, minor, major of the secure processor's firmware: 1.55.29.
const FIRMWARE: [u8; 3] = [29, 55, 1];

/// The fields that differ between launches and requests. Everything else is as on a machine without ID
/// block, author key, migration agent and family id.
#[derive(Debug, Clone)]
pub struct Fields {
    /// Generation of the chip; also says how TCB versions are laid out.
    pub product: Product,
    /// Guest policy.
    pub policy: u64,
    /// Privilege level that asked.
    pub vmpl: u32,
    /// What the guest bound.
    pub report_data: [u8; 64],
    /// Launch digest.
    pub measurement: [u8; 48],
    /// What the host bound at launch.
    pub host_data: [u8; 32],
    /// Random for each launch.
    pub report_id: [u8; 32],
    /// TCB that the signing key stands for.
    pub reported_tcb: Tcb,
    /// TCB that runs.
    pub current_tcb: Tcb,
    /// TCB that can't be rolled back.
    pub committed_tcb: Tcb,
    /// TCB at the guest's launch.
    pub launch_tcb: Tcb,
    /// Chip id, padded with zeros.
    pub chip_id: [u8; 64],
}

impl Fields {
    /// The report, signed by `key`: r and s little-endian in 72 bytes each.
    pub fn sign(&self, key: &SigningKey) -> [u8; LENGTH] {
        let mut report = self.encode();
        let signature: Signature = key.sign(&report[..SIGNED]);
        let (r, s) = signature.split_bytes();
        for (at, component) in [(SIGNED, r), (SIGNED + COMPONENT, s)] {
            for (index, byte) in component.iter().rev().enumerate() {
                report[at + index] = *byte;
            }
        }
        report
    }

    fn encode(&self) -> [u8; LENGTH] {
        let mut report = [0; LENGTH];
        let mut put = |at: usize, bytes: &[u8]| report[at..at + bytes.len()].copy_from_slice(bytes);
        let tcb = |tcb: Tcb| tcb.encode(self.product);
        put(0x000, &VERSION.to_le_bytes());
        put(0x008, &self.policy.to_le_bytes());
        put(0x030, &self.vmpl.to_le_bytes());
        put(0x034, &ECDSA_P384_SHA384.to_le_bytes());
        put(0x038, &tcb(self.current_tcb));
        put(0x040, &PLATFORM_INFO.to_le_bytes());
        put(0x050, &self.report_data);
        put(0x090, &self.measurement);
        put(0x0c0, &self.host_data);
        put(0x140, &self.report_id);
        put(0x160, &[0xff; 32]);
        put(0x180, &tcb(self.reported_tcb));
        put(0x188, &self.product.cpuid());
        put(0x1a0, &self.chip_id);
        put(0x1e0, &tcb(self.committed_tcb));
        put(0x1e8, &FIRMWARE);
        put(0x1ec, &FIRMWARE);
        put(0x1f0, &tcb(self.launch_tcb));
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chip::{Chip, SECRET};
    use p384::ecdsa::signature::Verifier;

    fn fields() -> Fields {
        let tcb = |snp| Tcb { snp, ..Tcb::default() };
        Fields {
            product: Product::Milan,
            policy: 0x3_0000,
            vmpl: 1,
            report_data: [0xa1; 64],
            measurement: [0xa2; 48],
            host_data: [0xa3; 32],
            report_id: [0xa4; 32],
            reported_tcb: tcb(21),
            current_tcb: tcb(22),
            committed_tcb: tcb(23),
            launch_tcb: tcb(24),
            chip_id: [0xa5; 64],
        }
    }

    #[test]
    fn fields_stand_where_the_abi_says() {
        let key = Chip::new(Product::Milan, [1; SECRET]).vcek(Tcb::default());
        let report = fields().sign(&key);
        let at = |offset: usize, length: usize| &report[offset..offset + length];
        assert_eq!(at(0x000, 4), [3, 0, 0, 0]);
        assert_eq!(at(0x008, 8), [0, 0, 3, 0, 0, 0, 0, 0]);
        assert_eq!(at(0x030, 8), [1, 0, 0, 0, 1, 0, 0, 0]);
        assert_eq!(at(0x038, 8), [4, 0, 0, 0, 0, 0, 22, 219]);
        assert_eq!(at(0x048, 4), [0; 4], "signed by a VCEK, chip key not masked");
        assert_eq!(at(0x050, 64), [0xa1; 64]);
        assert_eq!(at(0x090, 48), [0xa2; 48]);
        assert_eq!(at(0x0c0, 32), [0xa3; 32]);
        assert_eq!(at(0x0e0, 96), [0; 96], "no ID and author key");
        assert_eq!(at(0x140, 32), [0xa4; 32]);
        assert_eq!(at(0x160, 32), [0xff; 32]);
        assert_eq!(at(0x180, 8), [4, 0, 0, 0, 0, 0, 21, 219]);
        assert_eq!(at(0x188, 3), [0x19, 1, 1]);
        assert_eq!(at(0x18b, 21), [0; 21]);
        assert_eq!(at(0x1a0, 64), [0xa5; 64]);
        assert_eq!(at(0x1e0, 8), [4, 0, 0, 0, 0, 0, 23, 219]);
        assert_eq!(at(0x1f0, 8), [4, 0, 0, 0, 0, 0, 24, 219]);
        assert_eq!(at(0x1f8, 0x2a0 - 0x1f8), [0; 0x2a0 - 0x1f8]);
    }

    #[test]
    fn the_signature_covers_the_report_and_is_little_endian() {
        let key = Chip::new(Product::Milan, [1; SECRET]).vcek(Tcb::default());
        let report = fields().sign(&key);
        let component = |at: usize| -> [u8; 48] {
            let mut bytes: [u8; 48] = report[at..at + 48].try_into().unwrap();
            bytes.reverse();
            bytes
        };
        let signature = Signature::from_scalars(component(0x2a0), component(0x2e8)).unwrap();
        assert!(key.verifying_key().verify(&report[..0x2a0], &signature).is_ok());
        assert_eq!(report[0x2d0..0x2e8], [0; 24]);
        assert_eq!(report[0x318..], [0; LENGTH - 0x318]);
        let mut changed = report;
        changed[0x90] ^= 1;
        assert!(key.verifying_key().verify(&changed[..0x2a0], &signature).is_err());
    }
}

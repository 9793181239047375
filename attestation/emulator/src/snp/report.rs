//! Attestation reports, versions 2, 3 and 5 (SEV-SNP firmware ABI, table "ATTESTATION_REPORT"), written and
//! signed.

use crate::snp::product::{Product, Tcb};
use p384::ecdsa::signature::Signer;
use p384::ecdsa::{Signature, SigningKey};
use std::str::FromStr;

/// Bytes in a report.
pub const LENGTH: usize = 1184;
pub(crate) const SIGNED: usize = 0x2a0;
/// Bytes of r and of s in the signature.
pub(crate) const COMPONENT: usize = 72;
const ECDSA_P384_SHA384: u32 = 1;
/// Build, minor, major of the secure processor's firmware: 1.55.29.
const FIRMWARE: [u8; 3] = [29, 55, 1];

/// SMT enabled, ECC memory, alias check complete.
pub const PLATFORM_INFO: u64 = 0x25;

/// Which kind of key signs reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeyKind {
    /// The chip's own, certified by the ASK.
    #[default]
    Vcek,
    /// One that the cloud provider has loaded, certified by the ASVK.
    Vlek,
}

impl FromStr for KeyKind {
    type Err = UnknownKeyKind;

    fn from_str(text: &str) -> Result<Self, UnknownKeyKind> {
        match text {
            "vcek" => Ok(Self::Vcek),
            "vlek" => Ok(Self::Vlek),
            _ => Err(UnknownKeyKind(text.to_owned())),
        }
    }
}

/// Not a kind of signing key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("signing key {0:?} is unknown; use vcek or vlek")]
pub struct UnknownKeyKind(String);

/// What an ID block and its keys leave in reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// FAMILY_ID.
    pub family_id: [u8; 16],
    /// IMAGE_ID.
    pub image_id: [u8; 16],
    /// GUEST_SVN.
    pub guest_svn: u32,
    /// SHA-384 of the key that signed the ID block.
    pub id_key_digest: [u8; 48],
    /// SHA-384 of the key that signed that key, if one did.
    pub author_key_digest: Option<[u8; 48]>,
}

/// What a report says. Reserved bytes and the migration agent's id are as on a machine without one.
#[derive(Debug, Clone)]
pub struct Fields {
    /// Version of the report: 2, 3 or 5 (4 has the shape of 3).
    pub version: u32,
    /// Generation of the chip; also says how TCB versions are laid out.
    pub product: Product,
    /// Guest policy.
    pub policy: u64,
    /// Privilege level that asked.
    pub vmpl: u32,
    /// State of the platform, by bits.
    pub platform_info: u64,
    /// Whose key signs.
    pub signing_key: KeyKind,
    /// What the guest bound.
    pub report_data: [u8; 64],
    /// Launch digest.
    pub measurement: [u8; 48],
    /// What the host bound at launch.
    pub host_data: [u8; 32],
    /// What the ID block said.
    pub identity: Option<Identity>,
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
    /// Mitigations in force at launch and now; version 5.
    pub mitigations: [u64; 2],
}

impl Fields {
    /// The report, signed by `key`: r and s little-endian in 72 bytes each.
    pub fn sign(&self, key: &SigningKey) -> [u8; LENGTH] {
        let mut report = self.encode();
        sign(&mut report, key);
        report
    }

    pub(crate) fn encode(&self) -> [u8; LENGTH] {
        let mut report = [0; LENGTH];
        let mut put = |at: usize, bytes: &[u8]| report[at..at + bytes.len()].copy_from_slice(bytes);
        let tcb = |tcb: Tcb| tcb.encode(self.product);
        put(0x000, &self.version.to_le_bytes());
        put(0x008, &self.policy.to_le_bytes());
        put(0x030, &self.vmpl.to_le_bytes());
        put(0x034, &ECDSA_P384_SHA384.to_le_bytes());
        put(0x038, &tcb(self.current_tcb));
        put(0x040, &self.platform_info.to_le_bytes());
        put(0x050, &self.report_data);
        put(0x090, &self.measurement);
        put(0x0c0, &self.host_data);
        put(0x140, &self.report_id);
        put(0x160, &[0xff; 32]);
        put(0x180, &tcb(self.reported_tcb));
        put(0x1a0, &self.chip_id);
        put(0x1e0, &tcb(self.committed_tcb));
        put(0x1e8, &FIRMWARE);
        put(0x1ec, &FIRMWARE);
        put(0x1f0, &tcb(self.launch_tcb));
        let mut key_info = (self.signing_key as u32) << 2;
        if let Some(identity) = &self.identity {
            put(0x004, &identity.guest_svn.to_le_bytes());
            put(0x010, &identity.family_id);
            put(0x020, &identity.image_id);
            put(0x0e0, &identity.id_key_digest);
            if let Some(digest) = &identity.author_key_digest {
                key_info |= 1;
                put(0x110, digest);
            }
        }
        put(0x048, &key_info.to_le_bytes());
        if self.version >= 3 {
            put(0x188, &self.product.cpuid());
        }
        if self.version >= 5 {
            put(0x1f8, &self.mitigations[0].to_le_bytes());
            put(0x200, &self.mitigations[1].to_le_bytes());
        }
        report
    }
}

/// Puts the signature of what stands before it into a report.
pub(crate) fn sign(report: &mut [u8; LENGTH], key: &SigningKey) {
    let signature: Signature = key.sign(&report[..SIGNED]);
    let (r, s) = signature.split_bytes();
    for (at, component) in [(SIGNED, r), (SIGNED + COMPONENT, s)] {
        for (index, byte) in component.iter().rev().enumerate() {
            report[at + index] = *byte;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snp::chip::{Chip, SECRET};
    use p384::ecdsa::signature::Verifier;

    fn fields() -> Fields {
        let tcb = |snp| Tcb { snp, ..Tcb::default() };
        Fields {
            version: 3,
            product: Product::Milan,
            policy: 0x3_0000,
            vmpl: 1,
            platform_info: PLATFORM_INFO,
            signing_key: KeyKind::Vcek,
            report_data: [0xa1; 64],
            measurement: [0xa2; 48],
            host_data: [0xa3; 32],
            identity: None,
            report_id: [0xa4; 32],
            reported_tcb: tcb(21),
            current_tcb: tcb(22),
            committed_tcb: tcb(23),
            launch_tcb: tcb(24),
            chip_id: [0xa5; 64],
            mitigations: [0x0102, 0x0304],
        }
    }

    #[test]
    fn fields_stand_where_the_abi_says() {
        let key = Chip::new(Product::Milan, [1; SECRET]).signing_key(KeyKind::Vcek, Tcb::default());
        let report = fields().sign(&key);
        let at = |offset: usize, length: usize| &report[offset..offset + length];
        assert_eq!(at(0x000, 4), [3, 0, 0, 0]);
        assert_eq!(at(0x008, 8), [0, 0, 3, 0, 0, 0, 0, 0]);
        assert_eq!(at(0x030, 8), [1, 0, 0, 0, 1, 0, 0, 0]);
        assert_eq!(at(0x038, 8), [4, 0, 0, 0, 0, 0, 22, 219]);
        assert_eq!(at(0x040, 8), [0x25, 0, 0, 0, 0, 0, 0, 0]);
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
        assert_eq!(at(0x1f8, 0x2a0 - 0x1f8), [0; 0x2a0 - 0x1f8], "version 3 has no mitigation vectors");
    }

    #[test]
    fn versions_differ_in_what_they_added() {
        let old = Fields { version: 2, ..fields() }.encode();
        assert_eq!(old[0x188..0x18b], [0; 3], "version 2 doesn't tell the product");
        let new = Fields { version: 5, ..fields() }.encode();
        assert_eq!(new[0x188..0x18b], [0x19, 1, 1]);
        assert_eq!(new[0x1f8..0x208], [2, 1, 0, 0, 0, 0, 0, 0, 4, 3, 0, 0, 0, 0, 0, 0]);
        assert_eq!(new[0x208..0x2a0], [0; 0x2a0 - 0x208]);
    }

    #[test]
    fn keys_and_identities_show() {
        let identity = Identity {
            family_id: [1; 16],
            image_id: [2; 16],
            guest_svn: 3,
            id_key_digest: [4; 48],
            author_key_digest: None,
        };
        let report = |signing_key, author| {
            let identity = Identity { author_key_digest: author, ..identity.clone() };
            Fields { signing_key, identity: Some(identity), ..fields() }.encode()
        };
        let plain = report(KeyKind::Vlek, None);
        assert_eq!(plain[0x48..0x4c], [4, 0, 0, 0], "signed by a VLEK");
        assert_eq!(plain[0x04..0x08], [3, 0, 0, 0]);
        assert_eq!((&plain[0x10..0x20], &plain[0x20..0x30]), (&[1; 16][..], &[2; 16][..]));
        assert_eq!((&plain[0xe0..0x110], &plain[0x110..0x140]), (&[4; 48][..], &[0; 48][..]));
        let authored = report(KeyKind::Vcek, Some([5; 48]));
        assert_eq!(authored[0x48..0x4c], [1, 0, 0, 0], "there is an author key");
        assert_eq!(authored[0x110..0x140], [5; 48]);
    }

    #[test]
    fn the_signature_covers_the_report_and_is_little_endian() {
        let key = Chip::new(Product::Milan, [1; SECRET]).signing_key(KeyKind::Vcek, Tcb::default());
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

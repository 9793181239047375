//! ATTESTATION_REPORT: 1184 bytes, versions 2 to 5. AMD 56860 table 23; the signature is table 140's
//! little-endian r and s. Parsing is strict: unknown versions, reserved bytes and padding are errors.

use super::fields::{
    Cpuid, FirmwareVersion, GuestPolicy, KeyInfo, MitigationVectors, PlatformInfo, Product, RawTcb, TcbLayout,
};
use crate::reader::{ReadError, Reader};

/// SIGNATURE_ALGO 1: ECDSA P-384 with SHA-384, the only one there is.
pub const ALGORITHM_ECDSA_P384_SHA384: u32 = 1;

/// Where the fields of a report stand, in bytes.
#[expect(missing_docs, reason = "the names are those of the specification's table")]
pub mod offset {
    pub const VERSION: usize = 0x000;
    pub const GUEST_SVN: usize = 0x004;
    pub const POLICY: usize = 0x008;
    pub const FAMILY_ID: usize = 0x010;
    pub const IMAGE_ID: usize = 0x020;
    pub const VMPL: usize = 0x030;
    pub const SIGNATURE_ALGO: usize = 0x034;
    pub const CURRENT_TCB: usize = 0x038;
    pub const PLATFORM_INFO: usize = 0x040;
    pub const KEY_INFO: usize = 0x048;
    pub const RESERVED_04C: usize = 0x04c;
    pub const REPORT_DATA: usize = 0x050;
    pub const MEASUREMENT: usize = 0x090;
    pub const HOST_DATA: usize = 0x0c0;
    pub const ID_KEY_DIGEST: usize = 0x0e0;
    pub const AUTHOR_KEY_DIGEST: usize = 0x110;
    pub const REPORT_ID: usize = 0x140;
    pub const REPORT_ID_MA: usize = 0x160;
    pub const REPORTED_TCB: usize = 0x180;
    pub const CPUID: usize = 0x188;
    pub const RESERVED_18B: usize = 0x18b;
    pub const CHIP_ID: usize = 0x1a0;
    pub const COMMITTED_TCB: usize = 0x1e0;
    pub const CURRENT_VERSION: usize = 0x1e8;
    pub const COMMITTED_VERSION: usize = 0x1ec;
    pub const LAUNCH_TCB: usize = 0x1f0;
    pub const LAUNCH_MIT_VECTOR: usize = 0x1f8;
    pub const CURRENT_MIT_VECTOR: usize = 0x200;
    pub const RESERVED_208: usize = 0x208;
    pub const SIGNATURE: usize = 0x2a0;
    pub const SIGNATURE_S: usize = SIGNATURE + 72;
    pub const SIGNATURE_PADDING: usize = SIGNATURE + 144;
}

/// Why bytes are not a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
    /// A report has one length.
    #[error("attestation report has {0} bytes, not 1184")]
    Length(usize),
    /// A later version may give reserved bytes a meaning, so it can't be read as an older one.
    #[error("attestation report version {0} is not supported (2 to 5 are)")]
    Version(u32),
    /// Reserved bytes, or padding of the signature, are not zero.
    #[error("attestation report: {0}")]
    Layout(#[from] ReadError),
}

/// The bytes of a report: exactly 1184, nothing else checked.
#[derive(Clone, PartialEq, Eq)]
pub struct RawReport([u8; Self::LEN]);

impl RawReport {
    /// Length of a report in bytes.
    pub const LEN: usize = 1184;

    /// Takes 1184 bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ReportError> {
        bytes.try_into().map(Self).map_err(|_| ReportError::Length(bytes.len()))
    }

    /// All 1184 bytes.
    pub const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    /// The bytes that the signature covers, 0x000 to 0x29F.
    pub fn signed(&self) -> &[u8] {
        &self.0[..offset::SIGNATURE]
    }

    /// Replaces the signature; its padding becomes zero.
    pub fn set_signature(&mut self, signature: &Signature) {
        self.0[offset::SIGNATURE..offset::SIGNATURE_S].copy_from_slice(&signature.r);
        self.0[offset::SIGNATURE_S..offset::SIGNATURE_PADDING].copy_from_slice(&signature.s);
        self.0[offset::SIGNATURE_PADDING..].fill(0);
    }
}

impl From<[u8; Self::LEN]> for RawReport {
    fn from(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }
}

impl std::fmt::Debug for RawReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RawReport([1184 bytes])")
    }
}

/// An ECDSA signature, r and s little-endian in 72 bytes each; for P-384 the last 24 are zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Signature {
    /// r, little-endian.
    pub r: [u8; 72],
    /// s, little-endian.
    pub s: [u8; 72],
}

impl Signature {
    /// From the usual form, r ‖ s with 48 bytes big-endian each.
    pub fn from_fixed(fixed: &[u8; 96]) -> Self {
        let mut signature = Self { r: [0; 72], s: [0; 72] };
        for (to, from) in [(&mut signature.r, &fixed[..48]), (&mut signature.s, &fixed[48..])] {
            for (byte, big) in to.iter_mut().zip(from.iter().rev()) {
                *byte = *big;
            }
        }
        signature
    }

    /// To the usual form, r ‖ s with 48 bytes big-endian each. `None` if a value needs more than 48
    /// bytes: such a signature is not canonical. That r and s are below the order is the verifying
    /// library's check.
    pub fn to_fixed(&self) -> Option<[u8; 96]> {
        let mut fixed = [0; 96];
        for (to, from) in fixed.chunks_exact_mut(48).zip([&self.r, &self.s]) {
            if from[48..].iter().any(|&byte| byte != 0) {
                return None;
            }
            for (byte, little) in to.iter_mut().zip(from[..48].iter().rev()) {
                *byte = *little;
            }
        }
        Some(fixed)
    }
}

/// A report's fields. Reading one proves nothing: only a verifier can say whether it is genuine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// 2 to 5.
    pub version: u32,
    /// Security version of the guest, from its ID block.
    pub guest_svn: u32,
    /// What the owner demanded at launch.
    pub policy: GuestPolicy,
    /// From the ID block.
    pub family_id: [u8; 16],
    /// From the ID block.
    pub image_id: [u8; 16],
    /// Privilege level that asked for the report. 0xFFFFFFFF: the host did.
    pub vmpl: u32,
    /// [`ALGORITHM_ECDSA_P384_SHA384`].
    pub signature_algo: u32,
    /// TCB that runs now.
    pub current_tcb: RawTcb,
    /// How the platform is set up.
    pub platform_info: PlatformInfo,
    /// Which key signed.
    pub key_info: KeyInfo,
    /// What the guest wanted in the report.
    pub report_data: [u8; 64],
    /// The launch digest.
    pub measurement: [u8; 48],
    /// What the host put in at launch; no one can change it afterwards.
    pub host_data: [u8; 32],
    /// SHA-384 of the key that signed the ID block.
    pub id_key_digest: [u8; 48],
    /// SHA-384 of the key that certified that one, if [`KeyInfo::author_key_enabled`].
    pub author_key_digest: [u8; 48],
    /// Id of this guest instance.
    pub report_id: [u8; 32],
    /// Id of its migration agent; all ones if there is none.
    pub report_id_ma: [u8; 32],
    /// TCB that the signing key was derived for.
    pub reported_tcb: RawTcb,
    /// Version 3 and later.
    pub cpuid: Option<Cpuid>,
    /// Names the chip; zero if the platform masks it.
    pub chip_id: [u8; 64],
    /// Lowest TCB that the platform can still be rolled back to.
    pub committed_tcb: RawTcb,
    /// Firmware that runs now.
    pub current_version: FirmwareVersion,
    /// Firmware that it can be rolled back to.
    pub committed_version: FirmwareVersion,
    /// TCB when the guest was launched or imported.
    pub launch_tcb: RawTcb,
    /// Version 5.
    pub mitigations: Option<MitigationVectors>,
    /// Over bytes 0x000 to 0x29F.
    pub signature: Signature,
}

impl Report {
    /// Reads a report: exact length, known version, reserved bytes and signature padding zero.
    pub fn parse(bytes: &[u8]) -> Result<Self, ReportError> {
        Self::from_raw(&RawReport::from_bytes(bytes)?)
    }

    /// As [`Report::parse`], of bytes that already have the right length.
    pub fn from_raw(raw: &RawReport) -> Result<Self, ReportError> {
        let mut r = Reader::new(&raw.0);
        let version = r.u32()?;
        if !(2..=5).contains(&version) {
            return Err(ReportError::Version(version));
        }
        let report = Self {
            version,
            guest_svn: r.u32()?,
            policy: GuestPolicy(r.u64()?),
            family_id: r.array()?,
            image_id: r.array()?,
            vmpl: r.u32()?,
            signature_algo: r.u32()?,
            current_tcb: RawTcb(r.array()?),
            platform_info: PlatformInfo(r.u64()?),
            key_info: KeyInfo(r.u32()?),
            report_data: {
                r.zero(4)?;
                r.array()?
            },
            measurement: r.array()?,
            host_data: r.array()?,
            id_key_digest: r.array()?,
            author_key_digest: r.array()?,
            report_id: r.array()?,
            report_id_ma: r.array()?,
            reported_tcb: RawTcb(r.array()?),
            cpuid: if version >= 3 {
                Some(Cpuid { family: r.u8()?, model: r.u8()?, stepping: r.u8()? })
            } else {
                r.zero(3)?;
                None
            },
            chip_id: {
                r.zero(21)?;
                r.array()?
            },
            committed_tcb: RawTcb(r.array()?),
            current_version: firmware_version(&mut r)?,
            committed_version: firmware_version(&mut r)?,
            launch_tcb: RawTcb(r.array()?),
            mitigations: if version >= 5 {
                Some(MitigationVectors { launch: r.u64()?, current: r.u64()? })
            } else {
                r.zero(16)?;
                None
            },
            signature: {
                r.zero(offset::SIGNATURE - offset::RESERVED_208)?;
                Signature { r: r.array()?, s: r.array()? }
            },
        };
        r.zero(RawReport::LEN - offset::SIGNATURE_PADDING)?;
        r.finish()?;
        Ok(report)
    }

    /// Writes the report. Fields that the version does not have are left out.
    pub fn encode(&self) -> RawReport {
        let mut out = [0; RawReport::LEN];
        let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
        put(offset::VERSION, &self.version.to_le_bytes());
        put(offset::GUEST_SVN, &self.guest_svn.to_le_bytes());
        put(offset::POLICY, &self.policy.0.to_le_bytes());
        put(offset::FAMILY_ID, &self.family_id);
        put(offset::IMAGE_ID, &self.image_id);
        put(offset::VMPL, &self.vmpl.to_le_bytes());
        put(offset::SIGNATURE_ALGO, &self.signature_algo.to_le_bytes());
        put(offset::CURRENT_TCB, &self.current_tcb.0);
        put(offset::PLATFORM_INFO, &self.platform_info.0.to_le_bytes());
        put(offset::KEY_INFO, &self.key_info.0.to_le_bytes());
        put(offset::REPORT_DATA, &self.report_data);
        put(offset::MEASUREMENT, &self.measurement);
        put(offset::HOST_DATA, &self.host_data);
        put(offset::ID_KEY_DIGEST, &self.id_key_digest);
        put(offset::AUTHOR_KEY_DIGEST, &self.author_key_digest);
        put(offset::REPORT_ID, &self.report_id);
        put(offset::REPORT_ID_MA, &self.report_id_ma);
        put(offset::REPORTED_TCB, &self.reported_tcb.0);
        if let (3.., Some(cpuid)) = (self.version, self.cpuid) {
            put(offset::CPUID, &[cpuid.family, cpuid.model, cpuid.stepping]);
        }
        put(offset::CHIP_ID, &self.chip_id);
        put(offset::COMMITTED_TCB, &self.committed_tcb.0);
        for (at, v) in [
            (offset::CURRENT_VERSION, self.current_version),
            (offset::COMMITTED_VERSION, self.committed_version),
        ] {
            put(at, &[v.build, v.minor, v.major]);
        }
        put(offset::LAUNCH_TCB, &self.launch_tcb.0);
        if let (5.., Some(vectors)) = (self.version, self.mitigations) {
            put(offset::LAUNCH_MIT_VECTOR, &vectors.launch.to_le_bytes());
            put(offset::CURRENT_MIT_VECTOR, &vectors.current.to_le_bytes());
        }
        put(offset::SIGNATURE, &self.signature.r);
        put(offset::SIGNATURE_S, &self.signature.s);
        RawReport(out)
    }

    /// The product that the report itself names: by CPUID, from version 3 on.
    pub fn product(&self) -> Option<Product> {
        self.cpuid.and_then(Product::from_cpuid)
    }

    /// The TCB layout as far as the report alone tells: by CPUID, or, in version 2, by whether the chip
    /// id has the length of Turin's. A verifier takes the certificate's product instead.
    pub fn tcb_layout(&self) -> TcbLayout {
        match self.product() {
            Some(product) => product.tcb_layout(),
            None if self.version == 2 && self.chip_id[8..] == [0; 56] && self.chip_id != [0; 64] => {
                TcbLayout::Turin
            }
            None => TcbLayout::Legacy,
        }
    }
}

fn firmware_version(r: &mut Reader<'_>) -> Result<FirmwareVersion, ReadError> {
    let [build, minor, major] = r.array()?;
    r.zero(1)?;
    Ok(FirmwareVersion { major, minor, build })
}

#[cfg(test)]
pub(super) mod tests;

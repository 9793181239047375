//! What a report says about guest and platform, once it is known to be genuine.

use serde::{Deserialize, Serialize};
use tee_evidence::snp::{
    Cpuid, FirmwareVersion, GuestPolicy, Line, MitigationVectors, PlatformInfo, Product, SigningKey, Tcb,
};

use crate::verdict::{hex_array, hex_string, optional_hex_array, optional_hex_string};

/// The claims of a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnpClaims {
    /// Processor.
    pub product: Product,
    /// Which processors' microcode versions are comparable with this one's.
    pub line: Line,
    /// Family, model and stepping; not in reports of version 2.
    pub cpuid: Option<Cpuid>,
    /// Version of the report.
    pub report_version: u32,
    /// Which kind of key signed.
    pub signing_key: SigningKey,
    /// Cloud provider that a VLEK was made for.
    pub csp_id: Option<String>,
    /// The chip, hexadecimal; zero under a VLEK if the platform masks it.
    #[serde(serialize_with = "hex_string", deserialize_with = "hex_array")]
    pub chip_id: [u8; 64],
    /// The launch digest.
    #[serde(serialize_with = "hex_string", deserialize_with = "hex_array")]
    pub measurement: [u8; 48],
    /// SHA-256 of the init-data.
    #[serde(serialize_with = "hex_string", deserialize_with = "hex_array")]
    pub host_data: [u8; 32],
    /// This guest instance.
    #[serde(serialize_with = "hex_string", deserialize_with = "hex_array")]
    pub report_id: [u8; 32],
    /// TCB versions.
    pub tcb: TcbVersions,
    /// Firmware that runs now.
    pub firmware: FirmwareVersion,
    /// Firmware that the platform can't be rolled back behind.
    pub committed_firmware: FirmwareVersion,
    /// Policy that the guest was launched with, and what its bits mean.
    pub policy: PolicyBits,
    /// Platform info as in the report.
    pub platform_info: u64,
    /// What its bits mean.
    pub platform: PlatformBits,
    /// The firmware found no aliased memory.
    pub alias_check: bool,
    /// Mitigations in force; only in reports of version 5.
    pub mitigations: Option<MitigationVectors>,
    /// Privilege level that asked.
    pub vmpl: u32,
    /// Security version of the guest.
    pub guest_svn: u32,
    /// Family of the guest image, from its ID block.
    #[serde(serialize_with = "hex_string", deserialize_with = "hex_array")]
    pub family_id: [u8; 16],
    /// Image, from its ID block.
    #[serde(serialize_with = "hex_string", deserialize_with = "hex_array")]
    pub image_id: [u8; 16],
    /// Key that signed the ID block; zero if there was none.
    #[serde(serialize_with = "hex_string", deserialize_with = "hex_array")]
    pub id_key_digest: [u8; 48],
    /// Key that certified that one; `None` if the launch had none.
    #[serde(serialize_with = "optional_hex_string", deserialize_with = "optional_hex_array")]
    pub author_key_digest: Option<[u8; 48]>,
}

/// The four TCB versions of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcbVersions {
    /// What the signing key was derived for.
    pub reported: Tcb,
    /// What the platform can't be rolled back behind.
    pub committed: Tcb,
    /// What runs now.
    pub current: Tcb,
    /// What ran when the guest was launched.
    pub launch: Tcb,
}

/// The guest policy for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyBits {
    /// As in the report.
    pub bits: u64,
    /// Lowest ABI version of the firmware, (major, minor).
    pub abi: (u8, u8),
    /// The host may read and write guest memory.
    pub debug: bool,
    /// A migration agent may export the guest.
    pub migrate_ma: bool,
    /// May run where SMT is on.
    pub smt: bool,
    /// Runs on one socket only.
    pub single_socket: bool,
    /// CXL devices may be attached.
    pub cxl: bool,
    /// Memory must be encrypted with AES-256-XTS.
    pub aes_256_xts: bool,
    /// Power readings, a side channel, must be off.
    pub rapl_disabled: bool,
    /// The host must not see the ciphertext of guest memory.
    pub ciphertext_hiding: bool,
    /// The host must not swap or move guest pages.
    pub page_swap_disabled: bool,
}

impl From<GuestPolicy> for PolicyBits {
    fn from(policy: GuestPolicy) -> Self {
        Self {
            bits: policy.0,
            abi: policy.abi(),
            debug: policy.debug(),
            migrate_ma: policy.migrate_ma(),
            smt: policy.smt(),
            single_socket: policy.single_socket(),
            cxl: policy.cxl(),
            aes_256_xts: policy.aes_256_xts(),
            rapl_disabled: policy.rapl_disabled(),
            ciphertext_hiding: policy.ciphertext_hiding(),
            page_swap_disabled: policy.page_swap_disabled(),
        }
    }
}

/// The platform's settings for people. The firmware holds it to the guest's policy: what that demands is
/// on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlatformBits {
    /// SMT is on.
    pub smt: bool,
    /// Transparent memory encryption is on.
    pub tsme: bool,
    /// Memory has ECC.
    pub ecc: bool,
    /// Power readings are off.
    pub rapl_disabled: bool,
    /// The host can't see the ciphertext of guest memory.
    pub ciphertext_hiding: bool,
    /// The firmware found no aliased memory.
    pub alias_check: bool,
    /// Trusted I/O is on.
    pub tio: bool,
}

impl From<PlatformInfo> for PlatformBits {
    fn from(info: PlatformInfo) -> Self {
        Self {
            smt: info.smt(),
            tsme: info.tsme(),
            ecc: info.ecc(),
            rapl_disabled: info.rapl_disabled(),
            ciphertext_hiding: info.ciphertext_hiding(),
            alias_check: info.alias_check(),
            tio: info.tio(),
        }
    }
}

//! Fields of a report that have an inner structure: policy, platform info, key info, TCB versions and
//! the product that a CPUID names. AMD 56860 tables 3 (TCB_VERSION), 10 (policy), 23 and 24.

use serde::{Deserialize, Serialize};

/// GUEST_POLICY, 64 bits: what the owner demanded of the firmware at launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GuestPolicy(pub u64);

impl GuestPolicy {
    /// Bit 17 must be one in every policy.
    pub const MUST_BE_ONE: u64 = 1 << 17;
    /// Bits 26 to 63 have no meaning yet and must be zero.
    pub const RESERVED: u64 = !0 << 26;

    /// Lowest ABI version that the firmware must have, (major, minor).
    pub const fn abi(self) -> (u8, u8) {
        ((self.0 >> 8) as u8, self.0 as u8)
    }
    /// Bit 16: the guest may run where SMT is on.
    pub const fn smt(self) -> bool {
        self.bit(16)
    }
    /// Bit 17, must be one.
    pub const fn must_be_one(self) -> bool {
        self.bit(17)
    }
    /// Bit 18: a migration agent may export the guest.
    pub const fn migrate_ma(self) -> bool {
        self.bit(18)
    }
    /// Bit 19: the host may read and write the guest's memory.
    pub const fn debug(self) -> bool {
        self.bit(19)
    }
    /// Bit 20: the guest runs on one socket only.
    pub const fn single_socket(self) -> bool {
        self.bit(20)
    }
    /// Bit 21: CXL devices may be attached.
    pub const fn cxl(self) -> bool {
        self.bit(21)
    }
    /// Bit 22: memory must be encrypted with AES-256-XTS.
    pub const fn aes_256_xts(self) -> bool {
        self.bit(22)
    }
    /// Bit 23: running average power limits, a side channel, must be off.
    pub const fn rapl_disabled(self) -> bool {
        self.bit(23)
    }
    /// Bit 24: the host must not be able to read the ciphertext of guest memory.
    pub const fn ciphertext_hiding(self) -> bool {
        self.bit(24)
    }
    /// Bit 25: the host must not be able to swap guest pages out or move them.
    pub const fn page_swap_disabled(self) -> bool {
        self.bit(25)
    }
    /// Are all bits without a meaning zero?
    pub const fn reserved_is_zero(self) -> bool {
        self.0 & Self::RESERVED == 0
    }
    const fn bit(self, bit: u32) -> bool {
        self.0 >> bit & 1 == 1
    }
}

/// PLATFORM_INFO, 64 bits: how the platform was set up when it made the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PlatformInfo(pub u64);

impl PlatformInfo {
    /// Bit 0: SMT is on.
    pub const fn smt(self) -> bool {
        self.0 & 1 == 1
    }
    /// Bit 1: transparent memory encryption is on.
    pub const fn tsme(self) -> bool {
        self.0 >> 1 & 1 == 1
    }
    /// Bit 2: memory has ECC.
    pub const fn ecc(self) -> bool {
        self.0 >> 2 & 1 == 1
    }
    /// Bit 3: running average power limits are off.
    pub const fn rapl_disabled(self) -> bool {
        self.0 >> 3 & 1 == 1
    }
    /// Bit 4: ciphertext of guest memory is hidden from the host.
    pub const fn ciphertext_hiding(self) -> bool {
        self.0 >> 4 & 1 == 1
    }
    /// Bit 5: the firmware found no aliased memory since reset (BadRAM, CVE-2024-21944).
    pub const fn alias_check(self) -> bool {
        self.0 >> 5 & 1 == 1
    }
    /// Bit 7: trusted I/O is on.
    pub const fn tio(self) -> bool {
        self.0 >> 7 & 1 == 1
    }
}

/// Bit field at 0x48: which key signed, and whether the author's key digest is filled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyInfo(pub u32);

/// SIGNING_KEY, bits 4:2 of [`KeyInfo`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SigningKey {
    /// Derived from the chip's own secret and the TCB.
    Vcek,
    /// Loaded by the cloud provider, derived from a seed that AMD keeps.
    Vlek,
}

impl KeyInfo {
    /// Bit 0: AUTHOR_KEY_DIGEST is filled in.
    pub const fn author_key_enabled(self) -> bool {
        self.0 & 1 == 1
    }
    /// Bit 1: the firmware does not sign reports.
    pub const fn mask_chip_key(self) -> bool {
        self.0 >> 1 & 1 == 1
    }
    /// Bits 4:2: who signed. `None` for 7 (nobody) and for the values without a meaning.
    pub const fn signing_key(self) -> Option<SigningKey> {
        match self.0 >> 2 & 7 {
            0 => Some(SigningKey::Vcek),
            1 => Some(SigningKey::Vlek),
            _ => None,
        }
    }
    /// Are bits 5 to 31, which have no meaning, zero?
    pub const fn reserved_is_zero(self) -> bool {
        self.0 >> 5 == 0
    }
}

/// The processor families whose reports we can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Product {
    /// EPYC 7003.
    Milan,
    /// EPYC 9004, Bergamo and Siena included.
    Genoa,
    /// EPYC 9005.
    Turin,
}

impl Product {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Milan, Self::Genoa, Self::Turin];

    /// From the combined CPUID family and model, as reports of version 3 and later carry them.
    pub const fn from_cpuid(cpuid: Cpuid) -> Option<Self> {
        match (cpuid.family, cpuid.model) {
            (0x19, 0x00..=0x0f) => Some(Self::Milan),
            (0x19, 0x10..=0x1f | 0xa0..=0xaf) => Some(Self::Genoa),
            (0x1a, 0x00..=0x11) => Some(Self::Turin),
            _ => None,
        }
    }

    /// The name in AMD's certificates and key distribution service.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Milan => "Milan",
            Self::Genoa => "Genoa",
            Self::Turin => "Turin",
        }
    }

    /// How this product lays out its TCB version.
    pub const fn tcb_layout(self) -> TcbLayout {
        match self {
            Self::Milan | Self::Genoa => TcbLayout::Legacy,
            Self::Turin => TcbLayout::Turin,
        }
    }

    /// Bytes of CHIP_ID that name the chip; the rest is zero.
    pub const fn chip_id_len(self) -> usize {
        match self {
            Self::Milan | Self::Genoa => 64,
            Self::Turin => 8,
        }
    }
}

/// The processors of a product whose microcode versions can be compared with each other: each line counts
/// its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Line {
    /// EPYC 7003.
    Milan,
    /// EPYC 7003 with stacked cache.
    MilanX,
    /// EPYC 9004.
    Genoa,
    /// EPYC 9004 with stacked cache.
    GenoaX,
    /// EPYC 97x4 and, with the same microcode, EPYC 8004 (Siena).
    Bergamo,
    /// EPYC 9005.
    Turin,
    /// EPYC 9005 with dense cores.
    TurinDense,
}

impl Line {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Milan, Self::MilanX, Self::Genoa, Self::GenoaX, Self::Bergamo, Self::Turin, Self::TurinDense];

    /// The line of a processor, as reports of version 3 and later tell it; of the others, a product's first.
    pub const fn of(product: Product, cpuid: Option<Cpuid>) -> Self {
        match (product, cpuid) {
            (Product::Milan, Some(Cpuid { model: 0x01, stepping: 2, .. })) => Self::MilanX,
            (Product::Milan, _) => Self::Milan,
            (Product::Genoa, Some(Cpuid { model: 0x11, stepping: 2, .. })) => Self::GenoaX,
            (Product::Genoa, Some(Cpuid { model: 0xa0..=0xaf, .. })) => Self::Bergamo,
            (Product::Genoa, _) => Self::Genoa,
            (Product::Turin, Some(Cpuid { model: 0x10..=0x1f, .. })) => Self::TurinDense,
            (Product::Turin, _) => Self::Turin,
        }
    }

    /// The product that it belongs to: whose root, and whose layout of the TCB version.
    pub const fn product(self) -> Product {
        match self {
            Self::Milan | Self::MilanX => Product::Milan,
            Self::Genoa | Self::GenoaX | Self::Bergamo => Product::Genoa,
            Self::Turin | Self::TurinDense => Product::Turin,
        }
    }

    /// The name in policies.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Milan => "milan",
            Self::MilanX => "milan-x",
            Self::Genoa => "genoa",
            Self::GenoaX => "genoa-x",
            Self::Bergamo => "bergamo",
            Self::Turin => "turin",
            Self::TurinDense => "turin-dense",
        }
    }
}

/// Family, model and stepping at 0x188 of reports of version 3 and later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cpuid {
    /// Combined extended and base family.
    pub family: u8,
    /// Combined extended and base model.
    pub model: u8,
    /// Stepping.
    pub stepping: u8,
}

/// The two layouts of TCB_VERSION.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TcbLayout {
    /// Milan and Genoa: bootloader 0, tee 1, reserved 2–5, snp 6, microcode 7.
    Legacy,
    /// Turin: fmc 0, bootloader 1, tee 2, snp 3, reserved 4–6, microcode 7.
    Turin,
}

/// TCB_VERSION as it stands in the report: meaningless without the product.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct RawTcb(pub [u8; 8]);

impl std::fmt::Debug for RawTcb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RawTcb({:016x})", u64::from_le_bytes(self.0))
    }
}

/// A TCB version by component. Compared per component only, never as one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tcb {
    /// Firmware of the first mutable code, Turin only.
    #[serde(default)]
    pub fmc: Option<u8>,
    /// Bootloader of the secure processor.
    pub bootloader: u8,
    /// Operating system of the secure processor.
    pub tee: u8,
    /// SNP firmware.
    pub snp: u8,
    /// Lowest microcode patch level of all cores.
    pub microcode: u8,
}

/// A TCB version that does not have the layout of its product.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("reserved bytes of TCB version {0:016x} are not zero in this product's layout")]
pub struct TcbError(u64);

impl RawTcb {
    /// Reads the components in the layout of a product.
    pub fn decode(self, layout: TcbLayout) -> Result<Tcb, TcbError> {
        let b = self.0;
        let (tcb, reserved) = match layout {
            TcbLayout::Legacy => {
                (Tcb { fmc: None, bootloader: b[0], tee: b[1], snp: b[6], microcode: b[7] }, &b[2..6])
            }
            TcbLayout::Turin => {
                (Tcb { fmc: Some(b[0]), bootloader: b[1], tee: b[2], snp: b[3], microcode: b[7] }, &b[4..7])
            }
        };
        if reserved.iter().any(|&byte| byte != 0) {
            return Err(TcbError(u64::from_le_bytes(b)));
        }
        Ok(tcb)
    }
}

impl Tcb {
    /// Writes the components: in Turin's layout if there is an FMC version, else in the older one.
    pub const fn encode(self) -> RawTcb {
        RawTcb(match self.fmc {
            None => [self.bootloader, self.tee, 0, 0, 0, 0, self.snp, self.microcode],
            Some(fmc) => [fmc, self.bootloader, self.tee, self.snp, 0, 0, 0, self.microcode],
        })
    }
}

/// A firmware version as at 0x1E8 and 0x1EC of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FirmwareVersion {
    /// ABI major.
    pub major: u8,
    /// ABI minor.
    pub minor: u8,
    /// Build.
    pub build: u8,
}

/// LAUNCH_MIT_VECTOR and CURRENT_MIT_VECTOR of version 5 reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MitigationVectors {
    /// Mitigations in force when the guest was launched.
    pub launch: u64,
    /// Mitigations in force when the report was made.
    pub current: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tcb_layouts_differ_and_round_trip() {
        let raw = RawTcb([1, 2, 0, 0, 0, 0, 7, 8]);
        let legacy = raw.decode(TcbLayout::Legacy).unwrap();
        assert_eq!(legacy, Tcb { fmc: None, bootloader: 1, tee: 2, snp: 7, microcode: 8 });
        assert_eq!(legacy.encode(), raw);
        let raw = RawTcb([1, 2, 3, 4, 0, 0, 0, 8]);
        let turin = raw.decode(TcbLayout::Turin).unwrap();
        assert_eq!(turin, Tcb { fmc: Some(1), bootloader: 2, tee: 3, snp: 4, microcode: 8 });
        assert_eq!(turin.encode(), raw);
    }

    #[test]
    fn a_tcb_in_the_other_layout_is_refused() {
        assert!(RawTcb([1, 2, 3, 4, 0, 0, 0, 8]).decode(TcbLayout::Legacy).is_err());
        assert!(RawTcb([1, 2, 0, 0, 0, 0, 7, 8]).decode(TcbLayout::Turin).is_err());
    }

    #[test]
    fn lines_are_told_by_model_and_stepping() {
        let line = |family, model, stepping| {
            let cpuid = Cpuid { family, model, stepping };
            Line::of(Product::from_cpuid(cpuid).unwrap(), Some(cpuid))
        };
        assert_eq!(line(0x19, 0x01, 1), Line::Milan);
        assert_eq!(line(0x19, 0x01, 2), Line::MilanX);
        assert_eq!(line(0x19, 0x11, 1), Line::Genoa);
        assert_eq!(line(0x19, 0x11, 2), Line::GenoaX);
        assert_eq!(line(0x19, 0xa0, 2), Line::Bergamo);
        assert_eq!(line(0x1a, 0x02, 1), Line::Turin);
        assert_eq!(line(0x1a, 0x11, 0), Line::TurinDense);
        for product in Product::ALL {
            let first = Line::of(product, None);
            assert_eq!((first.product(), first.name()), (product, product.name().to_lowercase().as_str()));
        }
    }

    #[test]
    fn key_info_names_the_signer() {
        assert_eq!(KeyInfo(0).signing_key(), Some(SigningKey::Vcek));
        assert_eq!(KeyInfo(1 << 2).signing_key(), Some(SigningKey::Vlek));
        assert_eq!(KeyInfo(7 << 2).signing_key(), None);
        assert_eq!(KeyInfo(2 << 2).signing_key(), None);
        assert!(KeyInfo(1 << 5).0 != 0 && !KeyInfo(1 << 5).reserved_is_zero());
    }
}

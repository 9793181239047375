//! QEMU's names of AMD server processors and the CPUID signature that each gives to a virtual processor.

use std::fmt;
use std::str::FromStr;

/// A CPU model by QEMU's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuModel {
    name: &'static str,
    signature: u32,
}

/// A CPU name without a known signature.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[error("CPU model {0:?} is not an SEV-SNP one that this program knows; use one of: {known}", known = NAMES.map(|(name, _)| name).join(", "))]
pub struct UnknownCpu(String);

const NAPLES: u32 = signature(23, 1, 2);
const ROME: u32 = signature(23, 49, 0);
const MILAN: u32 = signature(25, 1, 1);
const GENOA: u32 = signature(25, 17, 0);
const TURIN: u32 = signature(26, 0, 0);

const NAMES: [(&str, u32); 18] = [
    ("EPYC", NAPLES),
    ("EPYC-v1", NAPLES),
    ("EPYC-v2", NAPLES),
    ("EPYC-IBPB", NAPLES),
    ("EPYC-v3", NAPLES),
    ("EPYC-v4", NAPLES),
    ("EPYC-Rome", ROME),
    ("EPYC-Rome-v1", ROME),
    ("EPYC-Rome-v2", ROME),
    ("EPYC-Rome-v3", ROME),
    ("EPYC-Milan", MILAN),
    ("EPYC-Milan-v1", MILAN),
    ("EPYC-Milan-v2", MILAN),
    ("EPYC-Genoa", GENOA),
    ("EPYC-Genoa-v1", GENOA),
    ("EPYC-Turin", TURIN),
    ("EPYC-Turin-v1", TURIN),
    ("EPYC-Turin-v2", TURIN),
];

impl CpuModel {
    /// CPUID Fn0000_0001_EAX: what a virtual processor's RDX holds after reset.
    pub(crate) fn signature(self) -> u32 {
        self.signature
    }
}

impl FromStr for CpuModel {
    type Err = UnknownCpu;

    fn from_str(text: &str) -> Result<Self, UnknownCpu> {
        NAMES
            .iter()
            .find(|(name, _)| *name == text)
            .map(|(name, signature)| Self { name, signature: *signature })
            .ok_or_else(|| UnknownCpu(text.to_owned()))
    }
}

impl fmt::Display for CpuModel {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name)
    }
}

/// AMD CPUID specification, Fn0000_0001_EAX: family above 15 goes into the extended family.
const fn signature(family: u32, model: u32, stepping: u32) -> u32 {
    (family - 15) << 20 | (model >> 4) << 16 | 15 << 8 | (model & 15) << 4 | stepping
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_qemu_exactly() {
        assert_eq!("EPYC-Milan".parse::<CpuModel>().unwrap().signature(), 0x00a0_0f11);
        assert_eq!("EPYC-Rome".parse::<CpuModel>().unwrap().signature(), 0x0083_0f10);
        for name in ["", "epyc", "EPYC-Milan-v9", "host", "max"] {
            let error = name.parse::<CpuModel>().unwrap_err();
            assert!(error.to_string().contains("EPYC-Genoa-v1"), "{error}");
        }
    }
}

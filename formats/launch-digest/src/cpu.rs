//! vCPU models by QEMU's names, and the CPUID signature that QEMU puts into their first RDX.
//! QEMU target/i386/cpu.c (names, family, model, stepping); AMD 25481, CPUID Fn0000_0001_EAX.

use std::fmt;
use std::str::FromStr;

/// A vCPU model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuModel {
    name: &'static str,
    family: u8,
    model: u8,
    stepping: u8,
}

/// A name that stands for no model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "vCPU model '{0}' has no known CPUID signature; use one of QEMU's EPYC models, such as EPYC-v4 or EPYC-Milan"
)]
pub struct UnknownCpuModel(pub String);

macro_rules! models {
    ($($name:literal $family:literal $model:literal $stepping:literal,)*) => {
        const MODELS: &[CpuModel] =
            &[$(CpuModel { name: $name, family: $family, model: $model, stepping: $stepping },)*];
    };
}

models! {
    "EPYC" 0x17 0x01 2,
    "EPYC-v1" 0x17 0x01 2,
    "EPYC-v2" 0x17 0x01 2,
    "EPYC-IBPB" 0x17 0x01 2,
    "EPYC-v3" 0x17 0x01 2,
    "EPYC-v4" 0x17 0x01 2,
    "EPYC-Rome" 0x17 0x31 0,
    "EPYC-Rome-v1" 0x17 0x31 0,
    "EPYC-Rome-v2" 0x17 0x31 0,
    "EPYC-Rome-v3" 0x17 0x31 0,
    "EPYC-Milan" 0x19 0x01 1,
    "EPYC-Milan-v1" 0x19 0x01 1,
    "EPYC-Milan-v2" 0x19 0x01 1,
    "EPYC-Genoa" 0x19 0x11 0,
    "EPYC-Genoa-v1" 0x19 0x11 0,
    "EPYC-Turin" 0x1a 0x00 0,
    "EPYC-Turin-v1" 0x1a 0x00 0,
    "EPYC-Turin-v2" 0x1a 0x00 0,
}

impl CpuModel {
    /// All models that are known by name.
    pub const fn all() -> &'static [Self] {
        MODELS
    }

    /// A model by its numbers, for a host that passes its own CPUID on.
    pub const fn from_cpuid(family: u8, model: u8, stepping: u8) -> Self {
        Self { name: "by CPUID", family, model, stepping }
    }

    /// QEMU's name.
    pub const fn name(self) -> &'static str {
        self.name
    }

    /// CPUID Fn0000_0001_EAX: family, model and stepping in their base and extended fields.
    pub const fn signature(self) -> u32 {
        let (base, extended) =
            if self.family > 0xf { (0xf, self.family as u32 - 0xf) } else { (self.family as u32, 0) };
        extended << 20
            | (self.model as u32 >> 4) << 16
            | base << 8
            | (self.model as u32 & 0xf) << 4
            | (self.stepping as u32 & 0xf)
    }
}

impl FromStr for CpuModel {
    type Err = UnknownCpuModel;

    fn from_str(name: &str) -> Result<Self, UnknownCpuModel> {
        MODELS.iter().find(|model| model.name == name).copied().ok_or_else(|| UnknownCpuModel(name.into()))
    }
}

impl fmt::Display for CpuModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sev::measurement::vcpu_types::CpuType;

    #[test]
    fn signatures_are_the_sev_crates() {
        for model in CpuModel::all() {
            let theirs = CpuType::try_from(model.name()).unwrap();
            assert_eq!(model.signature(), theirs.sig() as u32, "{model}");
        }
        assert_eq!(CpuModel::from_cpuid(0x19, 0xa0, 2).signature(), 0x00aa_0f02);
    }

    #[test]
    fn other_names_are_refused() {
        for name in ["", "epyc", "EPYC-Milan-v9", "host", "max"] {
            assert_eq!(name.parse::<CpuModel>(), Err(UnknownCpuModel(name.into())));
        }
    }
}

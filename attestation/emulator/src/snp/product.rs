//! Processor generations: names, CPUID values and the layout of their TCB versions
//! (SEV-SNP firmware ABI, table "TCB_VERSION"; VCEK specification, section "OIDs").

use std::fmt;
use std::str::FromStr;

/// Which generation a processor pretends to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Product {
    /// Zen 3, EPYC 7003.
    Milan,
    /// Zen 4, EPYC 9004.
    Genoa,
    /// Zen 5, EPYC 9005: another TCB layout and a hardware id of 8 bytes.
    Turin,
}

impl Product {
    /// The name in certificate subjects.
    pub fn name(self) -> &'static str {
        match self {
            Self::Milan => "Milan",
            Self::Genoa => "Genoa",
            Self::Turin => "Turin",
        }
    }

    /// The value of the VCEK certificate's product extension.
    pub(crate) fn stepping_name(self) -> &'static str {
        match self {
            Self::Milan => "Milan-B0",
            Self::Genoa => "Genoa",
            Self::Turin => "Turin",
        }
    }

    /// CPUID family, model and stepping of the chip.
    pub(crate) fn cpuid(self) -> [u8; 3] {
        match self {
            Self::Milan => [0x19, 0x01, 0x01],
            Self::Genoa => [0x19, 0x11, 0x01],
            Self::Turin => [0x1a, 0x02, 0x01],
        }
    }

    /// Bytes of the hardware id in the VCEK certificate; a report's chip id is padded with zeros.
    pub(crate) fn hardware_id_length(self) -> usize {
        match self {
            Self::Milan | Self::Genoa => 64,
            Self::Turin => 8,
        }
    }
}

impl FromStr for Product {
    type Err = UnknownProduct;

    fn from_str(text: &str) -> Result<Self, UnknownProduct> {
        [Self::Milan, Self::Genoa, Self::Turin]
            .into_iter()
            .find(|product| product.name() == text)
            .ok_or_else(|| UnknownProduct(text.to_owned()))
    }
}

/// Not a product name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("product {0:?} is unknown; use Milan, Genoa or Turin")]
pub struct UnknownProduct(String);

/// Security patch levels of the firmware parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tcb {
    /// Boot loader.
    pub bootloader: u8,
    /// Secure processor operating system.
    pub tee: u8,
    /// SEV-SNP firmware.
    pub snp: u8,
    /// Microcode.
    pub microcode: u8,
    /// Firmware of the control die; Turin only.
    pub fmc: u8,
}

impl Default for Tcb {
    fn default() -> Self {
        Self { bootloader: 4, tee: 0, snp: 24, microcode: 219, fmc: 0 }
    }
}

impl Tcb {
    /// The eight bytes of a TCB_VERSION.
    pub(crate) fn encode(self, product: Product) -> [u8; 8] {
        match product {
            Product::Milan | Product::Genoa => {
                [self.bootloader, self.tee, 0, 0, 0, 0, self.snp, self.microcode]
            }
            Product::Turin => [self.fmc, self.bootloader, self.tee, self.snp, 0, 0, 0, self.microcode],
        }
    }
}

impl FromStr for Tcb {
    type Err = TcbError;

    /// `bootloader=4,tee=0,snp=24,microcode=219,fmc=0`; parts that are not named keep their default.
    fn from_str(text: &str) -> Result<Self, TcbError> {
        let refused = |part: &str| TcbError(part.to_owned());
        let mut tcb = Self::default();
        for part in text.split(',') {
            let (name, level) = part.split_once('=').ok_or_else(|| refused(part))?;
            let level = level.parse().map_err(|_| refused(part))?;
            match name {
                "bootloader" => tcb.bootloader = level,
                "tee" => tcb.tee = level,
                "snp" => tcb.snp = level,
                "microcode" => tcb.microcode = level,
                "fmc" => tcb.fmc = level,
                _ => return Err(refused(part)),
            }
        }
        Ok(tcb)
    }
}

impl fmt::Display for Tcb {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bootloader, tee, snp, microcode, fmc } = self;
        write!(out, "bootloader={bootloader},tee={tee},snp={snp},microcode={microcode},fmc={fmc}")
    }
}

/// Not a TCB.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("TCB part {0:?} is not NAME=0..255 with a name of bootloader, tee, snp, microcode, fmc")]
pub struct TcbError(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tcb_text_names_parts() {
        let tcb: Tcb = "snp=5,bootloader=2".parse().unwrap();
        assert_eq!(tcb, Tcb { bootloader: 2, snp: 5, ..Tcb::default() });
        assert_eq!(tcb.to_string().parse::<Tcb>().unwrap(), tcb);
        for text in ["", "snp", "snp=256", "snp=-1", "spl=1", "snp=1,"] {
            assert!(text.parse::<Tcb>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn turin_lays_its_tcb_out_differently() {
        let tcb = Tcb { bootloader: 1, tee: 2, snp: 3, microcode: 4, fmc: 5 };
        assert_eq!(tcb.encode(Product::Milan), [1, 2, 0, 0, 0, 0, 3, 4]);
        assert_eq!(tcb.encode(Product::Turin), [5, 1, 2, 3, 0, 0, 0, 4]);
    }
}

//! What a piece of collateral is for, its name in a cache or bundle, and its path at AMD's key
//! distribution service (AMD 57230 §4). Both directions are exact: whatever doesn't come back as it was
//! is no name.

use std::fmt;

use tee_evidence::snp::{Product, RawTcb, Report, SigningKey, Tcb};

/// Which of AMD's two lines of report-signing keys a chain or revocation list belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Line {
    /// Chips' own keys, under an ASK.
    Vcek,
    /// Cloud providers' keys, under an ASVK.
    Vlek,
}

impl Line {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Vcek, Self::Vlek];

    /// As in names and paths.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vcek => "vcek",
            Self::Vlek => "vlek",
        }
    }
}

impl From<SigningKey> for Line {
    fn from(key: SigningKey) -> Self {
        match key {
            SigningKey::Vcek => Self::Vcek,
            SigningKey::Vlek => Self::Vlek,
        }
    }
}

/// Products whose SEV and SEV-ES launches end in an ASK and ARK of AMD's older binary format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SevProduct {
    /// EPYC 7001.
    Naples,
    /// EPYC 7002.
    Rome,
    /// EPYC 7003.
    Milan,
    /// EPYC 9004.
    Genoa,
    /// EPYC 9005.
    Turin,
}

impl SevProduct {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Naples, Self::Rome, Self::Milan, Self::Genoa, Self::Turin];

    /// As in AMD's file names.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Naples => "naples",
            Self::Rome => "rome",
            Self::Milan => "milan",
            Self::Genoa => "genoa",
            Self::Turin => "turin",
        }
    }
}

/// A cloud provider's name in its VLEK certificates, 1 to 64 bytes of printable ASCII.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Csp(String);

impl Csp {
    /// Takes a name as a certificate states it.
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        let fits = (1..=64).contains(&name.len()) && name.bytes().all(|byte| (0x20..0x7f).contains(&byte));
        fits.then(|| Self(name.to_owned()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// One piece of collateral.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Key {
    /// Certificate of a chip's key at a TCB version. Made by [`Key::vcek`].
    Vcek {
        /// The chip's product.
        product: Product,
        /// CHIP_ID of its reports.
        chip_id: [u8; 64],
        /// REPORTED_TCB as it stands in reports.
        tcb: [u8; 8],
    },
    /// Certificate of a cloud provider's key at a TCB version. AMD's service gives it to the provider alone.
    Vlek {
        /// The product.
        product: Product,
        /// The provider.
        csp: Csp,
        /// REPORTED_TCB as it stands in reports.
        tcb: [u8; 8],
    },
    /// ASK (or ASVK) and ARK of a product, PEM.
    Chain(Product, Line),
    /// The ARK's revocation list, DER.
    Crl(Product, Line),
    /// SEV's chip endorsement key with AMD's signature, by the `cpu0-id` of its machine.
    Cek([u8; 64]),
    /// ASK and ARK of a product in the binary format of SEV and SEV-ES, one after the other.
    SevChain(SevProduct),
}

impl Key {
    /// The certificate that a report of this chip at this TCB version needs. `None` where there can't be
    /// one: the chip hides its id, or id or TCB don't have the product's layout.
    #[must_use]
    pub fn vcek(product: Product, chip_id: &[u8; 64], tcb: RawTcb) -> Option<Self> {
        let (named, rest) = chip_id.split_at(product.chip_id_len());
        let there = named.iter().any(|&byte| byte != 0) && rest.iter().all(|&byte| byte == 0);
        let fits = tcb.decode(product.tcb_layout()).is_ok();
        (there && fits).then_some(Self::Vcek { product, chip_id: *chip_id, tcb: tcb.0 })
    }

    /// The product, where there is one.
    #[must_use]
    pub const fn product(&self) -> Option<Product> {
        match self {
            Self::Vcek { product, .. }
            | Self::Vlek { product, .. }
            | Self::Chain(product, _)
            | Self::Crl(product, _) => Some(*product),
            Self::Cek(_) | Self::SevChain(_) => None,
        }
    }

    /// The chain that this piece is checked against.
    #[must_use]
    pub const fn chain(&self) -> Option<Self> {
        match self {
            Self::Vcek { product, .. } => Some(Self::Chain(*product, Line::Vcek)),
            Self::Vlek { product, .. } => Some(Self::Chain(*product, Line::Vlek)),
            Self::Crl(product, line) => Some(Self::Chain(*product, *line)),
            Self::Chain(..) | Self::Cek(_) | Self::SevChain(_) => None,
        }
    }

    /// The TCB version by component.
    #[must_use]
    pub fn tcb(&self) -> Option<Tcb> {
        match self {
            Self::Vcek { product, tcb, .. } | Self::Vlek { product, tcb, .. } => {
                RawTcb(*tcb).decode(product.tcb_layout()).ok()
            }
            _ => None,
        }
    }

    /// Most bytes that a piece of this kind has a reason to have.
    #[must_use]
    pub const fn limit(&self) -> usize {
        match self {
            Self::Vcek { .. } | Self::Vlek { .. } => 8 * 1024,
            Self::Chain(..) => 16 * 1024,
            Self::Crl(..) => 64 * 1024,
            Self::Cek(_) => 2084,
            Self::SevChain(_) => 3200,
        }
    }

    /// File name in a cache directory or bundle.
    #[must_use]
    pub fn file_name(&self) -> String {
        match self {
            Self::Vcek { product, chip_id, tcb } => {
                let id = hex::encode(&chip_id[..product.chip_id_len()]);
                format!("vcek-{}-{id}-{}.der", product.name(), hex::encode(tcb))
            }
            Self::Vlek { product, csp, tcb } => {
                format!("vlek-{}-{}-{}.der", product.name(), hex::encode(csp.as_str()), hex::encode(tcb))
            }
            Self::Chain(product, line) => format!("chain-{}-{}.pem", product.name(), line.name()),
            Self::Crl(product, line) => format!("crl-{}-{}.der", product.name(), line.name()),
            Self::Cek(id) => format!("cek-{}.cert", hex::encode(id)),
            Self::SevChain(product) => format!("sev-{}.cert", product.name()),
        }
    }

    /// Reads a file name back.
    #[must_use]
    pub fn from_file_name(name: &str) -> Option<Self> {
        let (stem, _) = name.rsplit_once('.')?;
        let parts: Vec<&str> = stem.split('-').collect();
        let key = match *parts {
            ["vcek", product, id, tcb] => Self::vcek(self::product(product)?, &chip_id(id)?, raw(tcb)?)?,
            ["vlek", product, csp, tcb] => {
                let (product, tcb) = (self::product(product)?, raw(tcb)?);
                tcb.decode(product.tcb_layout()).ok()?;
                let csp = String::from_utf8(hex::decode(csp).ok()?).ok()?;
                Self::Vlek { product, csp: Csp::new(&csp)?, tcb: tcb.0 }
            }
            ["chain", product, line] => Self::Chain(self::product(product)?, self::line(line)?),
            ["crl", product, line] => Self::Crl(self::product(product)?, self::line(line)?),
            ["cek", id] => Self::Cek(hex::decode(id).ok()?.try_into().ok()?),
            ["sev", product] => {
                Self::SevChain(SevProduct::ALL.into_iter().find(|known| known.name() == product)?)
            }
            _ => return None,
        };
        (key.file_name() == name).then_some(key)
    }

    /// Path and query at the key distribution service. `None` for what it doesn't hand out.
    #[must_use]
    pub fn kds_path(&self) -> Option<String> {
        Some(match self {
            Self::Vcek { product, chip_id, .. } => {
                let id = hex::encode(&chip_id[..product.chip_id_len()]);
                let tcb = self.tcb()?;
                let fmc = tcb.fmc.map(|fmc| format!("fmcSPL={fmc}&")).unwrap_or_default();
                format!(
                    "/vcek/v1/{}/{id}?{fmc}blSPL={}&teeSPL={}&snpSPL={}&ucodeSPL={}",
                    product.name(),
                    tcb.bootloader,
                    tcb.tee,
                    tcb.snp,
                    tcb.microcode
                )
            }
            Self::Chain(product, line) => format!("/{}/v1/{}/cert_chain", line.name(), product.name()),
            Self::Crl(product, line) => format!("/{}/v1/{}/crl", line.name(), product.name()),
            Self::Cek(id) => format!("/cek/id/{}", hex::encode(id)),
            Self::Vlek { .. } | Self::SevChain(_) => return None,
        })
    }

    /// Reads such a path, its parameters in any order, each once and none unknown.
    #[must_use]
    pub fn from_kds_path(path: &str, query: Option<&str>) -> Option<Self> {
        if path.len() > 256 || query.is_some_and(|query| query.len() > 256) {
            return None;
        }
        let parts: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
        match (parts.as_slice(), query) {
            ([line, "v1", product, "cert_chain"], None) => {
                Some(Self::Chain(self::product(product)?, self::line(line)?))
            }
            ([line, "v1", product, "crl"], None) => {
                Some(Self::Crl(self::product(product)?, self::line(line)?))
            }
            (["vcek", "v1", product, id], Some(query)) => {
                let product = self::product(product)?;
                (id.len() == 2 * product.chip_id_len()).then_some(())?;
                Self::vcek(product, &chip_id(id)?, parameters(product, query)?.encode())
            }
            (["cek", "id", id], None) => Some(Self::Cek(hex::decode(id).ok()?.try_into().ok()?)),
            _ => None,
        }
    }
}

/// For people: `VCEK of Milan chip 0123456789abcdef… at TCB bootloader 3, tee 0, snp 8, microcode 115`.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vcek { product, chip_id, .. } => {
                write!(f, "VCEK of {} chip {} at TCB ", product.name(), short(chip_id))?;
            }
            Self::Vlek { product, csp, .. } => {
                write!(f, "VLEK of {} at {} at TCB ", product.name(), csp.as_str())?;
            }
            Self::Chain(product, Line::Vcek) => write!(f, "ASK and ARK of {}", product.name())?,
            Self::Chain(product, Line::Vlek) => write!(f, "ASVK and ARK of {}", product.name())?,
            Self::Crl(product, line) => {
                write!(f, "revocation list of {} ({})", product.name(), line.name())?;
            }
            Self::Cek(id) => write!(f, "CEK of processor {}", short(id))?,
            Self::SevChain(product) => write!(f, "SEV's ASK and ARK of {}", product.name())?,
        }
        match self.tcb() {
            Some(tcb) => f.write_str(&show(tcb)),
            None => Ok(()),
        }
    }
}

/// A TCB version for people.
#[must_use]
pub fn show(tcb: Tcb) -> String {
    let fmc = tcb.fmc.map(|fmc| format!("fmc {fmc}, ")).unwrap_or_default();
    let Tcb { bootloader, tee, snp, microcode, .. } = tcb;
    format!("{fmc}bootloader {bootloader}, tee {tee}, snp {snp}, microcode {microcode}")
}

/// The products that a report may be of: one by CPUID; by the length of its chip id where version 2
/// names no processor.
pub(crate) fn products(report: &Report) -> &'static [Product] {
    match report.product() {
        Some(Product::Milan) => &[Product::Milan],
        Some(Product::Genoa) => &[Product::Genoa],
        Some(Product::Turin) => &[Product::Turin],
        None if report.cpuid.is_some() => &[],
        None if report.chip_id[8..] == [0; 56] => &[Product::Turin],
        None => &[Product::Milan, Product::Genoa],
    }
}

fn short(id: &[u8; 64]) -> String {
    let text = hex::encode(&id[..8]);
    if id[8..] == [0; 56] { text } else { text + "…" }
}

fn product(name: &str) -> Option<Product> {
    Product::ALL.into_iter().find(|product| product.name() == name)
}

fn line(name: &str) -> Option<Line> {
    Line::ALL.into_iter().find(|line| line.name() == name)
}

fn chip_id(text: &str) -> Option<[u8; 64]> {
    let mut id = [0; 64];
    let bytes = hex::decode(text).ok().filter(|bytes| bytes.len() == 8 || bytes.len() == 64)?;
    id[..bytes.len()].copy_from_slice(&bytes);
    Some(id)
}

fn raw(text: &str) -> Option<RawTcb> {
    Some(RawTcb(hex::decode(text).ok()?.try_into().ok()?))
}

fn parameters(product: Product, query: &str) -> Option<Tcb> {
    let names: &[&str] = match product {
        Product::Turin => &["blSPL", "teeSPL", "snpSPL", "ucodeSPL", "fmcSPL"],
        Product::Milan | Product::Genoa => &["blSPL", "teeSPL", "snpSPL", "ucodeSPL"],
    };
    let mut values = [None::<u8>; 5];
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=')?;
        let at = names.iter().position(|known| *known == name)?;
        let number = (value.len() <= 3 && value.bytes().all(|byte| byte.is_ascii_digit()))
            .then(|| value.parse().ok())
            .flatten()?;
        if values[at].replace(number).is_some() {
            return None;
        }
    }
    let [bootloader, tee, snp, microcode, fmc] = values;
    (fmc.is_some() == (product == Product::Turin)).then_some(())?;
    Some(Tcb { fmc, bootloader: bootloader?, tee: tee?, snp: snp?, microcode: microcode? })
}

#[cfg(test)]
mod tests;

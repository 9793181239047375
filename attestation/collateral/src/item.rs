//! A piece of collateral that was checked: only [`Item::check`] makes one, from whatever source. What it
//! can't tell, since it knows no trust anchors but those it is given, a verifier decides at each use.

use std::time::SystemTime;

use tee_evidence::snp::Product;

use crate::key::{Key, Line, show};
use crate::x509::{Certificate, Crl, X509Error, pem_pair};

/// Why bytes are not the piece that they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ItemError {
    /// Longer than any such piece.
    #[error("{0} bytes are more than there are in any")]
    Length(usize),
    /// Not readable, or not signed by what stands above it.
    #[error(transparent)]
    X509(#[from] X509Error),
    /// For another product, chip, TCB version or provider.
    #[error("it is for {found}, not for {wanted}")]
    Other {
        /// What it says.
        found: String,
        /// What was asked for.
        wanted: String,
    },
    /// Its root is not one of those that are accepted here.
    #[error("its root '{0}' is not accepted here")]
    Root(String),
    /// The chain that it has to be checked against is not there.
    #[error("it can't be checked without the {0}")]
    NoChain(Key),
    /// Not a certificate of SEV's binary format.
    #[error("it is no {0} in SEV's certificate format")]
    Sev(&'static str),
}

/// Roots that chains may end in.
#[derive(Debug, Clone)]
pub enum Roots {
    /// Any self-signed one: for a mirror, which vouches for nothing.
    Any,
    /// SHA-256 fingerprints of root certificates.
    Of(Vec<[u8; 32]>),
}

/// A checked piece.
#[derive(Debug)]
pub struct Item {
    bytes: Vec<u8>,
    detail: Detail,
}

#[derive(Debug)]
enum Detail {
    /// Certificate of a report-signing key.
    Vek(Certificate),
    /// Signing key and root.
    Chain(Box<Pair>),
    Crl(Crl),
    /// SEV's binary certificates.
    Sev,
}

#[derive(Debug)]
struct Pair {
    ask: Certificate,
    ark: Certificate,
}

impl Item {
    /// Checks that `bytes` are what `key` asks for: form, product, chip, TCB version, issuer and
    /// signature. `chain` is the item of [`Key::chain`].
    ///
    /// # Errors
    /// [`ItemError`].
    pub fn check(key: &Key, bytes: &[u8], chain: Option<&Self>, roots: &Roots) -> Result<Self, ItemError> {
        // PEM is a third longer than DER.
        if bytes.len() > key.limit() * 3 / 2 {
            return Err(ItemError::Length(bytes.len()));
        }
        let above = || match (key.chain(), chain.map(|chain| &chain.detail)) {
            (_, Some(Detail::Chain(pair))) => Ok((&pair.ask, &pair.ark)),
            (Some(missing), _) => Err(ItemError::NoChain(missing)),
            (None, _) => Err(ItemError::NoChain(key.clone())),
        };
        let (bytes, detail) = match key {
            Key::Vcek { .. } | Key::Vlek { .. } => {
                let certificate = Certificate::parse(bytes)?;
                check_vek(key, &certificate)?;
                certificate.check_issued_by(above()?.0)?;
                (certificate.der().to_vec(), Detail::Vek(certificate))
            }
            Key::Chain(product, line) => {
                let (ask, ark) = pem_pair(bytes)?;
                check_chain(*product, *line, &ask, &ark, roots)?;
                (bytes.to_vec(), Detail::Chain(Box::new(Pair { ask, ark })))
            }
            Key::Crl(..) => {
                let crl = Crl::parse(bytes)?;
                crl.check_issued_by(above()?.1)?;
                (crl.der().to_vec(), Detail::Crl(crl))
            }
            Key::Cek(_) => {
                check_cek(bytes)?;
                (bytes.to_vec(), Detail::Sev)
            }
            Key::SevChain(_) => {
                check_sev_chain(bytes)?;
                (bytes.to_vec(), Detail::Sev)
            }
        };
        if bytes.len() > key.limit() {
            return Err(ItemError::Length(bytes.len()));
        }
        Ok(Self { bytes, detail })
    }

    /// As a cache, a bundle and the key distribution service have it: DER, or PEM for a chain.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn vek(&self) -> Option<&Certificate> {
        match &self.detail {
            Detail::Vek(certificate) => Some(certificate),
            _ => None,
        }
    }

    pub(crate) fn chain(&self) -> Option<(&Certificate, &Certificate)> {
        match &self.detail {
            Detail::Chain(pair) => Some((&pair.ask, &pair.ark)),
            _ => None,
        }
    }

    pub(crate) fn crl(&self) -> Option<&Crl> {
        match &self.detail {
            Detail::Crl(crl) => Some(crl),
            _ => None,
        }
    }

    /// From when to when it is good: validity, the signing key's for a chain; thisUpdate to nextUpdate
    /// for a list. SEV's own format has no dates.
    #[must_use]
    pub fn good(&self) -> Option<(SystemTime, SystemTime)> {
        match &self.detail {
            Detail::Vek(certificate) => Some(certificate.valid()),
            Detail::Chain(pair) => Some(pair.ask.valid()),
            Detail::Crl(crl) => Some((crl.this_update, crl.next_update)),
            Detail::Sev => None,
        }
    }

    /// For a revocation list: how many certificates it revokes.
    #[must_use]
    pub fn revoked(&self) -> Option<usize> {
        self.crl().map(Crl::revoked)
    }

    /// For a chain: the root's name and fingerprint.
    #[must_use]
    pub fn root(&self) -> Option<(String, [u8; 32])> {
        self.chain().map(|(_, ark)| (ark.common_name(), ark.fingerprint()))
    }
}

fn check_vek(key: &Key, certificate: &Certificate) -> Result<(), ItemError> {
    let (Some(product), Some(tcb)) = (key.product(), key.tcb()) else {
        return Err(ItemError::NoChain(key.clone()));
    };
    let other = |found: String, wanted: String| Err(ItemError::Other { found, wanted });
    let stated = certificate.product()?;
    if stated != product {
        return other(stated.name().to_owned(), product.name().to_owned());
    }
    let certified = certificate.tcb(product)?;
    if certified != tcb {
        return other(format!("TCB {}", show(certified)), format!("TCB {}", show(tcb)));
    }
    match key {
        Key::Vcek { chip_id, .. } => {
            let id = certificate.hardware_id()?;
            if id != &chip_id[..product.chip_id_len()] {
                return other("another chip".to_owned(), key.to_string());
            }
        }
        Key::Vlek { csp, .. } => {
            let stated = certificate.csp()?;
            if stated != csp.as_str() {
                return other(format!("the provider '{stated}'"), format!("'{}'", csp.as_str()));
            }
        }
        _ => {}
    }
    Ok(())
}

fn check_chain(
    product: Product,
    line: Line,
    ask: &Certificate,
    ark: &Certificate,
    roots: &Roots,
) -> Result<(), ItemError> {
    let name = ask.common_name();
    // AMD's are called SEV-Milan and SEV-VLEK-Milan.
    if !name.ends_with(product.name()) || name.contains("VLEK") != (line == Line::Vlek) {
        let wanted = Key::Chain(product, line).to_string();
        return Err(ItemError::Other { found: format!("'{name}'"), wanted });
    }
    if let Roots::Of(accepted) = roots
        && !accepted.contains(&ark.fingerprint())
    {
        return Err(ItemError::Root(ark.common_name()));
    }
    ark.check_issued_by(ark)?;
    Ok(ask.check_issued_by(ark)?)
}

/// Version 1, its key for endorsing chips, of that length; who signed it is the verifier's check.
fn check_cek(bytes: &[u8]) -> Result<(), ItemError> {
    const USAGE_CEK: u32 = 0x1004;
    if bytes.len() != 2084 || word(bytes, 0) != Some(1) || word(bytes, 8) != Some(USAGE_CEK) {
        return Err(ItemError::Sev("CEK"));
    }
    Ok(())
}

/// ASK, then ARK: version, usage, and the lengths that their headers state. AMD's Naples file lacks the
/// ARK's own signature, which says nothing anyway.
fn check_sev_chain(bytes: &[u8]) -> Result<(), ItemError> {
    let mut rest = bytes;
    for usage in [0x13, 0] {
        let modulus = word(rest, 60).map(|bits| bits as usize / 8);
        let exponent = word(rest, 56).map(|bits| bits as usize / 8);
        let (Some(modulus @ (256 | 512)), Some(exponent @ (256 | 512))) = (modulus, exponent) else {
            return Err(ItemError::Sev("ASK and ARK"));
        };
        // Header, exponent, modulus, signature.
        let length = 64 + exponent + 2 * modulus;
        let unsigned_root = usage == 0 && rest.len() == length - modulus;
        if word(rest, 0) != Some(1)
            || word(rest, 36) != Some(usage)
            || (rest.len() < length && !unsigned_root)
        {
            return Err(ItemError::Sev("ASK and ARK"));
        }
        rest = rest.get(length..).unwrap_or_default();
    }
    if rest.is_empty() { Ok(()) } else { Err(ItemError::Sev("ASK and ARK")) }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

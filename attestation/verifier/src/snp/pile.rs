//! Certificates and revocation lists as people keep them: files in several forms, of several chips and
//! products. What belongs to a report is picked out by what the files say themselves; none of it is trusted
//! before [`super::Evidence`] has checked it.

use std::fmt;

use tee_evidence::snp::{CertEntry, CertKind, CertificateTable, RawReport, Report, SigningKey};

use super::certificate::Certificate;
use super::crl::Crl;
use super::endorsement::{Endorsement, HARDWARE_ID};
use super::evidence::check_report_signature;
use super::memo::Verified;

/// Longest file: several chains.
pub const MAX_BYTES: usize = 256 * 1024;
const MAX_PEMS: usize = 64;
const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";

/// Why a file holds no certificates.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PileError {
    /// More than a few chains.
    #[error("has more than {MAX_BYTES} bytes or {MAX_PEMS} certificates")]
    Size,
    /// Something in it can't be read.
    #[error("is neither a certificate table, nor PEM or DER certificates or revocation lists: {0}")]
    Unknown(String),
}

/// Reads a file: AMD's certificate table, PEM with any number of certificates and lists, or one of them as
/// DER. What each is, it says itself, whatever a table calls it.
///
/// # Errors
/// If anything in the file is something else.
pub fn read(file: &[u8]) -> Result<Vec<CertEntry>, PileError> {
    if file.len() > MAX_BYTES {
        return Err(PileError::Size);
    }
    let text = std::str::from_utf8(file).ok().filter(|text| text.contains(BEGIN));
    let parts: Vec<Vec<u8>> = match text {
        Some(text) => pems(text)?,
        None if file.first() == Some(&0x30) => vec![file.to_vec()],
        None => {
            let table =
                CertificateTable::parse(file).map_err(|error| PileError::Unknown(error.to_string()))?;
            let entries = table.into_entries().into_iter();
            entries
                .filter(|entry| !matches!(entry.kind, CertKind::Other(_)))
                .map(|entry| entry.data)
                .collect()
        }
    };
    parts
        .into_iter()
        .map(|data| kind(&data).map(|kind| CertEntry { kind, data }).map_err(PileError::Unknown))
        .collect()
}

fn pems(text: &str) -> Result<Vec<Vec<u8>>, PileError> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find(BEGIN) {
        let from = &rest[start..];
        let end = from.find(END).map(|end| end + from[end..].find('\n').unwrap_or(from.len() - end));
        let Some(end) = end else { return Err(PileError::Unknown("PEM without an end".into())) };
        let (one, after) = from.split_at(end);
        if out.len() == MAX_PEMS {
            return Err(PileError::Size);
        }
        out.push([one.trim_end().as_bytes(), b"\n"].concat());
        rest = after;
    }
    Ok(out)
}

fn kind(data: &[u8]) -> Result<CertKind, String> {
    let shown = |error: &dyn fmt::Display| error.to_string();
    let certificate = match (Certificate::parse(data), Crl::parse(data)) {
        (Ok(certificate), _) => certificate,
        (_, Ok(_)) => return Ok(CertKind::Crl),
        (Err(error), Err(_)) => return Err(shown(&error)),
    };
    Ok(if certificate.p384_key().is_ok() {
        match certificate.extension(HARDWARE_ID) {
            Some(_) => CertKind::Vcek,
            None => CertKind::Vlek,
        }
    } else if certificate.is_self_issued() {
        CertKind::Ark
    } else {
        CertKind::Ask
    })
}

/// Picks what belongs to a report: the certificate of the key that signed it, or else one of that kind for its
/// chip and TCB; the chain above that; and every revocation list. If nothing fits, what comes nearest, so that
/// a verifier can say what is wrong.
pub fn pick(raw: &RawReport, pile: &[CertEntry]) -> Vec<CertEntry> {
    let mut picked = Vec::new();
    let report = Report::from_raw(raw).ok();
    let signing_key = report.as_ref().and_then(|report| report.key_info.signing_key());
    let parsed = |wanted: CertKind| {
        let entries = pile.iter().filter(move |entry| entry.kind == wanted);
        entries.filter_map(|entry| Some((entry, Certificate::parse(&entry.data).ok()?)))
    };
    if let (Some(report), Some(key)) = (report, signing_key) {
        let wanted = match key {
            SigningKey::Vcek => CertKind::Vcek,
            SigningKey::Vlek => CertKind::Vlek,
        };
        let signed = |vek: &Certificate| check_report_signature(vek, raw, &report).is_ok();
        let fits = |vek: &Certificate| {
            Endorsement::read(vek, key).is_ok_and(|endorsement| endorsement.check_report(&report).is_ok())
        };
        let vek = parsed(wanted)
            .find(|(_, vek)| signed(vek))
            .or_else(|| parsed(wanted).find(|(_, vek)| fits(vek)))
            .or_else(|| parsed(wanted).next());
        let above = |wanted: CertKind, below: &Certificate| {
            let signed =
                |authority: &Certificate| below.check_issued_by(authority, &Verified::default()).is_ok();
            parsed(wanted).find(|(_, authority)| signed(authority)).or_else(|| parsed(wanted).next())
        };
        if let Some((entry, vek)) = vek {
            picked.push(entry);
            if let Some((entry, ask)) = above(CertKind::Ask, &vek) {
                picked.push(entry);
                picked.extend(above(CertKind::Ark, &ask).map(|(entry, _)| entry));
            }
        }
    }
    picked.extend(pile.iter().filter(|entry| entry.kind == CertKind::Crl));
    picked.into_iter().cloned().collect()
}

//! Bodies of the fuzz targets of SNP evidence: report, certificate table, certificates and revocation lists,
//! and the JSON of the key broker protocol. They must not panic, what a parser accepts it must give back
//! unchanged, and nothing that an attacker makes up is genuine.

#![allow(dead_code)] // Each target uses one of them.

use std::time::{Duration, UNIX_EPOCH};

use tee_evidence::snp::{CertEntry, CertKind, CertificateTable, RawReport, Report, json};
use verifier::snp::{Anchors, Evidence, Revocation, pile};

/// A report from a guest: any bytes.
pub(crate) fn snp_report(data: &[u8]) {
    let Ok(report) = Report::parse(data) else { return };
    assert_eq!(report.encode().as_bytes(), data, "a second form was accepted");
    let _ = (report.product(), report.tcb_layout());
    let Ok(raw) = RawReport::from_bytes(data) else { return };
    if let Ok(value) = json::to_kbs(&raw, &[]) {
        let again = json::from_kbs(&value);
        assert!(again.is_ok_and(|again| again.report == raw), "JSON changed the report");
    }
    assert!(Evidence::parse(data, &[]).is_err(), "a report without certificates");
}

/// A certificate table from a host: any bytes.
pub(crate) fn snp_table(data: &[u8]) {
    let Ok(table) = CertificateTable::parse(data) else { return };
    let again = CertificateTable::encode(table.entries());
    assert!(again.is_ok(), "what was read can't be written");
    let Ok(again) = again else { return };
    assert!(CertificateTable::parse(&again).is_ok_and(|again| again == table));
    let _ = pile::read(data);
}

/// Certificates and revocation lists, as DER or PEM: any bytes, in each place of a chain. The first 1184 bytes are
/// the report.
pub(crate) fn snp_certificates(data: &[u8]) {
    let _ = pile::read(data);
    let _ = Anchors::amd().with_emulated(data);
    let Some((report, rest)) = data.split_at_checked(RawReport::LEN) else { return };
    let length = rest.len() / 4;
    let kinds = [CertKind::Ark, CertKind::Ask, CertKind::Vcek, CertKind::Crl];
    let whole: Vec<_> = kinds.iter().map(|kind| CertEntry { kind: *kind, data: rest.to_vec() }).collect();
    let parts: Vec<_> = kinds
        .iter()
        .zip(rest.chunks(length.max(1)))
        .map(|(kind, data)| CertEntry { kind: *kind, data: data.to_vec() })
        .collect();
    for chain in [whole, parts] {
        if let Ok(raw) = RawReport::from_bytes(report) {
            let _ = pile::pick(&raw, &chain);
        }
        genuine(report, &chain);
    }
}

/// Evidence in the key broker protocol's JSON: any bytes.
pub(crate) fn snp_evidence(data: &[u8]) {
    let mut reader = serde_json::Deserializer::from_slice(data);
    let Ok(evidence) = json::from_kbs(&mut reader) else { return };
    genuine(evidence.report.as_bytes(), &evidence.certificates);
    // A report whose TCB has bytes of another product's layout has no JSON form.
    let Ok(value) = json::to_kbs(&evidence.report, &evidence.certificates) else { return };
    assert!(json::from_kbs(&value).is_ok_and(|again| again == evidence), "JSON changed the evidence");
}

/// No fuzzer has AMD's keys.
fn genuine(report: &[u8], chain: &[CertEntry]) {
    let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let checked = Evidence::parse(report, chain)
        .and_then(|evidence| evidence.check_signature(&Anchors::amd(), Revocation::Required, now));
    if let Err(denial) = checked {
        assert!(!denial.checks.is_empty() && !denial.detail.is_empty());
    } else {
        // Only a corpus with real evidence and a real list gets here.
        assert!(chain.iter().any(|entry| entry.kind == CertKind::Crl), "without a revocation list");
    }
}

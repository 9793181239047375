//! Oracle: the `sev` crate's own types, whose serde form is what stock attesters send.

use super::super::report::tests::{sample, vectors};
use super::*;
use proptest::prelude::*;
use serde_json::json;
use sev::firmware::guest::AttestationReport;
use sev::firmware::host::{CertTableEntry, CertType};
use sev::parser::ByteParser;

fn chain() -> Vec<CertEntry> {
    [
        CertKind::Ark,
        CertKind::Ask,
        CertKind::Vcek,
        CertKind::Vlek,
        CertKind::Crl,
        CertKind::Other(Guid::new(7)),
    ]
    .into_iter()
    .map(|kind| CertEntry { kind, data: vec![1, 255, 3] })
    .collect()
}

#[test]
fn the_report_is_what_the_sev_crate_writes_and_reads() {
    let mut reports: Vec<Vec<u8>> = (2..=5).map(|v| sample(v).encode().as_bytes().to_vec()).collect();
    let mut turin = sample(5);
    turin.cpuid = Some(Cpuid { family: 0x1a, model: 2, stepping: 1 });
    for tcb in
        [&mut turin.current_tcb, &mut turin.reported_tcb, &mut turin.committed_tcb, &mut turin.launch_tcb]
    {
        *tcb = Tcb { fmc: Some(1), bootloader: 2, tee: 3, snp: 4, microcode: 80 }.encode();
    }
    reports.push(turin.encode().as_bytes().to_vec());
    reports.extend(vectors().into_iter().map(|(_, bytes)| bytes));
    for bytes in reports {
        let theirs = AttestationReport::from_bytes(&bytes).unwrap();
        let raw = RawReport::from_bytes(&bytes).unwrap();
        let ours = to_kbs(&raw, &[]).unwrap();
        assert_eq!(ours["attestation_report"], serde_json::to_value(theirs).unwrap());
        assert_eq!(ours["cert_chain"], Value::Null);
        assert_eq!(from_kbs(&ours).unwrap(), KbsEvidence { report: raw, certificates: Vec::new() });
        let back: AttestationReport = serde_json::from_value(ours["attestation_report"].clone()).unwrap();
        assert_eq!(back, theirs);
    }
}

#[test]
fn the_chain_is_what_the_sev_crate_writes_and_reads() {
    let raw = sample(3).encode();
    let ours = to_kbs(&raw, &chain()).unwrap();
    let theirs: Vec<CertTableEntry> = serde_json::from_value(ours["cert_chain"].clone()).unwrap();
    assert_eq!(theirs[0].cert_type, CertType::ARK);
    assert_eq!(serde_json::to_value(&theirs).unwrap(), ours["cert_chain"]);
    assert_eq!(from_kbs(&ours).unwrap().certificates, chain());
}

#[test]
fn fields_must_fit_the_version() {
    for (version, field) in [
        (3, "cpuid_fam_id"),
        (3, "cpuid_mod_id"),
        (3, "cpuid_step"),
        (5, "launch_mit_vector"),
        (5, "current_mit_vector"),
    ] {
        let mut value = to_kbs(&sample(version).encode(), &[]).unwrap();
        value["attestation_report"][field] = Value::Null;
        assert!(matches!(from_kbs(&value), Err(JsonError::VersionField { field: f, .. }) if f == field));
        let mut value = to_kbs(&sample(2).encode(), &[]).unwrap();
        value["attestation_report"][field] = json!(1);
        assert!(matches!(from_kbs(&value), Err(JsonError::VersionField { field: f, .. }) if f == field));
    }
    let mut value = to_kbs(&sample(5).encode(), &[]).unwrap();
    value["attestation_report"]["version"] = json!(6);
    assert!(matches!(from_kbs(&value), Err(JsonError::Report(ReportError::Version(6)))));
}

#[test]
fn other_shapes_are_refused() {
    let good = to_kbs(&sample(3).encode(), &chain()).unwrap();
    let mut odd: Vec<Value> = vec![json!(null), json!({}), json!([]), json!({"svn": "1", "report_data": ""})];
    for (field, value) in [
        ("measurement", json!([1, 2, 3])),
        ("measurement", json!(vec![0; 49])),
        ("report_data", json!(vec![256; 64])),
        ("report_data", json!("00")),
        ("vmpl", json!(-1)),
        ("policy", json!(1.5)),
        ("version", json!(4_294_967_296u64)),
        ("surprise", json!(1)),
    ] {
        let mut value2 = good.clone();
        value2["attestation_report"][field] = value;
        odd.push(value2);
    }
    for (field, value) in [("cert_type", json!("AKR")), ("data", json!("MII")), ("data", json!([256]))] {
        let mut value2 = good.clone();
        value2["cert_chain"][0][field] = value;
        odd.push(value2);
    }
    for value in odd {
        assert!(matches!(from_kbs(&value), Err(JsonError::Shape(_))), "{value}");
    }
    let mut value = good.clone();
    value["cert_chain"][0]["cert_type"] = json!({"OTHER": "not a guid"});
    assert!(matches!(from_kbs(&value), Err(JsonError::CertType(_))));
    let mut value = good.clone();
    value["cert_chain"] = json!(vec![json!({"cert_type": "ARK", "data": [1]}); 17]);
    assert!(matches!(from_kbs(&value), Err(JsonError::Certificates(17))));
    let mut value = good;
    value["cert_chain"] = json!([{"cert_type": "ARK", "data": vec![1; 65537]}]);
    assert!(matches!(from_kbs(&value), Err(JsonError::Certificates(1))));
}

#[test]
fn a_tcb_with_bytes_that_json_cannot_carry_is_an_error() {
    let mut report = sample(3);
    report.launch_tcb.0[3] = 1;
    assert!(matches!(to_kbs(&report.encode(), &[]), Err(JsonError::Tcb(_))));
}

proptest! {
    #[test]
    fn changed_fields_never_panic(field in 0usize..40, number in any::<i64>(), depth in 0usize..3) {
        let mut value = to_kbs(&sample(5).encode(), &chain()).unwrap();
        let report = value["attestation_report"].as_object_mut().unwrap();
        let key = report.keys().nth(field % report.len()).unwrap().clone();
        report[&key] = match depth {
            0 => json!(number),
            1 => json!([number]),
            _ => json!({"fmc": number}),
        };
        let _ = from_kbs(&value);
    }
}

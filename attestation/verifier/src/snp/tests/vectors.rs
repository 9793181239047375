//! Real reports of real processors, accepted under AMD's roots; and the same with one thing changed.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tee_evidence::snp::{CertEntry, CertKind, Product, RawReport, Report, Tcb};

use crate::snp::memo::Verified;
use crate::snp::{Anchors, Evidence, Revocation, Session, SnpReference};
use crate::{Check, LaunchDigest, ReferenceValues, TeeKind};

/// 2026-01-01, when all of them are valid.
pub(super) fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_767_225_600)
}

pub(super) struct Vector {
    name: &'static str,
    report: Vec<u8>,
    chain: Vec<CertEntry>,
}

fn root() -> PathBuf {
    std::env::var_os("SEALPOD_VECTORS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/vectors"), PathBuf::from)
}

fn chain(ask_ark: &str, vcek: &str) -> Option<Vec<CertEntry>> {
    let pem = String::from_utf8(std::fs::read(root().join(ask_ark)).ok()?).unwrap();
    let mut pems = pem.split_inclusive("-----END CERTIFICATE-----");
    let mut next = |kind| CertEntry { kind, data: pems.next().unwrap().trim_start().as_bytes().to_vec() };
    let (ask, ark) = (next(CertKind::Ask), next(CertKind::Ark));
    let vcek = CertEntry { kind: CertKind::Vcek, data: std::fs::read(root().join(vcek)).ok()? };
    Some(vec![vcek, ask, ark])
}

/// Reports with their chains. None of them without the vectors.
fn vectors() -> Vec<(Vector, Product)> {
    [
        ("milan-v2-sevcrate", "milan-v2-sevcrate/ask_ark.pem", "vcek.der", Product::Milan),
        ("milan-v2-trustee", "roots/ask_ark_milan.pem", "vcek.der", Product::Milan),
        ("milan-v3-routex", "milan-v3-routex/ask_ark.pem", "vcek.pem", Product::Milan),
        ("genoa-v3-routex", "genoa-v3-routex/ask_ark.pem", "vcek.pem", Product::Genoa),
    ]
    .into_iter()
    .filter_map(|(name, ask_ark, vcek, product)| {
        let Ok(report) = std::fs::read(root().join("snp").join(name).join("report.bin")) else {
            println!("skipped: no vectors");
            return None;
        };
        let chain = chain(&format!("snp/{ask_ark}"), &format!("snp/{name}/{vcek}")).unwrap();
        Some((Vector { name, report, chain }, product))
    })
    .collect()
}

fn session(report: &[u8]) -> Session {
    let report = Report::parse(report).unwrap();
    Session { report_data: report.report_data, host_data: report.host_data }
}

#[test]
fn real_reports_are_accepted_and_granted() {
    for (Vector { name, report, chain }, product) in vectors() {
        let evidence = Evidence::parse(&report, &chain).unwrap();
        let checked = evidence
            .check_signature(&Anchors::amd(), Revocation::Waived, now())
            .unwrap_or_else(|denial| panic!("{name}: {denial}"));
        let appraised =
            checked.appraise(&session(&report)).unwrap_or_else(|denial| panic!("{name}: {denial}"));
        let verdict = appraised.verdict();
        let claims = verdict.snp().unwrap();
        assert_eq!((verdict.tee, claims.product), (TeeKind::Snp, product), "{name}");
        let json = serde_json::to_value(verdict).unwrap();
        assert_eq!(json["tee"], "snp");
        assert_eq!(json["trust"], "amd");
        let crl = json["checks"].as_array().unwrap().iter().find(|check| check["check"] == "crl").unwrap();
        assert_eq!(crl["outcome"], "not_checked");

        let reference = ReferenceValues {
            tee: vec![TeeKind::Snp],
            launch_digests: vec![LaunchDigest { name: "real".into(), digest: claims.measurement.into() }],
            snp: Some(SnpReference {
                minimum_tcb: Tcb { microcode: 0, ..claims.tcb.launch },
                allow_smt: true,
                allow_debug: claims.policy.debug,
                allow_migrate_ma: claims.policy.migrate_ma,
                vmpl: claims.vmpl,
                ..Default::default()
            }),
            ..Default::default()
        };
        let grant = appraised.grant(&reference).unwrap_or_else(|denial| panic!("{name}: {denial}"));
        assert_eq!(grant.launch_digest_name(), "real");
        assert_eq!(grant.report_data(), Some(&session(&report).report_data));
    }
}

#[test]
fn a_changed_byte_anywhere_is_refused() {
    for (Vector { report, chain, .. }, _) in vectors() {
        for at in (0..RawReport::LEN).step_by(7) {
            let mut report = report.clone();
            report[at] ^= 0x10;
            let refused = Evidence::parse(&report, &chain)
                .and_then(|evidence| evidence.check_signature(&Anchors::amd(), Revocation::Waived, now()))
                .unwrap_err();
            let expected = [Check::Evidence, Check::Signature, Check::Collateral];
            assert!(expected.contains(&refused.check), "{at:#x}: {refused}");
        }
    }
}

#[test]
fn another_products_or_chips_chain_is_refused() {
    let vectors = vectors();
    for (n, (Vector { report, .. }, _)) in vectors.iter().enumerate() {
        for (m, (Vector { chain, .. }, _)) in vectors.iter().enumerate() {
            let accepted = Evidence::parse(report, chain)
                .and_then(|evidence| evidence.check_signature(&Anchors::amd(), Revocation::Waived, now()))
                .is_ok();
            assert_eq!(accepted, n == m);
        }
    }
}

#[test]
fn expired_and_future_chains_are_refused() {
    for (Vector { report, chain, .. }, _) in vectors() {
        for seconds in [0, 1_600_000_000, 2_200_000_000, 4_000_000_000] {
            let then = UNIX_EPOCH + Duration::from_secs(seconds);
            let denial = Evidence::parse(&report, &chain)
                .unwrap()
                .check_signature(&Anchors::amd(), Revocation::Waived, then)
                .unwrap_err();
            assert_eq!(denial.check, Check::CertificateChain, "{denial}");
        }
    }
}

/// There is no Turin report, but its chain must read as one, and be refused for a Milan report.
#[test]
fn a_turin_certificate_is_read_with_its_own_layout() {
    use crate::snp::certificate::Certificate;
    use crate::snp::endorsement::Endorsement;
    let (Some(chain), Some((milan, _))) = (
        chain("snp/turin-vcek-sevcrate/ask_ark.pem", "snp/turin-vcek-sevcrate/vcek_turin.der"),
        vectors().into_iter().next(),
    ) else {
        return;
    };
    let [vcek, ask, ark] = [0, 1, 2].map(|n| Certificate::parse(&chain[n].data).unwrap());
    assert_eq!(Endorsement::product_of(&vcek).unwrap(), Product::Turin);
    Endorsement::read(&vcek, tee_evidence::snp::SigningKey::Vcek).unwrap();
    vcek.check_issued_by(&ask, &Verified::default()).unwrap();
    ask.check_issued_by(&ark, &Verified::default()).unwrap();
    assert!(Anchors::amd().find(&ark).is_some());
    let refused = Evidence::parse(&milan.report, &chain)
        .unwrap()
        .check_signature(&Anchors::amd(), Revocation::Waived, now())
        .unwrap_err();
    assert_eq!(refused.check, Check::Signature, "{refused}");
}

/// AMD's roots are the ones whose fingerprints this source pins.
#[test]
fn the_pinned_roots_are_amds() {
    use crate::snp::certificate::Certificate;
    for name in ["milan", "genoa", "milan_vlek", "genoa_vlek", "turin_vcek", "turin_vlek"] {
        let Ok(pem) = std::fs::read_to_string(root().join(format!("snp/roots/ask_ark_{name}.pem"))) else {
            println!("skipped: no vectors");
            return;
        };
        let mut pems = pem.split_inclusive("-----END CERTIFICATE-----");
        let [ask, ark] =
            [(), ()].map(|()| Certificate::parse(pems.next().unwrap().trim_start().as_bytes()).unwrap());
        assert!(Anchors::amd().find(&ark).is_some(), "{name}");
        assert!(Anchors::amd().find(&ask).is_none(), "{name}");
        ask.check_issued_by(&ark, &Verified::default()).unwrap();
        ark.check_issued_by(&ark, &Verified::default()).unwrap();
        assert!(ark.check_issued_by(&ask, &Verified::default()).is_err());
    }
}

//! One good way, and each thing that can be wrong with it.

use ring::signature::{Ed25519KeyPair, KeyPair};

use super::*;
use crate::{Appraised, Check, Denial, Outcome, ReferenceValues, TeeKind, Trust};

const MACHINE_1: &str = include_str!("../../testdata/pef/machine-1.pem");
const MACHINE_2: &str = include_str!("../../testdata/pef/machine-2.pem");
const SOFTWARE: &str = include_str!("../../testdata/pef/software.pem");
const BLOB: &str = "00112233445566778899aabbccddeeff";

fn machine(pem: &str) -> MachineKey {
    MachineKey::from_pem(pem).unwrap()
}

fn key() -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap()
}

fn session() -> Session {
    Session { report_data: [1; 64], init_data: [2; 32], sealed_spec: [3; 32] }
}

fn enrolment(machines: &[&str]) -> Enrolment {
    let mut public = [0; 32];
    public.copy_from_slice(key().public_key().as_ref());
    Enrolment {
        repository: "shop".into(),
        lineage: "web".into(),
        blob: BLOB.to_owned(),
        key: public,
        init_data: [2; 32],
        sealed_spec: [3; 32],
        machines: machines.iter().map(|pem| machine(pem)).collect(),
    }
}

fn signature() -> [u8; 64] {
    let message = [b"sealpod-pef-v1".as_slice(), &[1; 64], &[3; 32], BLOB.as_bytes()].concat();
    key().sign(&message).as_ref().try_into().unwrap()
}

fn appraise_with(
    enrolment: Enrolment,
    anchors: &Anchors,
    session: &Session,
    signature: &[u8],
) -> Result<Appraised, Denial> {
    Evidence::parse(BLOB, signature)?.check_signature(Some(enrolment), anchors, session)?.appraise(session)
}

fn appraise(machines: &[&str], anchors: &Anchors) -> Result<Appraised, Denial> {
    appraise_with(enrolment(machines), anchors, &session(), &signature())
}

/// Exactly one check failed: this one.
fn refused(result: Result<Appraised, Denial>, check: Check, record: &str) {
    let denial = result.unwrap_err();
    assert_eq!(denial.check, check, "{denial}");
    let failed: Vec<_> = denial.checks.iter().filter(|check| check.outcome == Outcome::Failed).collect();
    assert_eq!(failed.iter().map(|record| record.check).collect::<Vec<_>>(), [record], "{denial}");
}

fn pef() -> PefReference {
    PefReference { repository: "shop".into(), lineage: "web".into(), ..PefReference::default() }
}

fn reference(tee: TeeKind) -> ReferenceValues {
    ReferenceValues { tee: vec![tee], pef: Some(pef()), ..ReferenceValues::default() }
}

#[test]
fn a_guest_of_an_enrolled_blob_is_granted_and_the_verdict_says_what_nobody_checked() {
    let appraised = appraise(&[MACHINE_1, MACHINE_2], &Anchors::default()).unwrap();
    let verdict = appraised.verdict();
    assert_eq!((verdict.tee, &verdict.trust), (TeeKind::Pef, &Trust::Enrolled { machines: 2 }));
    assert_eq!((verdict.init_data, verdict.report_data), ([2; 32], Some([1; 64])));
    let outcome =
        |name: &str| verdict.checks.iter().find(|check| check.check == name).map(|check| check.outcome);
    for name in ["quote", "launch_digest", "firmware", "machine", "instance"] {
        assert_eq!(outcome(name), Some(Outcome::NotChecked), "{name}");
    }
    for name in ["blob_enrolled", "machines", "signature", "report_data", "init_data", "sealed_spec"] {
        assert_eq!(outcome(name), Some(Outcome::Passed), "{name}");
    }
    let json = serde_json::to_value(verdict).unwrap();
    assert_eq!(json["blob"], BLOB);
    assert_eq!(json["machines"].as_array().unwrap().len(), 2);
    let grant = appraised.grant(&reference(TeeKind::Pef)).unwrap();
    assert_eq!(grant.launch_digest_name(), format!("blob {BLOB}"));
}

#[test]
fn evidence_of_another_form_is_refused() {
    let parse = |blob: &str, signature: &[u8]| Evidence::parse(blob, signature).unwrap_err().check;
    for blob in
        ["", &BLOB[1..], &BLOB.to_uppercase(), &format!("{BLOB}0"), "../../../../../../../etc/passwdx"]
    {
        assert_eq!(parse(blob, &signature()), Check::Evidence, "{blob}");
    }
    assert_eq!(parse(BLOB, &signature()[1..]), Check::Evidence);
    assert_eq!(parse(BLOB, &[]), Check::Evidence);
    assert_eq!(parse(BLOB, &[0; 65]), Check::Evidence);
}

#[test]
fn a_blob_that_nobody_enrolled_is_refused() {
    let evidence = || Evidence::parse(BLOB, &signature()).unwrap();
    let check = |enrolment| {
        let checked = evidence().check_signature(enrolment, &Anchors::default(), &session());
        checked.and_then(|checked| checked.appraise(&session()))
    };
    refused(check(None), Check::CertificateChain, "blob_enrolled");
    let other = Enrolment { blob: "f".repeat(32), ..enrolment(&[MACHINE_1]) };
    refused(check(Some(other)), Check::CertificateChain, "blob_enrolled");
}

#[test]
fn another_blobs_key_is_refused() {
    let mut other = enrolment(&[MACHINE_1]);
    let key = Ed25519KeyPair::from_seed_unchecked(&[8; 32]).unwrap();
    other.key.copy_from_slice(key.public_key().as_ref());
    let result = appraise_with(other, &Anchors::default(), &session(), &signature());
    refused(result, Check::Signature, "signature");
}

#[test]
fn a_signature_of_another_session_or_spec_is_refused() {
    for session in
        [Session { report_data: [9; 64], ..session() }, Session { sealed_spec: [9; 32], ..session() }]
    {
        let result = appraise_with(enrolment(&[MACHINE_1]), &Anchors::default(), &session, &signature());
        refused(result, Check::Signature, "signature");
    }
    let mut changed = signature();
    changed[0] ^= 1;
    let result = appraise_with(enrolment(&[MACHINE_1]), &Anchors::default(), &session(), &changed);
    refused(result, Check::Signature, "signature");
}

#[test]
fn a_signature_with_another_context_or_blob_is_refused() {
    for message in [
        [b"sealpod-pef-v2".as_slice(), &[1; 64], &[3; 32], BLOB.as_bytes()].concat(),
        [b"sealpod-pef-v1".as_slice(), &[1; 64], &[3; 32], "f".repeat(32).as_bytes()].concat(),
        [1; 64].to_vec(),
    ] {
        let signature = key().sign(&message);
        let result =
            appraise_with(enrolment(&[MACHINE_1]), &Anchors::default(), &session(), signature.as_ref());
        refused(result, Check::Signature, "signature");
    }
}

#[test]
fn a_session_that_was_not_the_one_checked_is_refused() {
    let checked = Evidence::parse(BLOB, &signature())
        .unwrap()
        .check_signature(Some(enrolment(&[MACHINE_1])), &Anchors::default(), &session())
        .unwrap();
    let other = Session { report_data: [9; 64], ..session() };
    assert_eq!(checked.appraise(&other).unwrap_err().check, Check::Binding);
}

#[test]
fn other_initdata_and_other_specs_than_the_blobs_are_refused() {
    let other = Enrolment { init_data: [9; 32], ..enrolment(&[MACHINE_1]) };
    refused(
        appraise_with(other, &Anchors::default(), &session(), &signature()),
        Check::HostData,
        "init_data",
    );
    let other = Enrolment { sealed_spec: [9; 32], ..enrolment(&[MACHINE_1]) };
    refused(
        appraise_with(other, &Anchors::default(), &session(), &signature()),
        Check::HostData,
        "sealed_spec",
    );
}

#[test]
fn a_software_tpm_counts_only_where_it_is_named_and_only_as_emulated() {
    let anchors = Anchors::default().with_emulated(machine(SOFTWARE));
    refused(appraise(&[SOFTWARE], &Anchors::default()), Check::CertificateChain, "machines");
    // One is enough to open the blob.
    refused(appraise(&[MACHINE_1, SOFTWARE], &Anchors::default()), Check::CertificateChain, "machines");
    refused(appraise(&[], &anchors), Check::CertificateChain, "machines");
    for machines in [[SOFTWARE].as_slice(), &[MACHINE_1, SOFTWARE]] {
        let appraised = appraise(machines, &anchors).unwrap();
        assert_eq!(appraised.verdict().tee, TeeKind::PefEmulated);
        assert!(matches!(appraised.verdict().trust, Trust::Emulated { .. }));
        assert_eq!(appraised.grant(&reference(TeeKind::Pef)).unwrap_err().check, Check::TeeKind);
        assert!(appraised.grant(&reference(TeeKind::PefEmulated)).is_ok());
    }
    // Naming a machine's own key as emulated changes nothing for it.
    let anchors = Anchors::default().with_emulated(machine(MACHINE_1));
    assert_eq!(appraise(&[MACHINE_1], &anchors).unwrap().verdict().tee, TeeKind::Pef);
}

#[test]
fn a_policy_that_does_not_name_pef_refuses_it() {
    let appraised = appraise(&[MACHINE_1], &Anchors::default()).unwrap();
    for tee in TeeKind::ALL.into_iter().filter(|tee| *tee != TeeKind::Pef) {
        let denial = appraised.grant(&reference(tee)).unwrap_err();
        assert_eq!(denial.check, Check::TeeKind, "{}", tee.name());
    }
    let without = ReferenceValues { pef: None, ..reference(TeeKind::Pef) };
    assert_eq!(appraised.grant(&without).unwrap_err().check, Check::TeeKind);
}

#[test]
fn a_blob_that_another_owner_enrolled_opens_nothing() {
    let appraised = appraise(&[MACHINE_1], &Anchors::default()).unwrap();
    let grant = |repository: &str, lineage: &str| {
        let pef = PefReference { repository: repository.into(), lineage: lineage.into(), ..pef() };
        appraised.grant(&ReferenceValues { pef: Some(pef), ..reference(TeeKind::Pef) })
    };
    assert!(grant("shop", "web").is_ok());
    for (repository, lineage) in [("bank", "web"), ("shop", "db"), ("", "")] {
        let denial = grant(repository, lineage).unwrap_err();
        assert_eq!(denial.check, Check::CertificateChain, "{repository}/{lineage}");
    }
}

#[test]
fn limited_releases_need_the_policys_word() {
    let appraised = appraise(&[MACHINE_1], &Anchors::default()).unwrap();
    let grant = |limited_releases, allow_limited_releases| {
        let pef = PefReference { limited_releases, allow_limited_releases, ..pef() };
        appraised.grant(&ReferenceValues { pef: Some(pef), ..reference(TeeKind::Pef) })
    };
    assert_eq!(grant(true, false).unwrap_err().check, Check::TeeKind);
    assert!(grant(true, true).is_ok() && grant(false, false).is_ok());
}

#[test]
fn each_machine_of_the_blob_must_be_in_a_policy_that_lists_machines() {
    let appraised = appraise(&[MACHINE_1, MACHINE_2], &Anchors::default()).unwrap();
    let grant = |machines: &[&str]| {
        let machines = machines.iter().map(|pem| *machine(pem).fingerprint()).collect();
        let pef = PefReference { machines, ..pef() };
        appraised.grant(&ReferenceValues { pef: Some(pef), ..reference(TeeKind::Pef) })
    };
    assert!(grant(&[MACHINE_2, MACHINE_1]).is_ok());
    assert_eq!(grant(&[MACHINE_1]).unwrap_err().check, Check::CertificateChain);
    assert_eq!(grant(&[SOFTWARE]).unwrap_err().check, Check::CertificateChain);
}

#[test]
fn keys_of_other_kinds_and_forms_are_no_machines() {
    assert!(!machine(MACHINE_1).is_software() && machine(SOFTWARE).is_software());
    let exponent = include_str!("../../testdata/pef/exponent-3.pem");
    assert_eq!(MachineKey::from_pem(exponent), Err(MachineError::Exponent));
    assert_eq!(MachineKey::from_pem(include_str!("../../testdata/pef/rsa-3072.pem")), Err(MachineError::Rsa));
    assert_eq!(MachineKey::from_pem(include_str!("../../testdata/pef/p256.pem")), Err(MachineError::Rsa));
    let crlf = MACHINE_1.replace('\n', "\r\n");
    let one_line = MACHINE_1.replace("BLIC KEY-----\nM", "BLIC KEY-----\n\nM");
    for text in
        ["", "x", MACHINE_1.trim_end(), &format!("{MACHINE_1}\n"), &format!(" {MACHINE_1}"), &crlf, &one_line]
    {
        assert_eq!(MachineKey::from_pem(text), Err(MachineError::Pem), "{text:?}");
    }
    assert_eq!(MachineKey::from_pem(&"a".repeat(4096)), Err(MachineError::Pem));
}

//! `sealpod appraise`: emulated evidence in each of its forms, with each check's refusal, and real reports.

#![allow(clippy::unwrap_used, reason = "a test")]

#[allow(dead_code, reason = "each test binary uses its own part")]
mod support;

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use protocols::rcar::{
    AttestRequest, EphemeralKey, InitData, RuntimeData, TeeEvidence, binding, report_data,
};
use sealpod_emulator::snp::chip::SECRET;
use sealpod_emulator::snp::wire::Call;
use sealpod_emulator::snp::{Authorities, Chip, Fault, Launch, Processor, Product};
use serde_json::Value;
use support::{Owner, certificates};
use tee_evidence::snp::{CertificateTable, RawReport, json};

const INITDATA: &str = "version = \"0.1.0\"\n";

/// An owner's directory with evidence in every form.
fn owner(faults: &[&str]) -> Owner {
    let owner = Owner::new(&certificates().0, 1);
    let now = SystemTime::now();
    // Half of AMD's key length, so that the test stays fast.
    let authorities = Authorities::generate(Product::Milan, 2048, now).unwrap();
    let key = EphemeralKey::generate().unwrap();
    let nonce = "bm9uY2U=".to_owned();
    let bound = report_data(&binding(&nonce, &key.public_jwk(), ""));
    let launch = Launch {
        measurement: [0x4d; 48],
        host_data: sealed_spec::initdata::digest(INITDATA.as_bytes()),
        ..Launch::default()
    };
    let faults = faults.iter().map(|fault| fault.parse::<Fault>().unwrap()).collect();
    let chip = Chip::new(Product::Milan, [9; SECRET]);
    let processor = Processor::launch(chip, launch, faults, &authorities, now).unwrap();
    let mut request = [0; 96];
    request[..64].copy_from_slice(&bound);
    let answer = processor.answer(&Call::ExtendedReport(request, 4));
    let report = RawReport::from_bytes(&answer.message[32..]).unwrap();
    let table = CertificateTable::parse(&answer.certificates).unwrap();
    let evidence = json::to_kbs(&report, table.entries()).unwrap();
    let body = AttestRequest {
        init_data: Some(InitData { format: "toml".into(), body: INITDATA.into() }),
        runtime_data: RuntimeData { nonce, tee_pubkey: key.public_jwk() },
        tee_evidence: TeeEvidence { primary_evidence: evidence.clone(), additional_evidence: String::new() },
    };
    std::fs::write(owner.path("report.bin"), report.as_bytes()).unwrap();
    std::fs::write(owner.path("table.bin"), &answer.certificates).unwrap();
    owner.write("evidence.json", &evidence.to_string());
    owner.write("body.json", &serde_json::to_string(&body).unwrap());
    owner.write("initdata.toml", INITDATA);
    owner.write("bound.txt", &hex::encode(bound));
    let ark = table.entries().iter().find(|entry| entry.kind == tee_evidence::snp::CertKind::Ark).unwrap();
    std::fs::write(owner.path("ark.der"), &ark.data).unwrap();
    owner.write(
        "policy.toml",
        &format!(
            "minimum_revision = 1\ntee = [\"snp-emulated\"]\n[[launch_digest]]\nname = \"guest-1\"\n\
             digest = \"{}\"\n[snp]\nminimum_tcb = {{ bootloader = 0, tee = 0, snp = 0, microcode = 0 }}\n",
            "4d".repeat(48)
        ),
    );
    owner
}

/// The table of an appraisal that ends in a refusal.
#[track_caller]
fn refused(owner: &Owner, args: &[&str]) -> String {
    let outcome = owner.run(args);
    assert!(!outcome.good, "{args:?}: {}", outcome.out);
    outcome.out
}

#[test]
fn a_whole_body_passes_every_check() {
    let owner = owner(&[]);
    let said =
        owner.good(&["appraise", "body.json", "--emulated-root", "ark.der", "--policy", "policy.toml"]);
    for check in ["report_layout", "crl", "signature", "report_data", "host_data", "minimum_tcb"] {
        let line = said.lines().find(|line| line.split_whitespace().next() == Some(check));
        assert_eq!(line.unwrap().split_whitespace().nth(1), Some("passed"), "{said}");
    }
    assert!(said.contains("passed: evidence of kind snp-emulated"), "{said}");
    assert!(said.contains("proves nothing about hardware"), "{said}");
    assert!(!said.contains("NOT CHECKED"), "{said}");

    let args = ["appraise", "body.json", "--emulated-root", "ark.der", "--policy", "policy.toml", "--json"];
    let said: Value = serde_json::from_str(&owner.good(&args)).unwrap();
    assert_eq!(said["outcome"], "passed");
    assert_eq!(said["verdict"]["tee"], "snp-emulated");
    assert_eq!(said["verdict"]["measurement"], "4d".repeat(48));
}

#[test]
fn each_form_of_evidence_is_told_by_its_contents() {
    let owner = owner(&[]);
    let bound = owner.read("bound.txt");
    for (file, more) in
        [("report.bin", &["--certs", "table.bin"][..]), ("evidence.json", &[]), ("body.json", &[])]
    {
        let known = ["--report-data", &bound, "--initdata", "initdata.toml", "--policy", "policy.toml"];
        let args = [&["appraise", file, "--emulated-root", "ark.der"][..], more, &known].concat();
        let said = owner.good(&args);
        assert!(!said.contains("NOT CHECKED"), "{file}: {said}");
    }
    let said = owner.good(&["appraise", "evidence.json", "--emulated-root", "ark.der"]);
    assert!(said.contains("authentic: "), "{said}");
    assert!(said.contains("report_data was not checked"), "{said}");
    assert!(said.contains("host_data was not checked"), "{said}");
}

#[test]
fn what_fails_is_named_and_the_rest_was_not_reached() {
    let owner = owner(&[]);
    let root = ["appraise", "body.json", "--emulated-root", "ark.der"];
    let zeros = "00".repeat(64);
    owner.write("other.toml", "version = \"0.1.1\"\n");
    let strict = owner.read("policy.toml").replace("\"snp-emulated\"", "\"snp\"");
    owner.write("strict.toml", &strict);
    let other = owner.read("policy.toml").replace(&"4d".repeat(48), &"4e".repeat(48));
    owner.write("other-digest.toml", &other);
    for (args, failed, code) in [
        (&["appraise", "body.json"][..], "certificate_chain", "CERTIFICATE_CHAIN"),
        (&[&root[..], &["--at", "2020-01-01T00:00:00Z"]].concat(), "certificate_chain", "CERTIFICATE_CHAIN"),
        (&[&root[..], &["--initdata", "other.toml"]].concat(), "host_data", "HOST_DATA"),
        (&[&root[..], &["--policy", "strict.toml"]].concat(), "tee_kind", "TEE_KIND"),
        (&[&root[..], &["--policy", "other-digest.toml"]].concat(), "launch_digest", "LAUNCH_DIGEST"),
        (
            &["appraise", "evidence.json", "--emulated-root", "ark.der", "--report-data", &zeros],
            "report_data",
            "BINDING",
        ),
        (&["appraise", "report.bin", "--emulated-root", "ark.der"], "certificates", "COLLATERAL"),
    ] {
        let said = refused(&owner, args);
        let line = said.lines().find(|line| line.split_whitespace().next() == Some(failed));
        assert_eq!(line.and_then(|line| line.split_whitespace().nth(1)), Some("FAILED"), "{args:?}: {said}");
        assert!(said.contains(&format!("refused: {code}: ")), "{args:?}: {said}");
    }
    let said: Value = serde_json::from_str(&refused(&owner, &["appraise", "body.json", "--json"])).unwrap();
    assert_eq!(said["refusal"]["code"], "CERTIFICATE_CHAIN");
}

#[test]
fn revocation_lists_are_required_unless_waived() {
    for fault in ["stale-crl", "revoked-ask"] {
        let owner = owner(&[fault]);
        let args = ["appraise", "body.json", "--emulated-root", "ark.der", "--policy", "policy.toml"];
        let said = refused(&owner, &args);
        assert!(said.contains("crl"), "{fault}: {said}");
        let said = owner.good(&[&args[..], &["--without-crl"]].concat());
        assert!(said.contains("crl was not checked: "), "{said}");
    }
}

#[test]
fn other_files_are_named_for_what_they_are() {
    let owner = owner(&[]);
    for (text, part) in [
        ("short", "it has 5 bytes"),
        ("{}", "no evidence of a known kind"),
        ("{\"connection\": \"x\", \"mac\": \"y\"}", "only the broker that made its launch session"),
        ("{\"blob\": \"x\", \"signature\": \"y\"}", "only the broker that its blob is enrolled at"),
        ("{\"svn\": \"1\", \"report_data\": \"\"}", "sample evidence: anybody can make it"),
        ("{", "JSON"),
    ] {
        owner.write("file", text);
        let error = owner.refused(&["appraise", "file"]);
        assert!(error.contains(part), "{text}: {error}");
    }
    for args in [["--at", "yesterday"], ["--report-data", "00"], ["--certs", "policy.toml"]] {
        owner.refused(&[&["appraise", "body.json"][..], &args].concat());
    }
    let other = "11".repeat(64);
    let error = owner.refused(&["appraise", "body.json", "--report-data", &other]);
    assert!(error.contains("another nonce and key"), "{error}");
}

/// Where the vectors are; none of them is in the repository.
fn vectors() -> Option<PathBuf> {
    let root = std::env::var_os("SEALPOD_VECTORS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors"), PathBuf::from)
        .join("snp");
    if !root.is_dir() {
        println!("skipped: no vectors");
        return None;
    }
    root.canonicalize().ok()
}

#[test]
fn real_reports_are_authentic() {
    let Some(root) = vectors() else { return };
    let owner = Owner::new(&certificates().0, 1);
    for (name, more) in [
        ("milan-v2-sevcrate", None),
        ("milan-v2-trustee", Some("roots")),
        ("milan-v3-routex", Some("roots")),
        ("genoa-v3-routex", None),
    ] {
        let path = |part: &str| root.join(part).display().to_string();
        let (report, own) = (path(&format!("{name}/report.bin")), path(name));
        let more = more.map(&path);
        let mut args =
            vec!["appraise", &report, "--certs", &own, "--without-crl", "--at", "2026-01-01T00:00:00Z"];
        if let Some(more) = &more {
            args.extend(["--certs", more]);
        }
        let said = owner.good(&args);
        assert!(said.contains("authentic: evidence of kind snp (amd)"), "{name}: {said}");
        assert!(said.contains("crl was not checked"), "{name}: {said}");
        // Without saying so, no list is a refusal.
        args.retain(|arg| *arg != "--without-crl");
        let said = refused(&owner, &args);
        assert!(said.contains("refused: COLLATERAL"), "{name}: {said}");
    }
    // A report that was made after the certificate's end is none.
    let report = root.join("milan-v2-sevcrate/report.bin").display().to_string();
    let own = root.join("milan-v2-sevcrate").display().to_string();
    let late = ["appraise", &report, "--certs", &own, "--without-crl", "--at", "2031-01-01T00:00:00+02:00"];
    assert!(refused(&owner, &late).contains("has expired"));
}

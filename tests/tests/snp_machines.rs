//! SEV-SNP on machines of other kinds, and on ones that lie: what their reports end in, in a VM. What each field of
//! a report has to be is the verifier's own tests' business.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use protocols::refusal::{Code, Refusal};
use sealpod_tests::attempt::Stage;
use sealpod_tests::machine::{Machine, emulate_with};
use sealpod_tests::process::Finished;
use support::{in_vm, inspected_on};

/// A policy of its own for the pod, with more in its `[snp]`.
fn push_policy(stage: &Stage, snp: &str) {
    let measurement: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&stage.measurement).unwrap()).unwrap();
    let digest = measurement["launch_digest"].as_str().unwrap();
    let text = format!(
        "minimum_revision = 1\ntee = ['snp-emulated']\n[[launch_digest]]\nname = 'guest'\ndigest = '{digest}'\n\
         [snp]\nminimum_tcb = {{ bootloader = 0, tee = 0, snp = 0, microcode = 0 }}\n{snp}\n"
    );
    let path = stage.world.directory().join("policy.toml");
    std::fs::write(&path, text).unwrap();
    let mut command = stage.owner.command("push");
    command.arg(&stage.sealed.key).arg("--policy").arg(&path);
    Finished::of(&mut command).unwrap().success("sealpod push").unwrap();
}

async fn runs(machine: Machine, snp: &str, arguments: &[&str]) {
    let _vm = in_vm();
    let (stage, mut host) = inspected_on(machine, &[], &[]);
    push_policy(&stage, snp);
    emulate_with(&mut host.guest.platform, stage.world.directory(), arguments).unwrap();
    let mut running = host.boot(&stage.state()).await.unwrap_or_else(|error| panic!("{error:#}"));
    running.start_everything().await.unwrap_or_else(|error| panic!("{error}\n{}", running.console()));
    running.pod.signal("main", 15).await.unwrap();
    running.end().await.unwrap();
}

async fn refused(machine: Machine, snp: &str, arguments: &[&str]) -> Refusal {
    let _vm = in_vm();
    let (stage, mut host) = inspected_on(machine, &[], &[]);
    push_policy(&stage, snp);
    emulate_with(&mut host.guest.platform, stage.world.directory(), arguments).unwrap();
    host.refusal(&stage.state()).await.unwrap_or_else(|error| panic!("{arguments:?}: {error:#}"))
}

#[tokio::test]
async fn turin_reports_of_version_5() {
    runs(Machine::TURIN, "", &["--report-version", "5"]).await;
}

#[tokio::test]
async fn a_vlek_of_an_accepted_cloud() {
    runs(Machine::GENOA, "vlek_csp_ids = ['emulated-cloud']", &["--signing-key", "vlek"]).await;
}

#[tokio::test]
async fn a_vlek_of_a_cloud_that_nobody_named() {
    let refusal =
        refused(Machine::MILAN, "vlek_csp_ids = ['another-cloud']", &["--signing-key", "vlek"]).await;
    assert!(matches!(refusal.code, Code::CertificateChain | Code::TeeKind), "{refusal}");
}

/// The agent asks again, for the same report.
#[tokio::test]
async fn a_host_that_is_busy_at_first() {
    runs(Machine::MILAN, "", &["--fault", "busy=3"]).await;
}

/// It asks for less room than there is.
#[tokio::test]
async fn a_host_that_is_never_content_with_the_room() {
    let refusal = refused(Machine::MILAN, "", &["--fault", "short-buffer=1"]).await;
    assert_eq!(refusal.code, Code::Evidence, "{refusal}");
}

#[tokio::test]
async fn a_host_that_stays_busy() {
    assert_eq!(refused(Machine::MILAN, "", &["--fault", "busy=100000"]).await.code, Code::Evidence);
}

#[tokio::test]
async fn a_revoked_authority() {
    let refusal = refused(Machine::MILAN, "", &["--fault", "revoked-ask"]).await;
    assert!(matches!(refusal.code, Code::CertificateChain | Code::Collateral), "{refusal}");
}

#[tokio::test]
async fn a_chip_that_hides_its_key() {
    let refusal = refused(Machine::TURIN, "", &["--fault", "masked-chip-key"]).await;
    assert!(matches!(refusal.code, Code::Evidence | Code::Signature | Code::GuestPolicy), "{refusal}");
}

#[tokio::test]
async fn a_rolled_back_committed_tcb() {
    let snp = "products = { milan = { bootloader = 4, tee = 0, snp = 8, microcode = 100 } }";
    let refusal = refused(Machine::MILAN, snp, &["--fault", "committed-tcb=bootloader=3"]).await;
    assert_eq!(refusal.code, Code::Tcb, "{refusal}");
}

/// The table of certificates is the host's: a broken one costs the host its guest, and nobody else anything.
#[tokio::test]
async fn a_certificate_table_that_attacks_its_parser() {
    for fault in ["table-huge", "table-overlap"] {
        let refusal = refused(Machine::MILAN, "", &["--fault", fault]).await;
        assert_eq!(refusal.code, Code::Evidence, "{fault}: {refusal}");
    }
}

/// The same host without a fault, so that the refusals above are the faults'.
#[tokio::test]
async fn without_a_fault_the_same_host_runs_the_pod() {
    runs(Machine::MILAN, "", &[]).await;
}

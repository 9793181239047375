//! SEV and SEV-ES guests in a VM: the relay launches them with the broker's session, the broker measures before it
//! lets a secret in, the agent lives off that secret alone. In each refusing test one thing is another.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use protocols::refusal::Code;
use sealpod_tests::attempt::Stage;
use sealpod_tests::host::{Host, Running};
use sealpod_tests::machine::{Machine, emulate_with};
use support::{in_vm, inspected_on};

/// What a command in the container printed.
async fn printed(running: &Running, command: &[&str]) -> String {
    let words: Vec<String> = command.iter().map(|&word| word.to_owned()).collect();
    let outcome = running.pod.exec("main", &words).await.unwrap().wait().await.unwrap();
    assert_eq!(outcome.exit_code, 0, "{command:?}");
    String::from_utf8(outcome.stdout).unwrap()
}

fn audit(stage: &Stage) -> String {
    let log = stage.world.directory().join("audit.jsonl");
    stage.world.broker().export_audit(&log).unwrap();
    std::fs::read_to_string(&log).unwrap()
}

async fn started(host: &Host, stage: &Stage) -> Running {
    let mut running = host.boot(&stage.state()).await.unwrap_or_else(|error| panic!("{error:#}"));
    running.start_everything().await.unwrap_or_else(|error| panic!("{error}\n{}", running.console()));
    running
}

async fn runs_with_a_connection(machine: Machine) {
    let _vm = in_vm();
    let (stage, host) = inspected_on(machine, &[], &[]);
    let running = started(&host, &stage).await;
    assert!(printed(&running, &["env"]).await.contains("COLOUR=sealed blue"));
    // What came with the launch is the agent's alone.
    let mounts = printed(&running, &["cat", "/proc/mounts"]).await;
    assert!(!mounts.contains("securityfs") && mounts.contains(" /sys/kernel/security "), "{mounts}");
    let audit = audit(&stage);
    assert!(audit.contains("key.released"), "no release in the audit log:\n{audit}");
    assert!(audit.contains(machine.kind), "the verdict does not say what kind it was:\n{audit}");
    running.pod.signal("main", 15).await.unwrap();
    running.end().await.unwrap();
}

#[tokio::test]
async fn a_sev_guest_proves_itself_by_its_connection_key() {
    runs_with_a_connection(Machine::SEV).await;
}

#[tokio::test]
async fn a_sev_es_guest_proves_itself_by_its_connection_key() {
    runs_with_a_connection(Machine::SEV_ES).await;
}

#[tokio::test]
async fn an_offline_bundle_opens_the_pod_without_a_broker() {
    let _vm = in_vm();
    let (mut stage, host) = inspected_on(Machine::SEV_ES, &[], &["--sev-secret", "bundle"]);
    let mut running = host.boot(&stage.state()).await.unwrap_or_else(|error| panic!("{error:#}"));
    // The launch was its part.
    stage.world.broker_mut().stop().unwrap();
    running.start_everything().await.unwrap_or_else(|error| panic!("{error}\n{}", running.console()));
    assert!(printed(&running, &["env"]).await.contains("COLOUR=sealed blue"));
    running.pod.signal("main", 15).await.unwrap();
    running.end().await.unwrap();
}

async fn refused(machine: Machine, change: impl FnOnce(&Stage, &mut Host)) -> Code {
    let _vm = in_vm();
    let (stage, mut host) = inspected_on(machine, &[], &[]);
    change(&stage, &mut host);
    let refusal = host.refusal(&stage.state()).await.unwrap_or_else(|error| panic!("{error:#}"));
    let audit = audit(&stage);
    assert!(!audit.contains("key.released"), "refused, and released all the same:\n{audit}");
    refusal.code
}

/// The emulated platform, or its host, does this wrong.
async fn faulty(machine: Machine, fault: &str) -> Code {
    refused(machine, |stage, host| {
        emulate_with(&mut host.guest.platform, stage.world.directory(), &["--fault", fault]).unwrap();
    })
    .await
}

#[tokio::test]
async fn one_byte_of_the_initrd() {
    let changed = |stage: &Stage, host: &mut Host| {
        host.guest.initrd = stage.world.initrd_with_one_byte_changed().unwrap();
    };
    assert_eq!(refused(Machine::SEV, changed).await, Code::LaunchDigest);
}

#[tokio::test]
async fn one_word_of_the_kernel_command_line() {
    let changed = |_: &Stage, host: &mut Host| host.guest.append.push_str(" quiet");
    assert_eq!(refused(Machine::SEV_ES, changed).await, Code::LaunchDigest);
}

/// SEV-ES measures each processor's registers; SEV doesn't know how many there are.
#[tokio::test]
async fn one_more_processor() {
    let changed = |_: &Stage, host: &mut Host| host.guest.vcpus += 1;
    assert_eq!(refused(Machine::SEV_ES, changed).await, Code::LaunchDigest);
}

#[tokio::test]
async fn a_measurement_that_is_not_the_firmwares() {
    assert_eq!(faulty(Machine::SEV, "measure").await, Code::LaunchDigest);
}

/// NODBG is not in it: the host could read the guest's memory. An honest relay starts no such guest.
#[tokio::test]
async fn a_launch_under_another_policy() {
    let _vm = in_vm();
    let (stage, mut host) = inspected_on(Machine::SEV_ES, &[], &[]);
    emulate_with(&mut host.guest.platform, stage.world.directory(), &["--fault", "policy=4"]).unwrap();
    let error = format!("{:#}", host.refusal(&stage.state()).await.unwrap_err());
    assert!(
        error.contains("the guest's policy is 0x4") && !audit(&stage).contains("key.released"),
        "{error}"
    );
}

#[tokio::test]
async fn a_platform_without_amds_signature() {
    assert_eq!(faulty(Machine::SEV, "oca-only").await, Code::CertificateChain);
}

/// A policy that names only SNP, and a host with nothing but SEV.
#[tokio::test]
async fn a_policy_that_does_not_name_sev() {
    let policy = |stage: &Stage, _: &mut Host| {
        let text = format!(
            "minimum_revision = 1\ntee = ['snp-emulated']\n[[launch_digest]]\nname = 'other'\ndigest = '{}'\n\
             [snp]\nminimum_tcb = {{ bootloader = 0, tee = 0, snp = 0, microcode = 0 }}\n",
            "ab".repeat(48)
        );
        let path = stage.world.directory().join("policy.toml");
        std::fs::write(&path, text).unwrap();
        let mut command = stage.owner.command("push");
        command.arg(&stage.sealed.key).arg("--policy").arg(&path);
        sealpod_tests::process::Finished::of(&mut command).unwrap().success("sealpod push").unwrap();
    };
    assert_eq!(refused(Machine::SEV, policy).await, Code::TeeKind);
}

//! What a hostile host or another tenant tries, each in a VM of its own and each refused with its code.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use protocols::refusal::Code;
use sealpod_tests::attempt::Attempt;
use sealpod_tests::process::Finished;
use support::{in_vm, inspected, stage};

async fn refused(attempt: Attempt) {
    let _vm = in_vm();
    let stage = stage(&[]);
    let refusal = attempt.make(&stage).await.unwrap_or_else(|error| panic!("{}: {error:#}", attempt.title()));
    assert_eq!(refusal.code, attempt.expected(), "{refusal}");
}

macro_rules! refused {
    ($($name:ident: $attempt:ident,)*) => {$(
        #[tokio::test]
        async fn $name() {
            refused(Attempt::$attempt).await;
        }
    )*};
}

refused! {
    one_byte_of_the_initrd: ChangedInitrd,
    one_word_of_the_kernel_command_line: ChangedCommandLine,
    another_owners_guest_asks_for_the_key: ForeignInitdata,
    another_pods_guest_asks_for_the_key: OtherPod,
    host_data_of_other_initdata: OtherHostData,
    no_initdata_at_all: NoInitdata,
    one_character_of_the_sealed_document: TamperedDocument,
    a_sealed_document_that_never_comes: WithheldDocument,
    a_broker_in_between: BrokerInBetween,
    a_container_that_is_not_in_the_spec: UnknownContainer,
}

#[tokio::test]
async fn a_retired_revision() {
    let _vm = in_vm();
    let (stage, host) = inspected(&["--lineage", "inspected", "--revision", "1"]);
    let mut command = stage.owner.command("retire");
    Finished::of(command.args(["--lineage", "inspected", "--revision", "1"]))
        .unwrap()
        .success("retire")
        .unwrap();
    assert_eq!(host.refusal(&stage.state()).await.unwrap().code, Code::RevisionRetired);
}

#[tokio::test]
async fn a_guest_with_one_more_processor_than_was_measured() {
    let _vm = in_vm();
    let (stage, mut host) = inspected(&[]);
    host.guest.vcpus += 1;
    assert_eq!(host.refusal(&stage.state()).await.unwrap().code, Code::LaunchDigest);
}

#[tokio::test]
async fn a_debuggable_guest() {
    let _vm = in_vm();
    let (stage, mut host) = inspected(&[]);
    let launcher::Platform::SnpEmulated { policy, .. } = &mut host.guest.platform else {
        panic!("the test guest is emulated");
    };
    *policy |= 1 << 19;
    assert_eq!(host.refusal(&stage.state()).await.unwrap().code, Code::GuestPolicy);
}

#[tokio::test]
async fn nobody_at_the_brokers_address() {
    let _vm = in_vm();
    let (mut stage, host) = inspected(&[]);
    stage.world.broker_mut().stop().unwrap();
    let refusal = host.refusal(&stage.state()).await.unwrap();
    assert_eq!(refusal.code, Code::BrokerUnreachable, "{refusal}");
}

#[tokio::test]
async fn nobody_at_the_registrys_address() {
    let _vm = in_vm();
    let (mut stage, host) = inspected(&[]);
    stage.world.registry_mut().stop().unwrap();
    let refusal = host.refusal(&stage.state()).await.unwrap();
    assert_eq!(refusal.code, Code::ImagePull, "{refusal}");
    assert!(refusal.detail.contains("10.0.2.2"), "the address that failed is missing: {refusal}");
}

//! The recorded lives of a pod, played against an unsealed and a sealed guest: init containers, a sidecar, exec
//! probes, a crash and its restart, a ConfigMap's update, deletion.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::path::Path;

use launcher::DEFAULT_APPEND;
use launcher::pod::Volume;
use sealed_spec::SealedDocument;
use sealpod_tests::attempt::Stage;
use sealpod_tests::host::Host;
use sealpod_tests::kata::Kata;
use sealpod_tests::lifecycle::{Dialect, Guest, Player, Recording, directory};
use sealpod_tests::plain::Plain;
use support::in_vm;

async fn unsealed(name: &str) {
    let _vm = in_vm();
    let recording = Recording::read(name).unwrap();
    let running = Plain::new(&[]).unwrap().boot().await.unwrap();
    let kata = Kata::new(running.kata.client().clone(), recording.init());
    let dialect = Dialect::new(Guest::Unsealed, recording.runtime()).unwrap();
    let played = Player::new(kata, dialect).play(&recording).await;
    played.unwrap_or_else(|error| panic!("{error:#}\n{}", running.console()));
}

#[tokio::test]
async fn containerd_and_the_rust_shim_unsealed() {
    unsealed("containerd-rust-shim").await;
}

#[tokio::test]
async fn crio_and_the_go_shim_unsealed() {
    unsealed("crio-go-shim").await;
}

/// The host that was given the sealed pod, and the document that it copies in.
fn sealed_stage() -> (Stage, Host, Vec<u8>) {
    let grants = ["--grant-logs", "clear", "--grant-volume", "web:/config"];
    let stage = Stage::set(&directory().join("pod.yaml"), &grants, &mut |_| {}).unwrap();
    // What the host knows of the ConfigMap that the pod refers to, so that it can read the workload.
    let settings = "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {key: first}\n";
    let text = std::fs::read_to_string(&stage.sealed.manifest).unwrap();
    let whole = stage.world.directory().join("whole.yaml");
    std::fs::write(&whole, format!("{}\n{settings}", text.trim_end())).unwrap();
    let host = Host::honest(Path::new(&whole), &stage.guest, &stage.world.relay_socket()).unwrap();
    let files = host.pod.volumes.values().filter_map(|volume| match volume {
        Volume::Files(files) => Some(files),
        Volume::Empty(_) => None,
    });
    let document = files
        .flat_map(|files| files.values())
        .find(|bytes| std::str::from_utf8(bytes).is_ok_and(|text| SealedDocument::parse(text).is_ok()))
        .expect("the pod carries no sealed document")
        .clone();
    assert!(host.guest.append.starts_with(DEFAULT_APPEND));
    (stage, host, document)
}

async fn sealed(name: &str) {
    let _vm = in_vm();
    let recording = Recording::read(name).unwrap();
    let (stage, host, document) = sealed_stage();
    let running = host.boot(&stage.state()).await.unwrap();
    let kata = Kata::new(running.pod.client().clone(), recording.init());
    let dialect = Dialect::new(Guest::Sealed(document), recording.runtime()).unwrap();
    let played = Player::new(kata, dialect).play(&recording).await;
    played.unwrap_or_else(|error| panic!("{error:#}\n{}", running.console()));
    // Nothing is asked to end: the Rust shim stops the machine.
}

#[tokio::test]
async fn containerd_and_the_rust_shim_sealed() {
    sealed("containerd-rust-shim").await;
}

#[tokio::test]
async fn containerd_and_the_go_shim_sealed() {
    sealed("containerd-go-shim").await;
}

#[tokio::test]
async fn crio_and_the_go_shim_sealed() {
    sealed("crio-go-shim").await;
}

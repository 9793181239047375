//! Image layers on a disk of the host: `layer_store: device` in the sealed spec. What the host does to blocks of
//! such a disk is tried in `agent/scratch/tests/guest.rs`.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use launcher::{Disk, LAYER_DISK};
use protocols::refusal::Code;
use sealpod_tests::attempt::Stage;
use sealpod_tests::host::Host;
use support::{in_vm, inspected};

const MIB: usize = 1 << 20;

fn staged() -> (Stage, Host) {
    inspected(&["--layer-store", "device", "--grant-exec", "main=busybox sync"])
}

/// A disk that claims to be a volume of another's making: headers of LUKS, dm-integrity and ext4 with nothing behind
/// them.
fn hostile(directory: &Path, name: &str, bytes: usize) -> PathBuf {
    let mut disk = vec![0xa5; bytes];
    disk[..6].copy_from_slice(b"LUKS\xba\xbe");
    disk[4096..4104].copy_from_slice(b"integrt\0");
    disk[1080..1082].copy_from_slice(&[0x53, 0xef]);
    let path = directory.join(name);
    fs::write(&path, disk).unwrap();
    path
}

fn layers(path: PathBuf) -> Disk {
    Disk { serial: Some(LAYER_DISK), ..Disk::new(path) }
}

fn holds(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

#[tokio::test]
async fn a_container_runs_from_layers_on_the_hosts_disk() {
    let _vm = in_vm();
    let (stage, mut host) = staged();
    let path = hostile(stage.world.directory(), "layers.img", 256 * MIB);
    // Another disk beside it isn't touched.
    let other = stage.world.directory().join("other.img");
    File::create(&other).unwrap().set_len(16 << 20).unwrap();
    host.disks = vec![Disk::new(other.clone()), layers(path.clone())];
    let mut running = host.boot(&stage.state()).await.unwrap();
    running.pod.start_sandbox().await.unwrap_or_else(|error| panic!("{error}\n{}", running.console()));
    running.pod.run_init_containers().await.unwrap();
    let containers = running.pod.start_containers().await.unwrap();
    let words = |words: [&str; 2]| words.map(str::to_owned);
    let mounts =
        running.pod.exec("main", &words(["cat", "/proc/mounts"])).await.unwrap().wait().await.unwrap();
    assert!(String::from_utf8_lossy(&mounts.stdout).contains(" / overlay"));
    assert!(running.console().contains("layers are kept on the host's disk"), "{}", running.console());
    // The guest has no reason of its own to write a disk whose key ends with it.
    running.pod.exec("main", &words(["busybox", "sync"])).await.unwrap().wait().await.unwrap();
    drop(containers);
    running.end().await.unwrap();

    // The layers are there, and nobody but the guest could read them.
    let disk = fs::read(&path).unwrap();
    let written = disk.chunks(4096).filter(|block| block.iter().any(|byte| *byte != 0xa5)).count();
    assert!(written > 64, "{written} blocks were written");
    for clear in [&b"BusyBox v"[..], b"\x7fELF", b"applet not found", b"/etc/passwd"] {
        assert!(!holds(&disk, clear), "clear text on the host's disk");
    }
    assert!(fs::read(&other).unwrap().iter().all(|byte| *byte == 0), "another disk was written to");
}

#[tokio::test]
async fn without_a_disk_that_can_be_used_there_is_no_sandbox() {
    let _vm = in_vm();
    let (stage, mut host) = staged();
    let directory = stage.world.directory();
    let good = |name: &str| layers(hostile(directory, name, 64 * MIB));
    let cases = [
        ("none", vec![]),
        ("one without the serial number", vec![Disk::new(hostile(directory, "plain", 64 * MIB))]),
        ("two", vec![good("first"), good("second")]),
        ("too small", vec![layers(hostile(directory, "small", 4 * MIB))]),
        ("read-only", vec![Disk { read_only: true, ..good("read-only") }]),
    ];
    for (case, disks) in cases {
        host.disks = disks;
        let refusal = host.refusal(&stage.state()).await.unwrap();
        assert_eq!(refusal.code, Code::LayerStore, "{case}: {refusal}");
    }
}

//! What a long life leaves behind: containers made, run and removed, again and again in one sandbox, and many
//! processes at once. Forty rounds in every run of the tests; five hundred with
//! `cargo test -p sealpod-tests --test soak -- --ignored`.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::path::Path;

use sealpod_tests::kata::{Kata, spec, unique};
use sealpod_tests::pattern;
use sealpod_tests::plain::{Plain, PlainGuest};
use support::in_vm;

const SANDBOX: &str = "sandbox";
/// Until caches are filled and pools have grown.
const WARM_UP: usize = 8;
const GROWTH: u64 = 4 << 20;
const EXECS: usize = 50;
const OUTPUT: usize = 1 << 20;

async fn guest() -> PlainGuest {
    let running =
        Plain::new(&[("/bin/probe", Path::new(env!("CARGO_BIN_EXE_probe")))]).unwrap().boot().await.unwrap();
    let kata = &running.kata;
    kata.sandbox(SANDBOX).await.unwrap();
    kata.create(&spec::pause(SANDBOX)).await.unwrap();
    kata.start(SANDBOX).await.unwrap();
    running
}

/// What there is of each kind, as the kernel counts it. Its own threads (children of 2) come and go as it likes; and
/// processes are listed before a second one of the counting pipeline can, or can not yet, be among them.
#[derive(Debug, PartialEq, Eq)]
struct Count {
    descriptors: u64,
    mounts: u64,
    zombies: u64,
    processes: u64,
    cgroups: u64,
}

const COUNT: &str = "ls /mnt/1/fd | wc -l; grep -c '' /mnt/1/mounts; \
                     grep -l '^State:.Z' /mnt/[0-9]*/status 2>/dev/null | wc -l; \
                     set -- $(grep -L '^PPid:[^0-9]*2$' /mnt/[0-9]*/status 2>/dev/null); echo $#; \
                     find /data -type d | wc -l; \
                     grep VmRSS /mnt/1/status | tr -dc 0-9";

/// And the agent's resident memory in bytes: asked from a container that sees the agent's own /proc and the control
/// groups, and that is gone when its answer is there.
async fn count(kata: &Kata) -> (Count, u64) {
    let mut inspector = spec::container(&unique("inspector"), &["/bin/sh", "-c", COUNT]);
    let oci = inspector.OCI.mut_or_insert_default();
    oci.Mounts.push(spec::mount("/mnt", "/proc", "bind", &["rbind", "ro"]));
    oci.Mounts.push(spec::mount("/data", "/sys/fs/cgroup", "bind", &["rbind", "ro"]));
    let mut capabilities = spec::CAPABILITIES.to_vec();
    capabilities.push("SYS_PTRACE");
    let process = oci.Process.mut_or_insert_default();
    process.Capabilities = protobuf::MessageField::some(spec::capabilities(&capabilities));
    let text = kata.run(&inspector).await.unwrap().good().unwrap();
    let numbers: Vec<u64> = text.lines().map(|line| line.trim().parse().unwrap()).collect();
    let [descriptors, mounts, zombies, processes, cgroups, resident] = numbers[..] else { panic!("{text}") };
    (Count { descriptors, mounts, zombies, processes, cgroups }, resident * 1024)
}

async fn round(kata: &Kata) {
    let ended = kata.run(&spec::container(&unique("round"), &["echo", "hello"])).await.unwrap();
    assert_eq!(ended.good().unwrap(), "hello");
}

async fn rounds(count_of_rounds: usize) {
    let _vm = in_vm();
    let running = guest().await;
    let kata = &running.kata;
    for _ in 0..WARM_UP {
        round(kata).await;
    }
    let (before, resident_before) = count(kata).await;
    for _ in 0..count_of_rounds {
        round(kata).await;
    }
    let (after, resident_after) = count(kata).await;
    eprintln!(
        "{count_of_rounds} rounds: {before:?} and {resident_before} bytes became {resident_after} bytes"
    );
    assert_eq!(before, after, "{}", running.console());
    let growth = resident_after.saturating_sub(resident_before);
    assert!(growth <= GROWTH, "the agent grew by {growth} bytes in {count_of_rounds} rounds");
}

#[tokio::test]
async fn forty_containers_leave_nothing_behind() {
    rounds(40).await;
}

#[tokio::test]
#[ignore = "minutes; make test runs the forty"]
async fn five_hundred_containers_leave_nothing_behind() {
    rounds(500).await;
}

#[tokio::test]
async fn fifty_processes_write_a_megabyte_each_at_once() {
    let _vm = in_vm();
    let running = guest().await;
    let kata = &running.kata;
    // Pools have grown after the first few.
    for _ in 0..WARM_UP {
        round(kata).await;
    }
    let (before, _) = count(kata).await;
    kata.create(&spec::container("busy", &["sleep", "1000000"])).await.unwrap();
    kata.start("busy").await.unwrap();
    let expected: Vec<u8> = (0..OUTPUT).map(pattern::byte).collect();
    let length = OUTPUT.to_string();
    let tasks: Vec<_> = (0..EXECS)
        .map(|_| {
            let (kata, length) = (kata.clone(), length.clone());
            tokio::spawn(async move { kata.exec("busy", &["probe", "pattern", &length]).await })
        })
        .collect();
    for task in tasks {
        let ended = task.await.unwrap().unwrap();
        assert_eq!(ended.status, 0, "{}", String::from_utf8_lossy(&ended.stderr));
        assert!(ended.stdout == expected, "{} bytes came, not the right ones", ended.stdout.len());
    }
    // The agent remembers how processes ended until their container is removed.
    kata.remove("busy").await.unwrap();
    let (after, _) = count(kata).await;
    assert_eq!(before, after, "{}", running.console());
}

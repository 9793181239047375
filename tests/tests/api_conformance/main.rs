//! The whole Kata agent API against an unsealed guest, as a runtime that holds one connection uses it: for each
//! RPC what it does and what it refuses, with the status codes that clients branch on.
//!
//! One VM for all of it: each check has a name, begins with the RPC's, and fails alone.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod containers;
mod defects;
mod files;
mod frames;
mod machine;
mod network;
mod processes;
mod resources;
mod sandbox;
mod storage;
#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeSet;
use std::path::Path;

use launcher::{Bus, Disk};
use sealpod_tests::checks::Checks;
use sealpod_tests::disk;
use sealpod_tests::kata::{Kata, spec};
use sealpod_tests::plain::{Plain, PlainGuest};
use sealpod_tests::process::Finished;
use support::in_vm;

/// The sandbox's id.
pub(crate) const SANDBOX: &str = "sandbox";
/// A container that runs all the time and ends on TERM.
pub(crate) const MAIN: &str = "main";
/// What it runs.
pub(crate) const WAITS: &str = "trap 'exit 15' TERM; while true; do sleep 1 & wait $!; done";

/// The guest, and which disk is what.
pub(crate) struct Bench {
    pub(crate) running: PlainGuest,
    /// An empty ext4, by PCI path.
    pub(crate) volume: String,
    /// An empty ext4 behind SCSI: its LUN.
    pub(crate) scsi: usize,
    /// A swap area, by PCI path.
    pub(crate) swap: String,
    /// Another.
    pub(crate) second_swap: String,
    /// An ext4 that is smaller than its disk, by PCI path.
    pub(crate) growing: String,
    /// Zeros.
    pub(crate) blank: String,
}

impl Bench {
    async fn boot() -> Self {
        let mut plain = Plain::new(&[("/bin/probe", Path::new(env!("CARGO_BIN_EXE_probe")))]).unwrap();
        let volume = plain.add("volume.img", Bus::Blk, |path| disk::empty(path, 16 << 20)).unwrap();
        let scsi = plain.add("scsi.img", Bus::Scsi, |path| disk::empty(path, 16 << 20)).unwrap();
        let blank = plain.add("blank.img", Bus::Blk, |path| disk::blank(path, 16 << 20)).unwrap();
        let mut swap = |name| {
            let made = plain.add(name, Bus::Blk, |path| {
                disk::blank(path, 8 << 20)?;
                let mut command = std::process::Command::new("/usr/sbin/mkswap");
                Finished::of(command.arg("--quiet").arg(path))?.success("mkswap").map(drop)
            });
            Disk::pci_path(made.unwrap())
        };
        let (swap, second_swap) = (swap("swap.img"), swap("second-swap.img"));
        let growing = plain.add("growing.img", Bus::Blk, |path| {
            disk::empty(path, 8 << 20)?;
            Ok(std::fs::OpenOptions::new().write(true).open(path)?.set_len(16 << 20)?)
        });
        let growing = Disk::pci_path(growing.unwrap());
        let running = plain.boot().await.unwrap();
        let [volume, blank] = [volume, blank].map(Disk::pci_path);
        Self { running, volume, scsi, swap, second_swap, growing, blank }
    }

    pub(crate) fn kata(&self) -> &Kata {
        &self.running.kata
    }
}

#[tokio::test]
async fn every_rpc_does_what_runtimes_rely_on() {
    let _vm = in_vm();
    let bench = Bench::boot().await;
    let mut checks = Checks::default();

    sandbox::before(&mut checks, &bench).await;
    network::check(&mut checks, &bench).await;
    sandbox::created(&mut checks, &bench).await;
    checks
        .that("CreateContainer accepts the containers that the other checks use", async {
            bench.kata().create(&spec::pause(SANDBOX)).await?;
            bench.kata().start(SANDBOX).await?;
            bench.kata().create(&spec::container(MAIN, &["/bin/sh", "-c", WAITS])).await?;
            Ok(bench.kata().start(MAIN).await?)
        })
        .await;
    containers::check(&mut checks, &bench).await;
    processes::check(&mut checks, &bench).await;
    defects::check(&mut checks, &bench).await;
    resources::check(&mut checks, &bench).await;
    machine::check(&mut checks, &bench).await;
    files::check(&mut checks, &bench).await;
    storage::check(&mut checks, &bench).await;
    frames::check(&mut checks, &bench).await;
    sandbox::destroyed(&mut checks, &bench).await;

    let names: Vec<String> = checks.names().map(str::to_owned).collect();
    checks.finish(&bench.running.console()).unwrap();
    complete(&names);
}

/// Every RPC of the service is in the table of checks: accepting, and refusing.
fn complete(names: &[String]) {
    let proto = include_str!("../../../protocols/proto/agent.proto");
    let rpcs: BTreeSet<&str> = proto
        .lines()
        .filter_map(|line| line.trim().strip_prefix("rpc "))
        .filter_map(|line| line.split(['(', ' ']).next())
        .collect();
    let missing = |verb: &str, excused: &[&str]| -> Vec<&str> {
        let named = |rpc: &&str| !names.iter().any(|name| name.starts_with(&format!("{rpc} {verb}")));
        rpcs.iter().copied().filter(named).filter(|rpc| !excused.contains(rpc)).collect()
    };
    assert!(missing("accepts", &ABSENT).is_empty(), "no accepting check: {:?}", missing("accepts", &ABSENT));
    assert!(missing("refuses", &[]).is_empty(), "no refusing check: {:?}", missing("refuses", &[]));
}

/// What a guest of this kind doesn't have, and says so: no iptables program, no policy, no memory agent, no probe file
/// for memory.
const ABSENT: [&str; 6] = [
    "GetIPTables",
    "MemAgentCompactSet",
    "MemAgentMemcgSet",
    "MemHotplugByProbe",
    "SetIPTables",
    "SetPolicy",
];

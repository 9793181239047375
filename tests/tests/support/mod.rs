//! What the tests in a VM share: two VMs at a time, a pushed example, a pod that can be looked into.

#![allow(dead_code, reason = "each test file uses its part")]

use std::sync::{Condvar, Mutex, PoisonError};

use sealpod_tests::attempt::Stage;
use sealpod_tests::host::Host;
use sealpod_tests::installation::Installation;
use sealpod_tests::machine::Machine;
use sealpod_tests::world::World;

/// Two cores carry two emulated guests and what runs beside them.
const AT_ONCE: usize = 2;
static RUNNING: Mutex<usize> = Mutex::new(0);
static ENDED: Condvar = Condvar::new();

/// The right to run a VM; the next test gets it when this is dropped.
pub(crate) struct Permit(());

/// Waits for the right to run a VM.
pub(crate) fn in_vm() -> Permit {
    let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    let mut running =
        ENDED.wait_while(running, |running| *running >= AT_ONCE).unwrap_or_else(PoisonError::into_inner);
    *running += 1;
    Permit(())
}

impl Drop for Permit {
    fn drop(&mut self) {
        *RUNNING.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        ENDED.notify_one();
    }
}

/// The example, sealed with `grants` and pushed.
pub(crate) fn stage(grants: &[&str]) -> Stage {
    let example = Installation::repository().join("docs/examples/pod.yaml");
    Stage::set(&example, grants, &mut |_| {}).unwrap()
}

/// A pod that waits, with some commands granted, and the honest host that runs it.
pub(crate) fn inspected(arguments: &[&str]) -> (Stage, Host) {
    inspected_on(Machine::MILAN, arguments, &[])
}

/// The same on other machines, and with more arguments for `sealpod push`.
pub(crate) fn inspected_on(machine: Machine, arguments: &[&str], push: &[&str]) -> (Stage, Host) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/inspected.yaml");
    let granted = [
        "env",
        "ls /dev",
        "cat /proc/mounts",
        "cat /proc/1/cmdline",
        "cat /proc/1/status",
        "cat /proc/self/status",
        "busybox mknod /dev/random-source c 10 183",
        "cat /dev/random-source",
    ];
    let grants: Vec<String> = granted.iter().map(|command| format!("main={command}")).collect();
    let mut all = vec!["--grant-logs", "clear"];
    for grant in &grants {
        all.extend(["--grant-exec", grant]);
    }
    all.extend(arguments);
    let world = World::start_machine(machine).unwrap();
    let stage = Stage::set_with(world, &path, &all, push).unwrap();
    let host = stage.honest_host().unwrap();
    (stage, host)
}

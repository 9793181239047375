//! `-daemonize`: the exit code comes when the guest runs, and the guest is another process than the wrapper's.

use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::bench::{Bench, Run, alive};
use crate::broker::refusal;

fn start(bench: &Bench) -> (std::process::ExitStatus, String) {
    let mut words = bench.words();
    words.push("-daemonize".to_owned());
    let mut command = bench.command(&words);
    // The guest outlives the command: nothing of it is waited for.
    command.stdin(Stdio::null()).stdout(Stdio::null());
    Run::of(command).end()
}

fn guest(bench: &Bench) -> u64 {
    bench.record()[0]["pid"].as_u64().unwrap()
}

/// Kills the guest at the end of a test, however it ends.
struct Ended(u64);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.0 as i32), Signal::SIGKILL);
    }
}

#[test]
fn success_means_that_the_guest_runs() {
    let bench = Bench::new();
    let (status, errors) = start(&bench);
    let guest = Ended(guest(&bench));
    assert!(status.success(), "{errors}");
    assert_eq!(bench.commands().last().map(String::as_str), Some("cont"));
    assert!(alive(guest.0));
    assert_eq!(bench.left_over(), 0);
}

#[test]
fn a_refusal_ends_the_guest_and_the_command() {
    let bench = Bench::new();
    bench.broker.measurement(refusal("sealpod[LAUNCH_DIGEST]: 00 is not in policy web"));
    let (status, errors) = start(&bench);
    let guest = Ended(guest(&bench));
    assert_eq!(status.code(), Some(1));
    assert_eq!(errors, "sealpod[LAUNCH_DIGEST]: 00 is not in policy web\n");
    assert!(!alive(guest.0));
    assert_eq!(bench.left_over(), 0);
}

#[test]
fn a_monitor_that_makes_no_sense_ends_the_guest() {
    let mut bench = Bench::new();
    bench.answer("sev-inject-launch-secret", json!("x\n"));
    let (status, errors) = start(&bench);
    let guest = Ended(guest(&bench));
    assert_eq!(status.code(), Some(1));
    assert!(errors.contains("'sev-inject-launch-secret'"), "{errors}");
    assert!(!alive(guest.0));
}

#[test]
fn a_qemu_that_does_not_come_up_tells_its_own_exit_code() {
    let mut bench = Bench::new();
    bench.script("exit_at_start", json!(4));
    let (status, _) = start(&bench);
    // The scripted one's first process says 1 when its second doesn't come up.
    assert_eq!(status.code(), Some(1));
    assert_eq!(bench.left_over(), 0);
}

//! The packet filter's own programs under the agent's reaper: every status is heard, whatever else ends.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use agent_network::iptables::Program;
use nix::sched::{CloneFlags, unshare};
use sealpod_agent::reaper::Reaper;

const RULES: &str = "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -p tcp --dport 8080 -j ACCEPT\nCOMMIT\n";

/// One test: there is one reaper a process.
#[test]
fn forty_calls_in_a_row_succeed_while_other_children_end() {
    if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
        eprintln!("skipped: no network namespace: {error}");
        return;
    }
    let (Ok(save), Ok(restore)) = (Program::save(false), Program::restore(false)) else {
        eprintln!("skipped: no iptables");
        return;
    };
    nix::sys::prctl::set_child_subreaper(true).unwrap();
    // Threads made from now on are in the namespace too.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let reaper = Reaper::new();
        tokio::spawn(reaper.clone().run());
        let done = Arc::new(AtomicBool::new(false));
        let noise = tokio::spawn({
            let (reaper, done) = (reaper.clone(), done.clone());
            async move {
                while !done.load(Ordering::SeqCst) {
                    // A child, and an orphan that only the reaper hears of.
                    let mut other = Command::new("/bin/sh");
                    reaper.output(other.args(["-c", "true & exit 7"]), b"").await.unwrap();
                }
            }
        });
        for number in 0..40 {
            let ended = reaper.output(&mut restore.command(), RULES.as_bytes()).await.unwrap();
            let outcome = restore.outcome(ended.code, ended.stdout, &ended.stderr);
            assert!(outcome.is_ok(), "call {number}: {outcome:?}");
        }
        let ended = reaper.output(&mut save.command(), b"").await.unwrap();
        let rules = save.outcome(ended.code, ended.stdout, &ended.stderr).unwrap();
        assert!(String::from_utf8_lossy(&rules).contains("--dport 8080"));
        let ended = reaper.output(&mut restore.command(), b"no rules\n").await.unwrap();
        assert!(restore.outcome(ended.code, ended.stdout, &ended.stderr).is_err(), "nonsense is refused");
        done.store(true, Ordering::SeqCst);
        noise.await.unwrap();
    });
}

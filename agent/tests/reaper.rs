//! The reaper of a whole process: helper programs keep their statuses while orphans are reaped.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;

use sealpod_agent::reaper::Reaper;

/// One test: there is one reaper a process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn helper_programs_keep_their_statuses_while_orphans_are_reaped() {
    nix::sys::prctl::set_child_subreaper(true).unwrap();
    let reaper = Reaper::new();
    tokio::spawn(reaper.clone().run());
    let mut running = tokio::task::JoinSet::new();
    for number in 0..40u8 {
        let reaper = reaper.clone();
        running.spawn(async move {
            // Each leaves an orphan, which ends at about the same time.
            let script = "true & cat; echo complaint >&2; exit $0";
            let mut command = Command::new("/bin/sh");
            command.args(["-c", script, &number.to_string()]);
            let output = reaper.output(&mut command, &[number; 100_000]).await.unwrap();
            assert_eq!(output.code, i32::from(number));
            assert_eq!(output.stdout, [number; 100_000]);
            assert_eq!(output.stderr, b"complaint\n");
        });
    }
    while let Some(done) = running.join_next().await {
        done.unwrap();
    }
    let mut flood = Command::new("/bin/sh");
    flood.args(["-c", "while :; do echo 0123456789012345678901234567890123456789; done"]);
    assert!(reaper.output(&mut flood, b"").await.is_err(), "output is bounded");
    let missing = reaper.output(&mut Command::new("/nonexistent"), b"").await;
    assert_eq!(missing.unwrap_err().kind(), std::io::ErrorKind::NotFound);
}

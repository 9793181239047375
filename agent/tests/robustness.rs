//! What goes wrong beside a container, and what is left of it: nothing, and nobody else notices.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod bed;

use std::collections::BTreeSet;
use std::fs;

use bed::{Bed, bed, children, code, directories, eventually, process, soon};
use libcontainer::oci_spec::runtime::{HookBuilder, HooksBuilder, Spec};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use protocols::health::CheckRequest;

/// A specification whose creation waits in a hook until the file is there.
fn stuck(bed: &Bed, id: &str) -> (Spec, std::path::PathBuf) {
    let gate = bed.directory.join(format!("gate-{id}"));
    let script = format!("while ! [ -e {} ]; do sleep 0.02; done", gate.display());
    let hook = HookBuilder::default()
        .path("/bin/sh")
        .args(["sh".to_owned(), "-c".to_owned(), script])
        .env(["PATH=/usr/bin:/bin".to_owned()])
        .build()
        .unwrap();
    let mut spec = bed.spec(id, "exit 0");
    spec.set_hooks(Some(HooksBuilder::default().create_runtime(vec![hook]).build().unwrap()));
    (spec, gate)
}

fn helpers() -> BTreeSet<i32> {
    let is_helper = |pid: &i32| {
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.contains("launch-helper")
    };
    children().into_keys().filter(is_helper).collect()
}

#[test]
fn a_stuck_create_blocks_nobody() {
    bed(|bed| async move {
        let (spec, gate) = stuck(&bed, "c1");
        let making = tokio::spawn({
            let bed = bed.clone();
            async move { bed.make("c1", &spec).await }
        });
        eventually("the create is under way", || helpers().len() >= 2).await;
        bed.health.check(soon(), &CheckRequest::new()).await.unwrap();
        bed.run("c2", "exit 6").await;
        assert_eq!(bed.wait("c2", "").await, 6);
        assert_eq!(code(bed.start("c1").await), ttrpc::Code::INTERNAL, "there is no such container yet");
        assert!(bed.make("c1", &bed.spec("c1", "exit 0")).await.unwrap_err().contains("exists already"));
        assert!(!making.is_finished());
        fs::write(gate, "").unwrap();
        making.await.unwrap().unwrap();
        bed.start("c1").await.unwrap();
        assert_eq!(bed.wait("c1", "").await, 0);
    });
}

#[test]
fn a_worker_that_dies_half_way_leaves_nothing_behind() {
    bed(|bed| async move {
        bed.run("c0", "exit 0").await;
        // Until it is another program, its first process looks like a helper.
        assert_eq!(bed.wait("c0", "").await, 0);
        let warm = helpers();
        let (spec, gate) = stuck(&bed, "c1");
        let gate = gate.display().to_string();
        let making = tokio::spawn({
            let bed = bed.clone();
            async move { bed.make("c1", &spec).await }
        });
        eventually("the create is in its hook", || !helpers().is_subset(&warm)).await;
        for worker in helpers().difference(&warm) {
            kill(Pid::from_raw(*worker), Signal::SIGKILL).unwrap();
        }
        let error = making.await.unwrap().unwrap_err();
        assert!(error.contains("try again"), "{error}");
        assert!(directories(&format!("{}/c1", bed.cgroup)).is_empty(), "no cgroup is left");
        assert!(!bed.directory.join("state/launch/state/c1").exists());
        eventually("no process is left", || {
            !fs::read_dir("/proc").unwrap().flatten().any(|entry| {
                let line = fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
                line.contains(&gate)
            })
        })
        .await;
        // The id is free, the helper lives.
        bed.run("c1", "exit 0").await;
        assert_eq!(bed.wait("c1", "").await, 0);
    });
}

#[test]
fn a_helper_that_dies_is_replaced() {
    bed(|bed| async move {
        bed.run("c1", "echo up; exec sleep 1000").await;
        // Until it is another program, its first process looks like a helper.
        bed.until("c1", "", "up").await;
        for helper in helpers() {
            kill(Pid::from_raw(helper), Signal::SIGKILL).unwrap();
        }
        bed.run("c2", "exit 8").await;
        assert_eq!(bed.wait("c2", "").await, 8);
        bed.exec("c1", "e1", process(&["/bin/true"])).await.unwrap();
        assert_eq!(bed.wait("c1", "e1").await, 0);
    });
}

#[test]
fn an_error_stalls_nobody() {
    bed(|bed| async move {
        bed.run("c1", "read word; exit 3").await;
        // Asked first, answered while an error and a wait of another call are under way.
        let waiting = tokio::spawn({
            let bed = bed.clone();
            async move { bed.wait("c1", "").await }
        });
        for _ in 0..20 {
            let (error, check) =
                tokio::join!(bed.start("c1"), async { bed.health.check(soon(), &CheckRequest::new()).await });
            assert_eq!(code(error), ttrpc::Code::INTERNAL);
            check.unwrap();
        }
        assert!(!waiting.is_finished());
        bed.write("c1", "", b"go\n").await.unwrap();
        assert_eq!(waiting.await.unwrap(), 3);
    });
}

/// What a run of containers could leave behind in this process.
#[derive(Debug, PartialEq, Eq)]
struct Traces {
    descriptors: usize,
    mounts: usize,
    children: usize,
    zombies: usize,
}

fn traces() -> Traces {
    let children = children();
    Traces {
        descriptors: fs::read_dir("/proc/self/fd").unwrap().count(),
        mounts: fs::read_to_string("/proc/thread-self/mountinfo").unwrap().lines().count(),
        children: children.len(),
        zombies: children.values().filter(|state| **state == 'Z').count(),
    }
}

#[test]
fn containers_that_came_and_went_leave_no_trace() {
    bed(|bed| async move {
        let round = async |number: usize| {
            let id = format!("c{number}");
            // Each leaves an orphan, which the first process doesn't wait for.
            bed.run(&id, "sleep 1000 & echo hello; exit 0").await;
            assert_eq!(bed.output(&id, "").await, "hello\n");
            assert_eq!(bed.wait(&id, "").await, 0);
            bed.remove(&id).await.unwrap();
        };
        round(0).await;
        let before = traces();
        for number in 1..=30 {
            round(number).await;
        }
        eventually("everything is as before", || traces() == before).await;
    });
}

//! Processes of real containers through the API: streams, signals, statuses, terminals, execs.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod bed;

use bed::{bed, code, process};
use libcontainer::oci_spec::runtime::{
    LinuxNamespaceBuilder, LinuxNamespaceType, PosixRlimitBuilder, PosixRlimitType, UserBuilder,
};
use protocols::agent as wire;

#[test]
fn a_container_runs_once_and_everyone_hears_how_it_ended() {
    bed(|bed| async move {
        bed.make("c1", &bed.spec("c1", "echo out; echo err >&2; exit 3")).await.unwrap();
        let early = tokio::spawn({
            let bed = bed.clone();
            async move { bed.wait("c1", "").await }
        });
        bed.start("c1").await.unwrap();
        assert_eq!(bed.output("c1", "").await, "out\n");
        assert_eq!(bed.read_error("c1", "").await, b"err\n");
        assert!(bed.read_error("c1", "").await.is_empty());
        assert_eq!(early.await.unwrap(), 3);
        assert_eq!(bed.wait("c1", "c1").await, 3, "the Go runtime's name for the first process, and late");
        assert_eq!(code(bed.signal("c1", "", 15).await), ttrpc::Code::NOT_FOUND);
        assert_eq!(code(bed.signal("c2", "", 15).await), ttrpc::Code::INVALID_ARGUMENT);
        assert_eq!(code(bed.signal("c1", "e1", 15).await), ttrpc::Code::NOT_FOUND);
        bed.remove("c1").await.unwrap();
        assert_eq!(code(bed.remove("c1").await), ttrpc::Code::INTERNAL);
    });
}

#[test]
fn a_second_start_fails_at_once_and_nobody_hangs() {
    bed(|bed| async move {
        bed.run("c1", "read word; exit 4").await;
        assert_eq!(code(bed.start("c1").await), ttrpc::Code::INTERNAL);
        bed.run("c2", "exit 0").await;
        assert_eq!(bed.wait("c2", "").await, 0);
        assert_eq!(bed.write("c1", "", b"go\n").await.unwrap(), 3);
        assert_eq!(bed.wait("c1", "").await, 4, "the first start stands");
    });
}

#[test]
fn a_duplicate_create_leaves_the_running_container_alone() {
    bed(|bed| async move {
        bed.run("c1", "read word; exit 5").await;
        let again = bed.make("c1", &bed.spec("c1", "exit 0")).await.unwrap_err();
        assert!(again.contains("exists already"), "{again}");
        bed.write("c1", "", b"go\n").await.unwrap();
        assert_eq!(bed.wait("c1", "").await, 5);
    });
}

#[test]
fn what_the_host_writes_is_read_in_order_and_nothing_else_waits() {
    bed(|bed| async move {
        bed.run("c1", "cat; echo; echo end").await;
        // More than the pipes hold: the write waits until somebody reads.
        let big = vec![b'x'; 1024 * 1024];
        let writing = tokio::spawn({
            let (bed, big) = (bed.clone(), big.clone());
            async move {
                bed.write("c1", "", &big).await.unwrap();
                assert_eq!(bed.write("c1", "", b"").await.unwrap(), 0, "empty data closes");
            }
        });
        bed.run("c2", "exit 0").await;
        assert_eq!(bed.wait("c2", "").await, 0, "meanwhile another container lives and ends");
        let output = bed.output("c1", "").await;
        assert_eq!(output.len(), big.len() + "\nend\n".len());
        assert!(output.ends_with("x\nend\n"));
        writing.await.unwrap();
        assert_eq!(code(bed.write("c1", "", b"late").await), ttrpc::Code::INTERNAL);
        // The end of a process ends a write that waits for it.
        bed.run("c3", "echo up; sleep 1000").await;
        bed.until("c3", "", "up").await;
        let writing = tokio::spawn({
            let bed = bed.clone();
            async move { code(bed.write("c3", "", &big).await) }
        });
        bed.signal("c3", "", libc::SIGKILL).await.unwrap();
        assert_eq!(writing.await.unwrap(), ttrpc::Code::INTERNAL);
        let mut close = wire::CloseStdinRequest::new();
        close.container_id = "c3".into();
        bed.agent.close_stdin(bed::soon(), &close).await.unwrap();
    });
}

#[test]
fn a_terminal_has_a_size_and_one_stream() {
    bed(|bed| async move {
        // The trap interrupts `read`.
        let script = "tty; trap 'stty size' WINCH; echo ready; while :; do read word && echo got $word; done";
        let mut spec = bed.spec("c1", script);
        let mut first = spec.process().clone().unwrap();
        first.set_terminal(Some(true));
        spec.set_process(Some(first));
        bed.make("c1", &spec).await.unwrap();
        bed.start("c1").await.unwrap();
        let shown = bed.until("c1", "", "ready").await;
        assert!(shown.starts_with("/dev/pts/0"), "{shown}");
        assert!(bed.read_error("c1", "").await.is_empty(), "standard error is closed at once");
        let mut resize = wire::TtyWinResizeRequest::new();
        resize.container_id = "c1".into();
        (resize.row, resize.column) = (33, 123);
        bed.agent.tty_win_resize(bed::soon(), &resize).await.unwrap();
        bed.write("c1", "", b"word\n").await.unwrap();
        assert!(bed.until("c1", "", "got word").await.contains("33 123"));
        // Another one beside it, in the running container.
        let mut shell = process(&["/bin/sh", "-c", "tty; stty size; read word; echo $word"]);
        shell.set_terminal(Some(true));
        bed.exec("c1", "e1", shell).await.unwrap();
        resize.exec_id = "e1".into();
        bed.agent.tty_win_resize(bed::soon(), &resize).await.unwrap();
        assert!(bed.until("c1", "e1", "/dev/pts/").await.contains("/dev/pts/1"));
        bed.write("c1", "e1", b"hello\n").await.unwrap();
        assert_eq!(bed.output("c1", "e1").await.matches("hello\r\n").count(), 2, "echoed and written");
        assert_eq!(bed.wait("c1", "e1").await, 0);
        bed.run("c2", "sleep 1000").await;
        resize.container_id = "c2".into();
        resize.exec_id.clear();
        assert_eq!(code(bed.agent.tty_win_resize(bed::soon(), &resize).await), ttrpc::Code::UNAVAILABLE);
    });
}

#[test]
fn signals_end_what_they_are_meant_for() {
    bed(|bed| async move {
        bed.run("c1", "sleep 1000 & echo up; wait").await;
        bed.until("c1", "", "up").await;
        bed.exec("c1", "e1", process(&["/bin/sleep", "1000"])).await.unwrap();
        bed.signal("c1", "e1", libc::SIGHUP).await.unwrap();
        assert_eq!(bed.wait("c1", "e1").await, 129, "any signal on the plain path");
        // Also one without a name, as systemd's stop signal.
        bed.exec("c1", "e2", process(&["/bin/sleep", "1000"])).await.unwrap();
        bed.signal("c1", "e2", 37).await.unwrap();
        assert_eq!(bed.wait("c1", "e2").await, 128 + 37);
        assert_eq!(code(bed.signal("c1", "", 0).await), ttrpc::Code::INTERNAL);
        // The first process of a namespace has no handler for TERM, so the kernel would drop it.
        bed.signal("c1", "", libc::SIGTERM).await.unwrap();
        assert_eq!(bed.wait("c1", "").await, 137);
        // One with a handler decides for itself.
        bed.run("c2", "trap 'exit 7' TERM; echo up; while :; do sleep 0.02; done").await;
        bed.until("c2", "", "up").await;
        bed.signal("c2", "", libc::SIGTERM).await.unwrap();
        assert_eq!(bed.wait("c2", "").await, 7);
        // KILL takes everything in the cgroup, whatever session it is in.
        bed.run("c3", "setsid sleep 1000 & echo up; wait").await;
        bed.until("c3", "", "up").await;
        bed.exec("c3", "e1", process(&["/bin/sleep", "1000"])).await.unwrap();
        bed.signal("c3", "", libc::SIGKILL).await.unwrap();
        assert_eq!(bed.wait("c3", "").await, 137);
        assert_eq!(bed.wait("c3", "e1").await, 137);
    });
}

#[test]
fn an_exec_is_what_the_host_says() {
    bed(|bed| async move {
        let mut spec = bed.spec("c1", "exec sleep 1000");
        // Two entries of a kind, as some runtimes send them.
        let mut linux = spec.linux().clone().unwrap();
        let mut namespaces = linux.namespaces().clone().unwrap();
        namespaces.push(LinuxNamespaceBuilder::default().typ(LinuxNamespaceType::Pid).build().unwrap());
        linux.set_namespaces(Some(namespaces));
        spec.set_linux(Some(linux));
        bed.make("c1", &spec).await.unwrap();
        assert!(bed.exec("c1", "e0", process(&["/bin/true"])).await.unwrap_err().contains("does not run"));
        bed.start("c1").await.unwrap();
        let script = "id -u; id -g; id -G; pwd; echo $WORD; ulimit -n; grep NoNewPrivs /proc/self/status; \
                      cat /proc/1/comm; cat /proc/self/oom_score_adj; exit 9";
        let mut shell = process(&["sh", "-c", script]);
        let user =
            UserBuilder::default().uid(1000u32).gid(1001u32).additional_gids([5u32, 6]).build().unwrap();
        shell.set_user(user);
        shell.set_cwd("/tmp".into());
        shell.set_env(Some(vec!["PATH=/bin".into(), "WORD=set".into()]));
        let limit = PosixRlimitBuilder::default()
            .typ(PosixRlimitType::RlimitNofile)
            .soft(77u64)
            .hard(88u64)
            .build()
            .unwrap();
        shell.set_rlimits(Some(vec![limit]));
        shell.set_no_new_privileges(Some(true));
        shell.set_oom_score_adj(Some(321));
        shell.set_capabilities(None);
        bed.exec("c1", "e1", shell).await.unwrap();
        let output = bed.output("c1", "e1").await;
        let lines: Vec<_> = output.lines().collect();
        assert_eq!(
            lines,
            ["1000", "1001", "1001 5 6", "/tmp", "set", "77", "NoNewPrivs:\t1", "sleep", "321"],
            "{}",
            String::from_utf8_lossy(&bed.read_error("c1", "e1").await)
        );
        assert_eq!(bed.wait("c1", "e1").await, 9);
        assert_eq!(bed.wait("c1", "e1").await, 9, "for late waiters too");
        bed.exec("c1", "e1", process(&["/bin/true"])).await.unwrap();
        assert_eq!(bed.wait("c1", "e1").await, 0, "an id that was waited for is free again");
        let missing = bed.exec("c1", "e2", process(&["/bin/no-such"])).await.unwrap_err();
        assert!(missing.contains("not in the image"), "{missing}");
        let left = std::fs::read_dir(bed.directory.join("state/launch/state/c1")).unwrap().count();
        assert!(left <= 3, "execs leave nothing behind");
    });
}

#[test]
fn fifty_execs_write_a_megabyte_each_and_no_byte_is_lost() {
    bed(|bed| async move {
        bed.run("c1", "sleep 1000").await;
        let mut running = tokio::task::JoinSet::new();
        for number in 0..50 {
            let bed = bed.clone();
            running.spawn(async move {
                let exec = format!("e{number}");
                let line = format!("{number:063}");
                let script = format!("yes {line} | head -n 16384; exit {number}");
                bed.exec("c1", &exec, process(&["/bin/sh", "-c", &script])).await.unwrap();
                let output = bed.output("c1", &exec).await;
                assert_eq!(output.len(), 1024 * 1024);
                assert!(output.lines().all(|l| l == line));
                assert!(
                    bed.read_error("c1", &exec).await.is_empty(),
                    "yes died of its closed pipe, silently"
                );
                assert_eq!(bed.wait("c1", &exec).await, number);
            });
        }
        while let Some(done) = running.join_next().await {
            done.unwrap();
        }
    });
}

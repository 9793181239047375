//! The main job in a VM: a pod is sealed, its key released by policy, and it runs as sealed.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;

use sealpod_tests::host::Host;
use sealpod_tests::process::Finished;
use support::{in_vm, inspected, stage};

#[test]
fn the_example_pod_runs_as_sealed() {
    let _vm = in_vm();
    let stage = stage(&["--grant-logs", "clear"]);
    let mut command = stage.owner.run(&stage.sealed, &stage.guest, &stage.world.relay_socket());
    let finished = Finished::of(command.arg("--state").arg(stage.state())).unwrap();
    for line in [
        "wrote the price list of Acme Truffles",
        "api: user 1000, groups 1000 2000, host orders, greeting: hello from the image",
        "api: price list: truffle 95.00",
        "api: invoice: customer 4711 owes 95.00",
        "billing: done",
    ] {
        assert!(
            finished.stdout.contains(line),
            "{line:?} is missing in\n{}{}",
            finished.stdout,
            finished.stderr
        );
    }
    assert_eq!(finished.status.code(), Some(3), "{}", finished.stderr);

    let log = stage.world.directory().join("audit.jsonl");
    stage.world.broker().export_audit(&log).unwrap();
    let verify = |log| Finished::of(stage.owner.command("audit").arg("verify").arg(log)).unwrap();
    verify(&log).success("sealpod audit verify").unwrap();
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(text.contains("key.released"), "no release in the audit log:\n{text}");
    assert!(text.contains("emulated"), "the verdict does not say that it was emulated:\n{text}");

    // A log with one record less no longer holds what the owner's checkpoint saw.
    let shortened = stage.world.directory().join("shortened.jsonl");
    let lines: Vec<&str> = text.lines().collect();
    std::fs::write(&shortened, lines[1..].join("\n")).unwrap();
    assert!(!verify(&shortened).status.success());
}

#[test]
fn output_stays_inside_without_the_grant() {
    let _vm = in_vm();
    let stage = stage(&[]);
    let mut command = stage.owner.run(&stage.sealed, &stage.guest, &stage.world.relay_socket());
    let finished = Finished::of(command.arg("--state").arg(stage.state())).unwrap();
    assert_eq!(finished.status.code(), Some(3), "{}", finished.stderr);
    assert!(!finished.stdout.contains("api:"), "{}", finished.stdout);
    assert!(!finished.stderr.contains("price list"), "{}", finished.stderr);
}

#[tokio::test]
async fn what_the_host_adds_is_not_in_the_container() {
    let _vm = in_vm();
    let (stage, mut host) = inspected(&[]);
    host.knobs.extra_env = vec!["LD_PRELOAD=/host/evil.so".to_owned()];
    host.knobs.args = Some(vec!["/bin/sh".to_owned(), "-c".to_owned(), "echo the host was here".to_owned()]);
    let files = BTreeMap::from([("evil.so".to_owned(), b"not a library".to_vec())]);
    host.knobs.extra_mount = Some(("/host".to_owned(), files));
    let mut running = host.boot(&stage.state()).await.unwrap();
    running.pod.start_sandbox().await.unwrap_or_else(|error| panic!("{error}\n{}", running.console()));
    running.pod.run_init_containers().await.unwrap();
    let containers = running.pod.start_containers().await.unwrap();

    let run = async |command: &[&str]| {
        let command: Vec<String> = command.iter().map(|&word| word.to_owned()).collect();
        running.pod.exec("main", &command).await?.wait().await
    };
    let environment = run(&["env"]).await.unwrap();
    let text = String::from_utf8(environment.stdout).unwrap();
    assert!(text.contains("COLOUR=sealed blue") && !text.contains("LD_PRELOAD"), "{text}");
    let mounts = String::from_utf8(run(&["cat", "/proc/mounts"]).await.unwrap().stdout).unwrap();
    assert!(mounts.contains(" / overlay") && !mounts.contains(" /host "), "{mounts}");
    let devices = String::from_utf8(run(&["ls", "/dev"]).await.unwrap().stdout).unwrap();
    assert!(devices.contains("null") && !devices.contains("sev") && !devices.contains("vsock"), "{devices}");
    let arguments = String::from_utf8(run(&["cat", "/proc/1/cmdline"]).await.unwrap().stdout).unwrap();
    assert!(arguments.contains("sleep") && !arguments.contains("the host was here"), "{arguments:?}");

    // A process started by exec is confined as the first one is, and that one is confined.
    let confinement = |status: Vec<u8>| {
        let lines = String::from_utf8(status).unwrap();
        let names = ["Uid:", "Gid:", "Groups:", "Cap", "NoNewPrivs:", "Seccomp:"];
        let kept = lines.lines().filter(|line| names.iter().any(|name| line.starts_with(name)));
        kept.map(str::to_owned).collect::<Vec<_>>()
    };
    let first = confinement(run(&["cat", "/proc/1/status"]).await.unwrap().stdout);
    let started = confinement(run(&["cat", "/proc/self/status"]).await.unwrap().stdout);
    assert_eq!(first, started);
    let line = |name: &str| first.iter().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    assert_eq!(line("Seccomp:"), "2");
    let bounding = u64::from_str_radix(&line("CapBnd:"), 16).unwrap();
    // SYS_ADMIN, SYS_PTRACE, SYS_MODULE, SYS_RAWIO, DAC_READ_SEARCH, BPF.
    assert_eq!(bounding & (1 << 21 | 1 << 19 | 1 << 16 | 1 << 17 | 1 << 2 | 1 << 39), 0, "{first:?}");

    // Root may make any device node, as in every container, and open none but those that all have.
    let made = run(&["busybox", "mknod", "/dev/random-source", "c", "10", "183"]).await.unwrap();
    assert_eq!(made.exit_code, 0);
    let opened = run(&["cat", "/dev/random-source"]).await.unwrap();
    let words = String::from_utf8_lossy(&opened.stderr).into_owned();
    assert!(opened.exit_code != 0 && words.contains("not permitted"), "{words}");

    // The probe's placeholder stands for the sealed command, with its exit code.
    let probe = run(&["/sealpod", "probe", "main/liveness"]).await.unwrap();
    assert_eq!((probe.exit_code, probe.stdout.as_slice()), (7, b"probed\n".as_slice()));
    // Anything else is refused, and the pod goes on.
    for command in
        [&["/bin/sh", "-c", "env"][..], &["env", "-0"], &["/sealpod", "probe", "main/startup"], &[]]
    {
        let error = run(command).await.unwrap_err();
        let code = error.refusal().map(|refusal| refusal.code);
        assert_eq!(code, Some(protocols::refusal::Code::ExecDenied), "{command:?}: {error}");
    }
    run(&["env"]).await.unwrap();

    running.pod.signal("main", 15).await.unwrap();
    let outcome = containers.into_iter().next().unwrap().wait().await.unwrap();
    assert_eq!(outcome.exit_code, 143);
    assert!(running.end().await.unwrap(), "the guest did not power off by itself");
}

#[tokio::test]
async fn guests_leave_nothing_behind_on_the_host() {
    let _vm = in_vm();
    let (stage, host) = inspected(&[]);
    let running = host.boot(&stage.state()).await.unwrap();
    let (pid, socket) = (running.guest.qemu_pid(), running.guest.vsock_socket());
    assert!(socket.exists());
    // As after a failure in the middle: nothing is asked to end.
    drop(running);
    assert!(!socket.exists(), "{} is left", socket.display());
    let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    assert!(!status.contains("qemu"), "QEMU still runs: {status}");
    drop(Host::honest(&stage.sealed.manifest, &stage.guest, &stage.world.relay_socket()).unwrap());
}

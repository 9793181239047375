//! The good order, and that the runtime notices nothing of the wrapper.

use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::bench::{Bench, INITDATA, Run, capabilities, launch, measurement};
use crate::broker::{Answer, MEASUREMENTS, SESSIONS, session};

#[test]
fn a_guest_runs_with_the_brokers_secret_and_nothing_stays() {
    let bench = Bench::new();
    let mut run = bench.start();
    run.wait_for_guest();
    let pid = run.child.id();

    let (path, session) = bench.broker.asked.recv().unwrap();
    assert_eq!(path, SESSIONS);
    let platform = capabilities();
    assert_eq!(
        session,
        json!({
            "init_data": INITDATA, "es": true, "pdh": platform["pdh"], "cert_chain": platform["cert-chain"],
            "cpu0_id": platform["cpu0-id"],
        })
    );
    let (path, measured) = bench.broker.asked.recv().unwrap();
    assert_eq!(path, MEASUREMENTS);
    assert_eq!(
        measured,
        json!({
            "session": "00112233445566778899aabbccddeeff", "api_major": 1, "api_minor": 55, "build": 21,
            "policy": 5, "measurement": measurement(),
        })
    );
    assert!(bench.broker.asked.try_recv().is_err());

    let record = bench.record();
    let started: Vec<String> = serde_json::from_value(record[0]["started"].clone()).unwrap();
    // The runtime's words, then ours.
    assert_eq!(started[..12], bench.words());
    assert_eq!((started[12].as_str(), started[13].as_str()), ("-S", "-object"));
    assert!(started[14].starts_with("sev-guest,id=sealpod0,cbitpos=47,reduced-phys-bits=5,policy=0x5,"));
    assert!(started[14].ends_with(",kernel-hashes=on"));
    // QEMU has the pid that the runtime knows.
    assert_eq!(record[0]["pid"], json!(pid));
    let file = |name: &str| record[0]["files"][name].clone();
    let private = |text: &str| json!({ "text": text, "mode": 0o600, "directory": 0o700 });
    assert_eq!(file("dh-cert-file"), private("Z29kaA=="));
    assert_eq!(file("session-file"), private("YmxvYg=="));
    assert_eq!(
        bench.commands(),
        ["qmp_capabilities", "query-sev", "query-sev-launch-measure", "sev-inject-launch-secret", "cont"]
    );
    assert_eq!(record[4]["arguments"], json!({ "packet-header": "aGVhZGVy", "secret": "c2VjcmV0" }));

    // Standard input reaches QEMU, its exit code the runtime.
    let (status, errors) = run.power_off();
    assert_eq!((status.code(), errors.as_str()), (Some(7), ""));
    assert_eq!(bench.left_over(), 0);
}

#[test]
fn a_caller_that_wants_the_guest_paused_gets_it_paused() {
    let bench = Bench::new();
    let mut words = bench.words();
    words.push("-S".to_owned());
    let mut run = Run::of(bench.command(&words));
    run.wait_for_guest();
    assert_eq!(bench.commands().last().map(String::as_str), Some("sev-inject-launch-secret"));
    run.power_off();
}

#[test]
fn signals_reach_the_guest() {
    let bench = Bench::new();
    let mut run = bench.start();
    run.wait_for_guest();
    kill(Pid::from_raw(run.child.id() as i32), Signal::SIGTERM).unwrap();
    let (status, _) = run.end();
    assert_eq!(status.signal(), Some(Signal::SIGTERM as i32));
}

#[test]
fn a_platform_file_stands_for_the_probe() {
    let mut bench = Bench::new();
    bench.answer("query-sev-capabilities", json!("the guest's QEMU isn't asked\n"));
    let platform = json!({ "pdh": "cGRo", "cert_chain": "Y2hhaW4=", "cbitpos": 51, "reduced_phys_bits": 1 });
    std::fs::write(bench.path("platform.json"), platform.to_string()).unwrap();
    bench.set("platform", "platform.json");
    bench.set("reduced_phys_bits", 3);
    let mut run = bench.start();
    run.wait_for_guest();
    let (_, session) = bench.broker.asked.recv().unwrap();
    assert_eq!((&session["pdh"], &session["cpu0_id"]), (&json!("cGRo"), &json!("")));
    let object = bench.record()[0]["started"][14].clone();
    assert!(object.as_str().unwrap().contains("cbitpos=51,reduced-phys-bits=3"));
    run.power_off();
}

#[test]
fn the_platform_can_be_printed() {
    let bench = Bench::new();
    drop(bench.command(&[]));
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_sealpod-relay"));
    command.env("SEALPOD_RELAY_CONFIG", bench.path("relay.toml")).arg("sev-platform");
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let platform: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(platform["cert_chain"], capabilities()["cert-chain"]);
    assert_eq!(bench.left_over(), 0);
}

#[test]
fn without_es_in_the_settings_the_callers_policy_says() {
    for (object, es, policy) in [("sev-guest,id=sev,policy=0x4", true, 5), ("sev-guest,id=sev", false, 1)] {
        let mut bench = Bench::new();
        bench.unset("es");
        bench.broker.session(Answer::Json(session(policy)));
        let mut state = launch();
        state["policy"] = json!(policy);
        bench.answer("query-sev", state);
        let mut words = bench.words();
        words.extend(["-object".to_owned(), object.to_owned()]);
        let mut run = Run::of(bench.command(&words));
        run.wait_for_guest();
        let (_, session) = bench.broker.asked.recv().unwrap();
        assert_eq!(session["es"], json!(es), "{object}");
        run.power_off();
    }
}

#[test]
fn questions_go_to_the_real_qemu() {
    let bench = Bench::new();
    let output = bench.command(&["--version".to_owned()]).output().unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(3), &b"scripted\n"[..]));
    // Under its other name, with the words alone.
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_sealpod-relay"));
    command
        .arg0("/usr/bin/sealpod-qemu")
        .arg("--version")
        .env("SEALPOD_RELAY_CONFIG", bench.path("relay.toml"));
    assert_eq!(command.output().unwrap().status.code(), Some(3));
    assert!(bench.broker.paths().is_empty());
}

#[test]
fn two_guests_at_once_don_t_meet() {
    let bench = Bench::new();
    let (mut one, mut two) = (bench.start(), bench.start());
    one.wait_for_guest();
    two.wait_for_guest();
    let record = bench.record();
    let mut pids: Vec<_> = record.iter().filter_map(|event| event["pid"].as_u64()).collect();
    let mut started = [u64::from(one.child.id()), u64::from(two.child.id())];
    pids.sort_unstable();
    started.sort_unstable();
    assert_eq!(pids, started);
    one.power_off();
    two.power_off();
    assert_eq!(bench.left_over(), 0);
}

#[test]
fn what_a_killed_launch_left_is_swept() {
    let bench = Bench::new();
    let left = bench.path("run/launch-999999999-1");
    std::fs::create_dir_all(&left).unwrap();
    std::fs::write(left.join("session"), "old").unwrap();
    let mut run = bench.start();
    run.wait_for_guest();
    run.power_off();
    assert_eq!(bench.left_over(), 0);
}

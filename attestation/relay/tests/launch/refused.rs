//! Every way in which a launch goes wrong: no guest runs, what was started is gone, one line says why, and no file
//! stays.

use std::os::unix::process::ExitStatusExt as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::bench::{Bench, Run, launch};
use crate::broker::{Answer, MEASUREMENTS, SESSIONS, packet, refusal, session};

/// A launch that ends before QEMU starts: exit code 1 and this text.
fn refused_before(bench: &Bench, words: &[String], named: &str) {
    let (status, errors) = Run::of(bench.command(words)).end();
    assert_eq!(status.code(), Some(1), "{errors}");
    assert!(errors.contains(named) && errors.lines().count() == 1, "{named}: {errors}");
    assert!(bench.record().is_empty());
    assert_eq!(bench.left_over(), 0);
}

/// A launch whose paused QEMU is killed.
fn killed(bench: &Bench, named: &str) {
    let (status, errors) = bench.start().end();
    assert_eq!(status.signal(), Some(Signal::SIGKILL as i32), "{named}: {errors}");
    assert!(errors.contains(named) && errors.lines().count() == 1, "{named}: {errors}");
    assert!(!bench.commands().iter().any(|command| command == "cont") || named.contains("cont"), "{named}");
    assert_eq!(bench.left_over(), 0);
}

#[test]
fn a_refused_session_starts_no_guest() {
    let bench = Bench::new();
    bench.broker.session(refusal("sealpod[REVISION_RETIRED]: revision 3 of web was retired"));
    refused_before(&bench, &bench.words(), "sealpod[REVISION_RETIRED]: revision 3 of web was retired");
    assert_eq!(bench.broker.paths(), [SESSIONS]);
}

#[test]
fn a_refused_measurement_ends_the_guest_and_is_not_asked_for_again() {
    let bench = Bench::new();
    bench.broker.measurement(refusal("sealpod[LAUNCH_DIGEST]: 00 is not in policy web"));
    killed(&bench, "sealpod[LAUNCH_DIGEST]: 00 is not in policy web");
    assert_eq!(bench.broker.paths(), [SESSIONS, MEASUREMENTS]);
    assert_eq!(bench.commands(), ["qmp_capabilities", "query-sev", "query-sev-launch-measure"]);
}

#[test]
fn sessions_that_make_no_sense_start_no_guest() {
    let with = |field: &str, value: Value| {
        let mut answer = session(5);
        answer[field] = value;
        Answer::Json(answer)
    };
    for (answer, named) in [
        (with("session", json!("0011")), "32 hexadecimal digits"),
        (with("session", json!("00112233445566778899aabbccddee/.")), "32 hexadecimal digits"),
        (with("godh", json!("../../etc/passwd")), "godh"),
        (with("godh", json!("")), "godh"),
        (with("session_blob", json!(STANDARD.encode([0; 8192]))), "session_blob"),
        (with("policy", json!(1)), "other one of SEV and SEV-ES"),
        (with("policy", json!(1_u64 << 32)), "not the expected JSON"),
        (with("more", json!(1)), "not the expected JSON"),
        (Answer::Raw(200, "[".to_owned()), "not the expected JSON"),
        (Answer::Raw(200, " ".repeat(128 * 1024)), "length limit"),
        (Answer::Raw(502, "nginx".to_owned()), "status 502"),
    ] {
        let bench = Bench::new();
        bench.broker.session(answer);
        refused_before(&bench, &bench.words(), named);
        assert_eq!(bench.broker.paths(), [SESSIONS]);
    }
}

#[test]
fn packets_that_make_no_sense_end_the_guest() {
    let mut long = packet();
    long["secret"] = json!(STANDARD.encode(vec![0; 32 * 1024]));
    for (answer, named) in [
        (Answer::Json(json!({ "packet_header": "!", "secret": "c2VjcmV0" })), "base64"),
        (Answer::Json(json!({ "packet_header": "aGVhZGVy", "secret": "" })), "base64"),
        (Answer::Json(long), "base64"),
        (Answer::Json(json!({})), "not the expected JSON"),
    ] {
        let bench = Bench::new();
        bench.broker.measurement(answer);
        killed(&bench, named);
    }
}

#[test]
fn every_answer_of_the_monitor_can_be_wrong() {
    let state = |field: &str, value: Value| {
        let mut state = launch();
        state[field] = value;
        state
    };
    let error = "{\"error\": {\"class\": \"GenericError\", \"desc\": \"no\"}, \"id\": ID}\n";
    for (command, answer, named, measured) in [
        ("qmp_capabilities", json!(error), "refused 'qmp_capabilities': GenericError: no", false),
        ("query-sev", json!(error), "refused 'query-sev': GenericError: no", false),
        ("query-sev", state("policy", json!(4)), "policy is 0x4, the session's is 0x5", false),
        ("query-sev", state("state", json!("running")), "state is not launch-secret", false),
        ("query-sev", state("enabled", json!(false)), "enabled is not true", false),
        ("query-sev", json!("{\"return\": {}, \"id\": 99}\n"), "another command", false),
        ("query-sev", json!("x".repeat(100_000)), "longer", false),
        ("query-sev", json!("[[[[[[[[[[[[[[[[[[[[[[\n"), "nests deeper", false),
        ("query-sev-launch-measure", json!(error), "'query-sev-launch-measure'", false),
        ("query-sev-launch-measure", json!({ "data": "c2hvcnQ=" }), "48 bytes", false),
        ("query-sev-launch-measure", json!({}), "not a text", false),
        ("sev-inject-launch-secret", json!(error), "refused 'sev-inject-launch-secret'", true),
        ("cont", json!(error), "refused 'cont'", true),
    ] {
        let mut bench = Bench::new();
        bench.answer(command, answer);
        killed(&bench, named);
        assert_eq!(bench.broker.paths().contains(&MEASUREMENTS.to_owned()), measured, "{named}");
    }
}

#[test]
fn a_silent_monitor_is_given_up() {
    let mut bench = Bench::new();
    bench.set("seconds", toml::toml! { qmp = 1 });
    bench.answer("query-sev-launch-measure", json!(""));
    killed(&bench, "does not answer 'query-sev-launch-measure' within 1 s");
}

#[test]
fn a_qemu_that_never_connects_is_given_up() {
    let mut bench = Bench::new();
    bench.set("seconds", toml::toml! { start = 1 });
    bench.script("never_connects", json!("guest"));
    killed(&bench, "did not connect to the wrapper's monitor within 1 s");
    let mut bench = Bench::new();
    bench.set("seconds", toml::toml! { probe = 1 });
    bench.script("never_connects", json!("probe"));
    refused_before(&bench, &bench.words(), "did not connect to the wrapper's monitor within 1 s");
}

#[test]
fn another_process_on_the_monitor_ends_the_guest() {
    let mut bench = Bench::new();
    bench.script("stranger", json!(true));
    killed(&bench, "connected to the guest's monitor");
    assert!(bench.commands().is_empty());
    assert_eq!(bench.broker.paths(), [SESSIONS]);
}

/// As far as QEMU goes on a machine without SEV: it connects, greets, and refuses.
#[test]
fn the_real_qemu_is_asked() {
    let mut bench = Bench::new();
    if std::process::Command::new("qemu-system-x86_64").arg("--version").output().is_err() {
        eprintln!("skipped: needs qemu-system-x86_64");
        return;
    }
    bench.set("qemu", "qemu-system-x86_64");
    let (status, errors) = bench.start().end();
    if std::path::Path::new("/dev/sev").exists() {
        return;
    }
    assert_eq!(status.code(), Some(1));
    // Without KVM QEMU ends by itself.
    let refused = errors.contains("qemu refused 'query-sev-capabilities': GenericError: ");
    assert!(refused || errors.contains("qemu-system-x86_64 ended") || errors.contains("hung up"), "{errors}");
    assert_eq!(bench.left_over(), 0);
}

/// The words of the launch are QEMU's: it reads them all, connects, and ends for the firmware that isn't there.
#[test]
fn the_real_qemu_takes_the_words() {
    let mut bench = Bench::new();
    if std::process::Command::new("qemu-system-x86_64").arg("--version").output().is_err() {
        eprintln!("skipped: needs qemu-system-x86_64");
        return;
    }
    let platform = json!({ "pdh": "cGRo", "cert_chain": "Y2hhaW4=", "cbitpos": 51, "reduced_phys_bits": 1 });
    std::fs::write(bench.path("platform.json"), platform.to_string()).unwrap();
    bench.set("platform", "platform.json");
    bench.set("qemu", vec!["qemu-system-x86_64", "-nodefaults", "-display", "none"]);
    let mut words = bench.words();
    words[1] = "q35,accel=tcg".to_owned();
    let (status, errors) = Run::of(bench.command(&words)).end();
    assert_eq!(status.code(), Some(1), "{errors}");
    assert!(errors.contains("could not load PC BIOS 'f'"), "{errors}");
    assert_eq!(bench.broker.paths(), [SESSIONS]);
    assert_eq!(bench.left_over(), 0);
}

#[test]
fn a_platform_without_sev_is_named() {
    let error =
        "{\"error\": {\"class\": \"GenericError\", \"desc\": \"SEV is not enabled in KVM\"}, \"id\": ID}\n";
    for (answer, named) in [
        (json!(error), "refused 'query-sev-capabilities': GenericError: SEV is not enabled in KVM"),
        (json!({}), "pdh is not a text"),
        (json!({ "exit": 4 }), "scripted-qemu"),
    ] {
        let mut bench = Bench::new();
        bench.answer("query-sev-capabilities", answer);
        let (status, errors) = bench.start().end();
        // Either the hang-up or the end is seen first.
        assert!(errors.contains(named) || errors.contains("hung up"), "{errors}");
        assert_eq!(status.code(), Some(1));
        assert!(bench.record().is_empty() && bench.broker.paths().is_empty());
        assert_eq!(bench.left_over(), 0);
    }
}

#[test]
fn command_lines_without_a_sealed_guest_are_refused() {
    let bench = Bench::new();
    let words = bench.words();
    let without = |from: usize| [&words[..from], &words[from + 2..]].concat();
    refused_before(&bench, &without(2), "no firmware");
    refused_before(&bench, &without(4), "no kernel");
    refused_before(&bench, &without(10), "no drive on qemu's command line holds initdata");
    let snp = [words.clone(), vec!["-object".to_owned(), "sev-snp-guest,id=s".to_owned()]].concat();
    refused_before(&bench, &snp, "sev-snp-guest");
    std::fs::write(bench.path("initdata.img"), [&b"initdata"[..], &[0xff; 504]].concat()).unwrap();
    refused_before(&bench, &words, "longer than any real one");
    assert!(bench.broker.paths().is_empty());
}

#[test]
fn another_broker_is_not_asked() {
    let bench = Bench::new();
    let other = Bench::new();
    std::fs::write(bench.path("ca.pem"), &other.broker.ca).unwrap();
    refused_before(&bench, &bench.words(), "sealpod[BROKER_PIN]");
    // The right CA, for another name.
    let mut bench = Bench::new();
    bench.set("broker", "https://broker.example");
    refused_before(&bench, &bench.words(), "sealpod[BROKER_PIN]");
    assert!(bench.broker.paths().is_empty());
}

#[test]
fn a_broker_that_is_not_there_is_named() {
    let mut bench = Bench::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    bench.set("connect", address.to_string());
    refused_before(&bench, &bench.words(), "sealpod[BROKER_UNREACHABLE]");
}

#[test]
fn a_qemu_that_ends_in_between_tells_its_own_exit_code() {
    for command in ["qmp_capabilities", "query-sev-launch-measure", "sev-inject-launch-secret"] {
        let mut bench = Bench::new();
        bench.answer(command, json!({ "exit": 5 }));
        let (status, _) = bench.start().end();
        assert_eq!(status.code(), Some(5), "{command}");
        assert_eq!(bench.left_over(), 0);
    }
    let mut bench = Bench::new();
    bench.script("exit_at_start", json!(4));
    let (status, _) = bench.start().end();
    assert_eq!(status.code(), Some(4));
    assert_eq!(bench.left_over(), 0);
}

#[test]
fn a_signal_before_qemu_starts_ends_the_launch() {
    let bench = Bench::new();
    bench.broker.session(Answer::Silence);
    let run = bench.start();
    bench.broker.asked.recv().unwrap();
    kill(Pid::from_raw(run.child.id() as i32), Signal::SIGTERM).unwrap();
    let (status, errors) = run.end();
    assert_eq!(status.code(), Some(128 + 15));
    assert!(errors.contains("interrupted"), "{errors}");
    assert!(bench.record().is_empty());
    assert_eq!(bench.left_over(), 0);
}

#[test]
fn a_runtime_that_kills_the_guest_in_between_leaves_nothing() {
    let bench = Bench::new();
    bench.broker.measurement(Answer::Silence);
    let mut run = bench.start();
    bench.broker.asked.recv().unwrap();
    // The guest waits for its secret now.
    bench.broker.asked.recv().unwrap();
    run.child.kill().unwrap();
    let (status, errors) = run.end();
    assert_eq!((status.signal(), errors.as_str()), (Some(9), ""));
    assert_eq!(bench.left_over(), 0);
}

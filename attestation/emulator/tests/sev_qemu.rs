//! The program in QEMU's place: a probe, a launch over the monitor, what the real QEMU then gets.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod owner;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use owner::Owner;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

const PROGRAM: &str = env!("CARGO_BIN_EXE_sealpod-emulator");
const ES: u32 = 5;

/// A platform, files to boot, and a stand-in for the real QEMU that says what it was given.
fn made() -> &'static Path {
    static MADE: OnceLock<tempfile::TempDir> = OnceLock::new();
    MADE.get_or_init(|| {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let now = std::time::SystemTime::now();
        sealpod_emulator::state::initialise(&path("chip"), sealpod_emulator::snp::Product::Milan, 2048, now)
            .unwrap();
        sealpod_emulator::state::add_sev(&path("chip"), 2048).unwrap();
        fs::write(path("firmware"), sealpod_emulator::firmware::generate()).unwrap();
        for name in ["kernel", "initrd"] {
            fs::write(path(name), name).unwrap();
        }
        let script = "#!/bin/sh\nprintf '%s\\n' \"$@\"\nfor word; do case \"$word\" in sig=*) cat \"${word##*data=}\";; esac; done\n";
        fs::write(path("qemu"), script).unwrap();
        fs::set_permissions(path("qemu"), fs::Permissions::from_mode(0o755)).unwrap();
        directory
    })
    .path()
}

struct Launched {
    child: Child,
    input: BufReader<UnixStream>,
    _directory: tempfile::TempDir,
}

fn command(faults: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.arg("sev-qemu").arg("--state").arg(made().join("chip")).arg("--qemu").arg(made().join("qemu"));
    command.args(["--cpu-model", "EPYC-Milan"]);
    for fault in faults {
        command.args(["--fault", fault]);
    }
    command.arg("--").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn greeted(mut command: Command, directory: tempfile::TempDir, listener: &UnixListener) -> Launched {
    let child = command.spawn().unwrap();
    let mut launched =
        Launched { child, input: BufReader::new(listener.accept().unwrap().0), _directory: directory };
    assert!(launched.read().get("QMP").is_some());
    assert_eq!(launched.ask("qmp_capabilities", &Value::Null), json!({}));
    launched
}

fn probe(faults: &[&str]) -> Launched {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("qmp");
    let listener = UnixListener::bind(&socket).unwrap();
    let mut command = command(faults);
    command.args(["-nodefaults", "-machine", "none,accel=kvm", "-S", "-qmp"]);
    command.arg(format!("unix:{}", socket.display()));
    greeted(command, directory, &listener)
}

/// A launch for `owner`; the relay's monitor is the one that QEMU connects to.
fn launch(owner: &Owner, session_policy: u32, faults: &[&str]) -> Launched {
    let mut capabilities = probe(&[]);
    let pdh = capabilities.ask("query-sev-capabilities", &Value::Null)["pdh"].as_str().unwrap().to_owned();
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("qmp");
    let listener = UnixListener::bind(&socket).unwrap();
    let mut command = command(faults);
    launch_words(&mut command, directory.path(), owner, &STANDARD.decode(pdh).unwrap(), session_policy);
    command.arg("-qmp").arg(format!("unix:{}", socket.display()));
    greeted(command, directory, &listener)
}

fn launch_words(command: &mut Command, directory: &Path, owner: &Owner, pdh: &[u8], session_policy: u32) {
    let write = |name: &str, bytes: &[u8]| -> PathBuf {
        fs::write(directory.join(name), STANDARD.encode(bytes)).unwrap();
        directory.join(name)
    };
    let (godh, session) =
        (write("godh", &owner.godh()), write("session", &owner.session(pdh, session_policy)));
    command.args(["-machine", "q35,accel=tcg", "-smp", "2", "-append", "console=ttyS0", "-S"]);
    for name in ["bios", "kernel", "initrd"] {
        let file = if name == "bios" { "firmware" } else { name };
        command.arg(format!("-{name}")).arg(made().join(file));
    }
    command.arg("-object").arg(format!(
        "sev-guest,id=s,cbitpos=51,reduced-phys-bits=1,policy=0x{ES:x},dh-cert-file={},session-file={},kernel-hashes=on",
        godh.display(),
        session.display()
    ));
    command.args(["-machine", "confidential-guest-support=s"]);
}

impl Launched {
    fn read(&mut self) -> Value {
        let mut line = String::new();
        self.input.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }

    fn send(&mut self, command: &str, arguments: &Value) -> Value {
        let mut request = json!({ "execute": command });
        if !arguments.is_null() {
            request["arguments"] = arguments.clone();
        }
        self.input.get_mut().write_all(format!("{request}\n").as_bytes()).unwrap();
        self.read()
    }

    fn ask(&mut self, command: &str, arguments: &Value) -> Value {
        let answer = self.send(command, arguments);
        answer.get("return").unwrap_or_else(|| panic!("{answer}")).clone()
    }

    fn measurement(&mut self) -> Vec<u8> {
        let answer = self.ask("query-sev-launch-measure", &Value::Null);
        STANDARD.decode(answer["data"].as_str().unwrap()).unwrap()
    }

    /// Exit status and what was printed, after the monitor is closed.
    fn end(self) -> (bool, String, String) {
        drop(self.input);
        let output = self.child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.success(), text(output.stdout), text(output.stderr))
    }
}

fn digest() -> Vec<u8> {
    use sealpod_emulator::measure::{HashTable, LegacyLaunch};
    let firmware =
        sealpod_emulator::firmware::Firmware::parse(sealpod_emulator::firmware::generate()).unwrap();
    let hashes = HashTable::of_bytes(b"kernel", b"initrd", "console=ttyS0");
    let cpu = "EPYC-Milan".parse().unwrap();
    let launch = LegacyLaunch { firmware: &firmware, hashes: Some(&hashes), vcpus: 2, cpu };
    let all = [launch.data().unwrap(), launch.processors().unwrap()].concat().concat();
    Sha256::digest(all).to_vec()
}

#[test]
fn a_probe_tells_the_platform_and_ends_with_quit() {
    let mut probe = probe(&[]);
    let capabilities = probe.ask("query-sev-capabilities", &Value::Null);
    let bytes = |name: &str| STANDARD.decode(capabilities[name].as_str().unwrap()).unwrap();
    assert_eq!((bytes("pdh").len(), bytes("cert-chain").len(), bytes("cpu0-id").len()), (2084, 6252, 64));
    assert_eq!(capabilities["reduced-phys-bits"], 1);
    assert_eq!(probe.ask("query-sev", &Value::Null)["enabled"], false);
    assert!(probe.send("query-sev-launch-measure", &Value::Null).get("error").is_some());
    assert_eq!(probe.ask("quit", &Value::Null), json!({}));
    assert!(probe.end().0);
}

#[test]
fn a_launch_is_measured_injected_and_becomes_qemu() {
    let owner = Owner::new(5);
    let mut launched = launch(&owner, ES, &[]);
    let status = launched.ask("query-sev", &Value::Null);
    assert_eq!((&status["state"], &status["policy"]), (&json!("launch-secret"), &json!(ES)));
    let measurement = launched.measurement();
    let (measure, nonce) = measurement.split_at(32);
    assert_eq!(measure, owner.measure([1, 55, 29], ES, &digest(), nonce));

    let mut plain = b"the secret's table".to_vec();
    plain.resize(32, b'.');
    let (header, secret) = owner.secret(&plain, measure);
    let packet = json!({ "packet-header": STANDARD.encode(header), "secret": STANDARD.encode(secret) });
    assert_eq!(launched.ask("sev-inject-launch-secret", &packet), json!({}));
    let pid = launched.child.id();
    assert_eq!(launched.ask("cont", &Value::Null), json!({}));
    let (success, stdout, stderr) = launched.end();
    assert!(success, "{stderr}");
    assert!(pid > 0, "the real QEMU runs under this program's pid, as exec does");
    assert!(stdout.ends_with(&"the secret's table..............\n"[..32]), "{stdout}");
    for absent in ["sev-guest", "confidential-guest-support", "-S\n", "-bios", "-qmp"] {
        assert!(!stdout.contains(absent), "{absent}: {stdout}");
    }
    assert!(stdout.contains("-acpitable\nsig=SPSV,"), "{stdout}");
    assert!(stdout.contains("-append\nconsole=ttyS0\n"), "{stdout}");
}

#[test]
fn a_guest_that_is_started_without_its_secret_has_none() {
    let mut launched = launch(&Owner::new(5), ES, &[]);
    launched.ask("cont", &Value::Null);
    let (success, stdout, _) = launched.end();
    assert!(success && !stdout.contains("-acpitable"), "{stdout}");
}

#[test]
fn launches_that_the_firmware_refuses_end_as_qemu_does() {
    let mut command = command(&[]);
    let directory = tempfile::tempdir().unwrap();
    let owner = Owner::new(5);
    let pdh = STANDARD
        .decode(probe(&[]).ask("query-sev-capabilities", &Value::Null)["pdh"].as_str().unwrap())
        .unwrap();
    launch_words(&mut command, directory.path(), &owner, &pdh, 1);
    let output = command.args(["-qmp", "unix:/nonexistent"]).output().unwrap();
    assert!(!output.status.success());
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("LAUNCH_START ret=1 fw_error=11 'Bad measurement'"), "{message}");
}

#[test]
fn a_monitor_that_closes_before_the_start_ends_the_launch() {
    let launched = launch(&Owner::new(5), ES, &[]);
    let (success, _, stderr) = launched.end();
    assert!(!success && stderr.contains("closed before the guest was started"), "{stderr}");
}

#[test]
fn each_fault_of_the_launch_shows_in_the_monitor() {
    let owner = Owner::new(5);
    let mut launched = launch(&owner, ES, &["measure"]);
    let measurement = launched.measurement();
    let expected = owner.measure([1, 55, 29], ES, &digest(), &measurement[32..]);
    assert_eq!(measurement[0], expected[0] ^ 1);

    let earlier = STANDARD.encode([1; 48]);
    assert_eq!(launch(&owner, ES, &[&format!("replayed-measurement={earlier}")]).measurement(), [1; 48]);

    let mut launched = launch(&owner, ES, &["policy=1", "query-api=1.99", "build=7"]);
    let status = launched.ask("query-sev", &Value::Null);
    assert_eq!(
        (&status["policy"], &status["api-minor"], &status["build-id"]),
        (&json!(1), &json!(99), &json!(7))
    );
    let mut launched = launch(&owner, ES, &["query-policy=1"]);
    assert_eq!(launched.ask("query-sev", &Value::Null)["policy"], 1);

    let mut launched = launch(&owner, ES, &["inject-refused"]);
    let measurement = launched.measurement();
    let (header, secret) = owner.secret(&[0; 16], &measurement[..32]);
    let packet = json!({ "packet-header": STANDARD.encode(header), "secret": STANDARD.encode(secret) });
    assert!(launched.send("sev-inject-launch-secret", &packet).get("error").is_some());

    let mut probe = probe(&["unsigned-cek"]);
    let chain = probe.ask("query-sev-capabilities", &Value::Null)["cert-chain"].as_str().unwrap().to_owned();
    assert_eq!(STANDARD.decode(chain).unwrap()[4168 + 1044..4168 + 1048], [0, 0x10, 0, 0]);
}

#[test]
fn packets_for_other_launches_and_areas_are_refused_in_qemus_words() {
    let owner = Owner::new(5);
    let mut launched = launch(&owner, ES, &[]);
    let measurement = launched.measurement();
    let inject = |launched: &mut Launched, packet: (Vec<u8>, Vec<u8>)| {
        let packet =
            json!({ "packet-header": STANDARD.encode(packet.0), "secret": STANDARD.encode(packet.1) });
        launched.send("sev-inject-launch-secret", &packet)["error"]["desc"].as_str().unwrap().to_owned()
    };
    assert!(inject(&mut launched, owner.secret(&[0; 16], &[0; 32])).contains("'Bad measurement'"));
    assert!(inject(&mut launched, owner.secret(&[0; 4096], &measurement[..32])).contains("no room"));
    let garbage = launched.send("sev-inject-launch-secret", &json!({ "packet-header": "?", "secret": "" }));
    assert!(garbage.get("error").is_some());
}

#[test]
fn without_sev_it_is_qemu_at_once() {
    let output = command(&[]).args(["-machine", "q35", "-version"]).output().unwrap();
    assert!(output.status.success());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "-machine\nq35\n-version\n");
}

//! The wrapper before the emulated secure processor: its program takes the words that QEMU would, really opens the
//! session, measures, and decrypts the packet.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sealpod_emulator::measure::{HashTable, LegacyLaunch};
use sealpod_emulator::{firmware, snp, state};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::bench::{Bench, Run};
use crate::broker::{Answer, MEASUREMENTS, SESSIONS};
use crate::owner::Owner;

const ES: u32 = 5;
/// A table is a multiple of 16 bytes; what is in it is between owner and guest.
const SECRET: &[u8; 32] = b"what the guest shall get ......\n";

/// The program, where cargo put it.
fn emulator() -> Option<PathBuf> {
    let program = Path::new(env!("CARGO_BIN_EXE_sealpod-relay")).with_file_name("sealpod-emulator");
    if !program.exists() {
        eprintln!("skipped: needs cargo build -p sealpod-emulator");
        return None;
    }
    Some(program)
}

/// A processor, files to boot, and a stand-in for the real QEMU that prints its words and the injected table.
fn made() -> &'static Path {
    static MADE: OnceLock<tempfile::TempDir> = OnceLock::new();
    MADE.get_or_init(|| {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let now = std::time::SystemTime::now();
        state::initialise(&path("chip"), snp::Product::Milan, 2048, now).unwrap();
        state::add_sev(&path("chip"), 2048).unwrap();
        std::fs::write(path("firmware"), firmware::generate()).unwrap();
        std::fs::write(path("kernel"), "kernel").unwrap();
        std::fs::write(path("initrd"), "initrd").unwrap();
        let script = "#!/bin/sh\necho \"pid $$\"\nprintf '%s\\n' \"$@\"\n\
                      for word; do case \"$word\" in sig=*) cat \"${word##*data=}\";; esac; done\n";
        std::fs::write(path("qemu"), script).unwrap();
        std::fs::set_permissions(path("qemu"), std::fs::Permissions::from_mode(0o755)).unwrap();
        directory
    })
    .path()
}

/// As the launcher writes the settings of an emulated guest.
fn bench(emulator: &Path, faults: &[&str]) -> Bench {
    let mut bench = Bench::new();
    let text = |path: PathBuf| path.to_str().unwrap().to_owned();
    let mut words =
        vec![text(emulator.to_owned()), "sev-qemu".into(), "--state".into(), text(made().join("chip"))];
    words.extend(["--qemu".into(), text(made().join("qemu")), "--cpu-model".into(), "EPYC-Milan".into()]);
    words.extend(faults.iter().flat_map(|fault| ["--fault".to_owned(), (*fault).to_owned()]));
    words.push("--".into());
    bench.set("qemu", words);
    bench
}

fn start(bench: &Bench) -> Run {
    let file = |name: &str| made().join(name).to_str().unwrap().to_owned();
    let drive = format!("if=none,id=i,format=raw,readonly=on,file={}", bench.path("initdata.img").display());
    let words =
        ["-machine", "q35,accel=tcg", "-smp", "2", "-bios", &file("firmware"), "-kernel", &file("kernel")];
    let more = ["-initrd", &file("initrd"), "-append", "console=ttyS0", "-drive", &drive];
    let words: Vec<String> = words.into_iter().chain(more).map(str::to_owned).collect();
    Run::of(bench.command(&words))
}

/// A broker that makes real sessions, for `policy`, and real packets, for what `measure` makes of a measurement.
fn answer(bench: &Bench, policy: u32, measure: fn(&[u8]) -> Vec<u8>) {
    let bytes = |value: &Value| STANDARD.decode(value.as_str().unwrap()).unwrap();
    bench.broker.session(Answer::Made(Arc::new(move |request| {
        let owner = Owner::new(5);
        json!({
            "session": "00112233445566778899aabbccddeeff", "policy": ES, "godh": STANDARD.encode(owner.godh()),
            "session_blob": STANDARD.encode(owner.session(&bytes(&request["pdh"]), policy)),
        })
    })));
    bench.broker.measurement(Answer::Made(Arc::new(move |request| {
        let measurement = bytes(&request["measurement"]);
        let (header, secret) = Owner::new(5).secret(SECRET, &measure(&measurement[..32]));
        json!({ "packet_header": STANDARD.encode(header), "secret": STANDARD.encode(secret) })
    })));
}

fn digest() -> Vec<u8> {
    let firmware = firmware::Firmware::parse(firmware::generate()).unwrap();
    let hashes = HashTable::of_bytes(b"kernel", b"initrd", "console=ttyS0");
    let cpu = "EPYC-Milan".parse().unwrap();
    let launch = LegacyLaunch { firmware: &firmware, hashes: Some(&hashes), vcpus: 2, cpu };
    let all = [launch.data().unwrap(), launch.processors().unwrap()].concat().concat();
    Sha256::digest(all).to_vec()
}

#[test]
fn the_guest_gets_what_the_broker_wrapped_for_its_measurement() {
    let Some(emulator) = emulator() else { return };
    let bench = bench(&emulator, &[]);
    answer(&bench, ES, <[u8]>::to_vec);
    let run = start(&bench);
    let pid = run.child.id();
    let (status, printed, errors) = run.end_with_output();
    assert!(status.success(), "{errors}");
    assert!(printed.starts_with(&format!("pid {pid}\n")), "{printed}");
    assert!(printed.ends_with(str::from_utf8(SECRET).unwrap()), "{printed}");
    assert!(!printed.contains("sev-guest") && !printed.contains("-qmp"), "{printed}");
    assert_eq!(bench.broker.asked.recv().unwrap().0, SESSIONS);
    let (path, measured) = bench.broker.asked.recv().unwrap();
    assert_eq!(path, MEASUREMENTS);
    // It is the launch of these very files that the broker hears of.
    let measurement = STANDARD.decode(measured["measurement"].as_str().unwrap()).unwrap();
    let number = |name: &str| u8::try_from(measured[name].as_u64().unwrap()).unwrap();
    let firmware = [number("api_major"), number("api_minor"), number("build")];
    assert_eq!(measurement[..32], Owner::new(5).measure(firmware, ES, &digest(), &measurement[32..]));
    assert_eq!(bench.left_over(), 0);
}

#[test]
fn a_packet_for_another_measurement_reaches_no_guest() {
    let Some(emulator) = emulator() else { return };
    let bench = bench(&emulator, &[]);
    answer(&bench, ES, |measure| measure.iter().map(|byte| byte ^ 1).collect());
    let (status, printed, errors) = start(&bench).end_with_output();
    assert!(errors.contains("qemu refused 'sev-inject-launch-secret'"), "{errors}");
    // Killed, or ended by itself when it was hung up on.
    assert!(status.signal() == Some(9) || status.code() == Some(1), "{status}");
    assert_eq!(printed, "");
    assert_eq!(bench.left_over(), 0);
}

#[test]
fn a_session_for_another_policy_starts_no_guest() {
    let Some(emulator) = emulator() else { return };
    let bench = bench(&emulator, &[]);
    answer(&bench, 1, <[u8]>::to_vec);
    let (status, printed, errors) = start(&bench).end_with_output();
    assert_eq!(status.code(), Some(1));
    assert!(errors.contains("LAUNCH_START") && printed.is_empty(), "{errors}");
    assert_eq!(bench.broker.paths(), [SESSIONS]);
    assert_eq!(bench.left_over(), 0);
}

#[test]
fn faults_of_the_platform_end_the_launch() {
    let Some(emulator) = emulator() else { return };
    for (fault, named) in [
        ("query-policy=1", "policy is 0x1, the session's is 0x5"),
        ("inject-refused", "'sev-inject-launch-secret'"),
    ] {
        let bench = bench(&emulator, &[fault]);
        answer(&bench, ES, <[u8]>::to_vec);
        let (status, printed, errors) = start(&bench).end_with_output();
        assert!(!status.success() && printed.is_empty(), "{fault}");
        assert!(errors.contains(named), "{fault}: {errors}");
        assert_eq!(bench.left_over(), 0);
    }
}

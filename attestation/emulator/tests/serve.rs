//! The program as a launcher uses it: make, serve, ask, stop.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use sealpod_emulator::snp::wire::{Answer, Call};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::{fs, thread};

const PROGRAM: &str = env!("CARGO_BIN_EXE_sealpod-emulator");
const HOST_DATA: &str = "1111111111111111111111111111111111111111111111111111111111111111";

/// A processor, firmware and files to boot, made once.
fn made() -> &'static Path {
    static MADE: OnceLock<tempfile::TempDir> = OnceLock::new();
    MADE.get_or_init(|| {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        sealpod_emulator::state::initialise(
            &path("chip"),
            sealpod_emulator::snp::Product::Milan,
            2048,
            std::time::SystemTime::now(),
        )
        .unwrap();
        let output =
            Command::new(PROGRAM).arg("firmware").arg("--out").arg(path("firmware")).output().unwrap();
        assert!(output.status.success());
        for (name, bytes) in [("kernel", "kernel"), ("initrd", "initrd"), ("append", "console=ttyS0")] {
            fs::write(path(name), bytes).unwrap();
        }
        directory
    })
    .path()
}

fn boot<'a>(command: &'a mut Command, initrd: &Path) -> &'a mut Command {
    command.arg("--firmware").arg(made().join("firmware")).arg("--kernel").arg(made().join("kernel"));
    command.arg("--initrd").arg(initrd);
    command.arg("--append-file").arg(made().join("append")).args([
        "--vcpus",
        "1",
        "--cpu-model",
        "EPYC-Milan",
    ])
}

fn measure(initrd: &Path) -> String {
    let mut command = Command::new(PROGRAM);
    let output = boot(command.arg("measure"), initrd).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

struct Served {
    child: Child,
    socket: PathBuf,
    _directory: tempfile::TempDir,
}

fn command(socket: &Path, options: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    boot(
        command.arg("serve").arg("--state").arg(made().join("chip")).arg("--listen").arg(socket),
        &made().join("initrd"),
    );
    command.args(["--host-data", HOST_DATA]).args(options);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    command
}

fn serve(options: &[&str]) -> Served {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("vm.sock_4051");
    let mut child = command(&socket, options).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    Served { child, socket, _directory: directory }
}

impl Served {
    fn ask(&self, call: &Call) -> Answer {
        let mut stream = UnixStream::connect(&self.socket).unwrap();
        call.write(&mut stream).unwrap();
        Answer::read(&mut stream).unwrap()
    }

    fn report(&self) -> Vec<u8> {
        self.ask(&Call::Report([0; 96])).message[32..].to_vec()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn failure(mut command: Command) -> String {
    let Output { status, stderr, .. } = command.stderr(Stdio::piped()).output().unwrap();
    assert!(!status.success());
    String::from_utf8(stderr).unwrap()
}

#[test]
fn reports_carry_the_measured_files_and_the_host_data() {
    let served = serve(&[]);
    let report = served.report();
    assert_eq!(hex::encode(&report[0x90..0xc0]), measure(&made().join("initrd")));
    assert_eq!(hex::encode(&report[0xc0..0xe0]), HOST_DATA);

    let tampered = served.socket.with_file_name("tampered");
    fs::write(&tampered, "initre").unwrap();
    assert_ne!(hex::encode(&report[0x90..0xc0]), measure(&tampered));
}

#[test]
fn it_ends_and_cleans_up_when_standard_input_closes() {
    let mut served = serve(&[]);
    drop(served.child.stdin.take());
    assert!(served.child.wait().unwrap().success());
    assert!(!served.socket.exists());
}

#[test]
fn it_ends_and_cleans_up_on_sigterm() {
    let mut served = serve(&[]);
    let pid = nix::unistd::Pid::from_raw(served.child.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert!(served.child.wait().unwrap().success());
    assert!(!served.socket.exists());
}

#[test]
fn a_socket_in_use_is_refused_and_a_stale_one_replaced() {
    let served = serve(&[]);
    let message = failure(command(&served.socket, &[]));
    assert!(message.contains("in use by a running emulated processor"), "{message}");
    assert_eq!(served.report().len(), 1184, "the first goes on");

    let directory = tempfile::tempdir().unwrap();
    let stale = directory.path().join("stale");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    let mut child = command(&stale, &[]).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}

#[test]
fn knobs_show_in_reports() {
    let served =
        serve(&["--policy", "0xb0000", "--tcb", "snp=7", "--committed-tcb", "snp=6", "--fault", "busy=1"]);
    assert_eq!(served.ask(&Call::Report([0; 96])).exit_info, 2 << 32);
    let report = served.report();
    assert_eq!(report[0x08..0x10], 0xb_0000_u64.to_le_bytes());
    assert_eq!((report[0x186], report[0x1e6], report[0x1f6]), (7, 6, 7));
    let certificates = served.ask(&Call::ExtendedReport([0; 96], 4)).certificates;
    let snp_7 = [0x06, 0x0a, 0x2b, 6, 1, 4, 1, 0x9c, 0x78, 1, 3, 3, 4, 3, 2, 1, 7];
    assert!(certificates.windows(snp_7.len()).any(|window| window == snp_7), "the certificate follows --tcb");
}

#[test]
fn garbage_ends_only_its_own_connection() {
    let served = serve(&[]);
    let mut stream = UnixStream::connect(&served.socket).unwrap();
    std::io::Write::write_all(&mut stream, &[0xff; 64]).unwrap();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    assert!(rest.is_empty());
    assert_eq!(served.report().len(), 1184);
}

#[test]
fn many_connections_are_bounded_and_all_that_fit_are_served() {
    let served = serve(&[]);
    let idle: Vec<_> = (0..7).map(|_| UnixStream::connect(&served.socket).unwrap()).collect();
    thread::scope(|scope| {
        scope.spawn(|| assert_eq!(served.report().len(), 1184)).join().unwrap();
    });
    drop(idle);
}

#[test]
fn unusable_options_are_named() {
    let socket = made().join("never");
    for (options, part) in [
        (&["--policy", "0x10000"][..], "bit 17"),
        (&["--tcb", "spl=1"], "TCB part"),
        (&["--vmpl", "4"], "4 is not in 0..=3"),
        (&["--fault", "chip-id=00"], "chip-id takes 128 hexadecimal digits"),
        (&["--report-version", "4"], "writes 2, 3 and 5"),
        (&["--signing-key", "asvk"], "use vcek or vlek"),
    ] {
        let message = failure(command(&socket, options));
        assert!(message.contains(part), "{message}");
        assert!(!socket.exists());
    }
    let mut absent = Command::new(PROGRAM);
    let serve = absent.arg("serve").args(["--state", "/nonexistent", "--listen", "/nonexistent/s"]);
    boot(serve.args(["--host-data", HOST_DATA]), &made().join("initrd"));
    assert!(failure(absent).contains("sealpod-emulator init --state DIR"));
}

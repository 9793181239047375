//! The relay as it runs: the built program between a unix socket and a broker on loopback.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

struct Relay {
    child: Child,
    log: BufReader<std::process::ChildStderr>,
    socket: PathBuf,
    _dir: tempfile::TempDir,
}

impl Relay {
    fn start(broker: &str, more: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("relay.sock");
        let mut child = command(&socket, broker, more).stderr(Stdio::piped()).spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        let mut relay = Self { child, log, socket, _dir: dir };
        relay.wait_for("listening");
        relay
    }

    fn wait_for(&mut self, message: &str) -> String {
        let mut line = String::new();
        while self.log.read_line(&mut line).unwrap() > 0 {
            if line.contains(&format!("\"msg\":\"{message}\"")) {
                return line;
            }
            line.clear();
        }
        panic!("the relay ended without saying '{message}'");
    }

    fn connect(&self) -> UnixStream {
        UnixStream::connect(&self.socket).unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn command(socket: &Path, broker: &str, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sealpod-relay"));
    command.arg("--listen").arg(format!("unix:{}", socket.display())).args(["--broker", broker]).args(more);
    command
}

fn broker() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

fn echo_all(mut stream: TcpStream) {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    stream.write_all(&bytes).unwrap();
}

#[test]
fn bytes_pass_unchanged_both_ways() {
    let (listener, address) = broker();
    let relay = Relay::start(&address, &[]);
    let serving = std::thread::spawn(move || {
        for _ in 0..4 {
            let stream = listener.accept().unwrap().0;
            std::thread::spawn(move || echo_all(stream));
        }
    });
    let guests: Vec<_> = (0..4u8)
        .map(|n| {
            let mut stream = relay.connect();
            std::thread::spawn(move || {
                let sent: Vec<u8> = (0..300_000u32).map(|i| (i as u8) ^ n).collect();
                let mut writer = stream.try_clone().unwrap();
                let to_send = sent.clone();
                let writing = std::thread::spawn(move || {
                    writer.write_all(&to_send).unwrap();
                    writer.shutdown(Shutdown::Write).unwrap();
                });
                let mut got = Vec::new();
                stream.read_to_end(&mut got).unwrap();
                writing.join().unwrap();
                assert!(got == sent);
            })
        })
        .collect();
    guests.into_iter().for_each(|guest| guest.join().unwrap());
    serving.join().unwrap();
}

#[test]
fn without_a_broker_the_guest_is_hung_up_on() {
    let (listener, address) = broker();
    drop(listener);
    let mut relay = Relay::start(&address, &[]);
    let mut guest = relay.connect();
    let mut got = Vec::new();
    drop(guest.read_to_end(&mut got));
    assert!(got.is_empty());
    // The log names the address that failed.
    assert!(relay.wait_for("connection failed").contains(&address));
}

#[test]
fn the_connection_beyond_the_limit_waits_its_turn() {
    let (listener, address) = broker();
    let relay = Relay::start(&address, &["--max-connections", "1"]);
    let first = relay.connect();
    let first_upstream = listener.accept().unwrap().0;
    let mut second = relay.connect();
    second.write_all(b"second").unwrap();
    second.shutdown(Shutdown::Write).unwrap();
    listener.set_nonblocking(true).unwrap();
    assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    listener.set_nonblocking(false).unwrap();
    drop((first, first_upstream));
    echo_all(listener.accept().unwrap().0);
    let mut got = Vec::new();
    second.read_to_end(&mut got).unwrap();
    assert_eq!(got, b"second");
}

#[test]
fn one_guest_cannot_take_every_connection() {
    let (listener, address) = broker();
    let relay = Relay::start(&address, &["--max-per-guest", "1"]);
    let first = relay.connect();
    let first_upstream = listener.accept().unwrap().0;
    let mut second = relay.connect();
    assert_eq!(second.read_to_end(&mut Vec::new()).unwrap(), 0, "closed at once");
    // Another process is another guest: this one again, at the helper below.
    let mut other = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "another_guest"])
        .env(ANOTHER_GUEST, &relay.socket)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let other_upstream = listener.accept().unwrap().0;
    drop((first, first_upstream, other_upstream));
    assert!(other.wait().unwrap().success());
}

const ANOTHER_GUEST: &str = "SEALPOD_TEST_RELAY_SOCKET";

/// Connects from a process of its own until it is hung up on, when the test above asks for it.
#[test]
fn another_guest() {
    let Some(socket) = std::env::var_os(ANOTHER_GUEST) else { return };
    let mut stream = UnixStream::connect(socket).unwrap();
    assert_eq!(stream.read_to_end(&mut Vec::new()).unwrap(), 0);
}

#[test]
fn idle_connections_are_closed() {
    let (listener, address) = broker();
    let mut relay = Relay::start(&address, &["--idle-seconds", "1"]);
    let mut guest = relay.connect();
    let mut upstream = listener.accept().unwrap().0;
    let mut got = Vec::new();
    guest.read_to_end(&mut got).unwrap();
    upstream.read_to_end(&mut got).unwrap();
    assert!(got.is_empty());
    relay.wait_for("connection idle, closed");
}

#[test]
fn sigterm_drains_and_removes_the_socket() {
    let (listener, address) = broker();
    let mut relay = Relay::start(&address, &["--drain-seconds", "3600"]);
    let mut guest = relay.connect();
    let upstream = listener.accept().unwrap().0;
    relay.signal(Signal::SIGTERM);
    relay.wait_for("draining");
    assert!(!relay.socket.exists());
    guest.write_all(b"still").unwrap();
    guest.shutdown(Shutdown::Write).unwrap();
    echo_all(upstream);
    let mut got = Vec::new();
    guest.read_to_end(&mut got).unwrap();
    assert_eq!(got, b"still");
    assert!(relay.child.wait().unwrap().success());
}

#[test]
fn a_drain_has_its_deadline() {
    let (listener, address) = broker();
    let mut relay = Relay::start(&address, &["--drain-seconds", "0"]);
    let _guest = relay.connect();
    let _upstream = listener.accept().unwrap();
    relay.signal(Signal::SIGINT);
    assert!(relay.child.wait().unwrap().success());
    assert!(!relay.socket.exists());
}

#[test]
fn a_second_relay_is_refused_and_says_why() {
    let (_listener, address) = broker();
    let relay = Relay::start(&address, &[]);
    let output = command(&relay.socket, &address, &[]).output().unwrap();
    assert!(!output.status.success());
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("another relay listens there"), "{text}");
    assert!(relay.socket.exists());
}

#[test]
fn bad_arguments_are_named() {
    let output = command(Path::new(""), "nowhere", &[]).output().unwrap();
    assert!(!output.status.success());
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("unix:"), "{text}");
}

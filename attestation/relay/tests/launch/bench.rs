//! One launch: a directory with settings, a script and an initdata disk, the wrapper's command, and what was recorded.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::broker::Broker;

pub const INITDATA: &str = "version = '0.1.0'\nalgorithm = 'sha256'\n";

pub struct Bench {
    pub broker: Broker,
    pub directory: tempfile::TempDir,
    script: Value,
    settings: toml::Table,
}

/// A started wrapper.
pub struct Run {
    pub child: Child,
    stderr: ChildStderr,
}

impl Bench {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let broker = Broker::start();
        let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
        let program = std::env::current_exe().unwrap();
        let program = program.parent().unwrap().with_file_name("examples").join("scripted-qemu");
        assert!(program.exists(), "run 'cargo build -p sealpod-relay --example scripted-qemu' first");
        let settings = toml::toml! { es = true };
        let mut bench = Self { broker, settings, script: json!({ "record": path("record") }), directory };
        bench.set(
            "qemu",
            vec![program.to_str().unwrap().to_owned(), bench.path("script").display().to_string()],
        );
        bench.set("broker", format!("https://localhost:{}", bench.broker.port));
        bench.set("connect", format!("127.0.0.1:{}", bench.broker.port));
        bench.set("broker_ca", "ca.pem");
        bench.set("runtime_dir", "run");
        bench.answer("query-sev-capabilities", capabilities());
        bench.answer("query-sev", launch());
        bench.answer("query-sev-launch-measure", json!({ "data": measurement() }));
        std::fs::write(bench.path("ca.pem"), &bench.broker.ca).unwrap();
        std::fs::write(bench.path("initdata.img"), device(INITDATA)).unwrap();
        bench
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn set(&mut self, key: &str, value: impl Into<toml::Value>) {
        self.settings.insert(key.to_owned(), value.into());
    }

    pub fn unset(&mut self, key: &str) {
        self.settings.remove(key);
    }

    pub fn script(&mut self, key: &str, value: Value) {
        self.script[key] = value;
    }

    /// What the monitor says to a command: what it returns, or as text the whole line.
    pub fn answer(&mut self, command: &str, value: Value) {
        self.script["answers"][command] = value;
    }

    /// The words of a small guest.
    pub fn words(&self) -> Vec<String> {
        let drive = format!(
            "if=none,id=initdata,format=raw,readonly=on,file={}",
            self.path("initdata.img").display()
        );
        [
            "-machine",
            "q35",
            "-bios",
            "f",
            "-kernel",
            "k",
            "-initrd",
            "i",
            "-append",
            "quiet",
            "-drive",
            drive.as_str(),
        ]
        .map(str::to_owned)
        .to_vec()
    }

    pub fn command(&self, words: &[String]) -> Command {
        std::fs::write(self.path("relay.toml"), toml::to_string(&self.settings).unwrap()).unwrap();
        std::fs::write(self.path("script"), self.script.to_string()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_sealpod-relay"));
        command.env("SEALPOD_RELAY_CONFIG", self.path("relay.toml")).arg("qemu").args(words);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub fn start(&self) -> Run {
        Run::of(self.command(&self.words()))
    }

    /// Everything that the guest's QEMU recorded.
    pub fn record(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.path("record")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    pub fn commands(&self) -> Vec<String> {
        let name = |event: Value| event["command"].as_str().map(str::to_owned);
        self.record().into_iter().filter_map(name).collect()
    }

    pub fn left_over(&self) -> usize {
        std::fs::read_dir(self.path("run")).map_or(0, Iterator::count)
    }
}

impl Run {
    pub fn of(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let stderr = child.stderr.take().unwrap();
        Self { child, stderr }
    }

    /// Waits until the guest says so: the launch is over then, one way or the other.
    pub fn wait_for_guest(&mut self) {
        let mut text = [0; 8];
        self.child.stdout.as_mut().unwrap().read_exact(&mut text).unwrap();
        assert_eq!(&text, b"a guest\n");
    }

    /// Likewise, with what the guest printed.
    pub fn end_with_output(mut self) -> (ExitStatus, String, String) {
        let mut text = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        let (status, errors) = self.end();
        (status, text, errors)
    }

    /// Everything is over when nobody can write errors any more: the wrapper, the attendant and QEMU.
    pub fn end(mut self) -> (ExitStatus, String) {
        let mut text = String::new();
        self.stderr.read_to_string(&mut text).unwrap();
        (self.child.wait().unwrap(), text)
    }

    /// Lets a running guest end.
    pub fn power_off(mut self) -> (ExitStatus, String) {
        drop(self.child.stdin.take());
        self.end()
    }
}

pub fn capabilities() -> Value {
    json!({
        "pdh": STANDARD.encode([1; 2084]), "cert-chain": STANDARD.encode([2; 6252]),
        "cpu0-id": STANDARD.encode([3; 64]), "cbitpos": 47, "reduced-phys-bits": 5,
    })
}

pub fn launch() -> Value {
    json!({
        "enabled": true, "state": "launch-secret", "api-major": 1, "api-minor": 55, "build-id": 21, "policy": 5,
        "handle": 1,
    })
}

pub fn measurement() -> String {
    STANDARD.encode([7; 48])
}

pub fn device(document: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(document.as_bytes()).unwrap();
    let packed = encoder.finish().unwrap();
    let mut bytes = [&b"initdata"[..], &(packed.len() as u64).to_le_bytes(), &packed].concat();
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

pub fn alive(pid: u64) -> bool {
    // A zombie is dead; its parent just hasn't looked yet.
    let status = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status"));
    status.is_ok_and(|status| !status.contains("\nState:\tZ"))
}

//! The program: what an operator types, and what a machine that starts it reads.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use protocols::owner::OwnerKey;

use crate::guest::root_pem;

const PROGRAM: &str = env!("CARGO_BIN_EXE_sealpod-broker");

fn run(arguments: &[&str], config: &Path) -> Output {
    Command::new(PROGRAM).args(arguments).arg("--config").arg(config).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn configuration(dir: &Path, more: &str) -> std::path::PathBuf {
    let path = dir.join("broker.toml");
    let text = format!("listen = \"127.0.0.1:0\"\nstate = \"state\"\nserver_names = [\"127.0.0.1\"]\n{more}");
    std::fs::write(&path, text).unwrap();
    path
}

/// A serving broker, ended with its test.
struct Serving(Child);

impl Serving {
    fn start(config: &Path) -> Self {
        let mut child = Command::new(PROGRAM)
            .arg("serve")
            .arg("--config")
            .arg(config)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.strip_prefix("ready ").unwrap_or_else(|| panic!("not ready: {line}"));
        address.trim().parse::<std::net::SocketAddr>().unwrap();
        Self(child)
    }

    /// SIGTERM, and what it logged.
    fn stop(mut self) -> (bool, String) {
        Command::new("kill").arg(self.0.id().to_string()).status().unwrap();
        let mut log = String::new();
        std::io::Read::read_to_string(&mut self.0.stderr.take().unwrap(), &mut log).unwrap();
        (self.0.wait().unwrap().success(), log)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn an_operators_day() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("ark.pem"), root_pem()).unwrap();
    let config = configuration(dir.path(), "[trust]\nemulated_roots = [\"ark.pem\"]\n");

    let early = run(&["serve"], &config);
    assert!(
        !early.status.success() && stderr(&early).contains("run 'sealpod-broker init' first"),
        "{early:?}"
    );

    let made = run(&["init"], &config);
    assert!(made.status.success(), "{made:?}");
    assert!(dir.path().join("state/ca.pem").is_file());
    let again = run(&["init"], &config);
    assert!(!again.status.success() && stderr(&again).contains("exists already"), "{again:?}");

    let serving = Serving::start(&config);
    let second = run(&["serve"], &config);
    assert!(!second.status.success() && stderr(&second).contains("in use by another"), "{second:?}");

    // Its memory is full of keys.
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", serving.0.id())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");

    let key = OwnerKey::generate().unwrap().public().to_string();
    let enrol = ["owner", "enrol", "--repository", "shop", "--key"];
    let enrolled = run(&[&enrol[..], &[&key]].concat(), &config);
    assert!(enrolled.status.success(), "{enrolled:?}");
    let other = OwnerKey::generate().unwrap().public().to_string();
    let stolen = run(&[&enrol[..], &[&other]].concat(), &config);
    assert!(!stolen.status.success() && stderr(&stolen).contains("belongs to another key"), "{stolen:?}");

    let (clean, log) = serving.stop();
    assert!(clean, "{log}");
    assert!(log.contains("THIS BROKER TRUSTS EMULATED HARDWARE"), "{log}");
    assert!(log.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()), "{log}");

    let export = run(&["audit", "export"], &config);
    assert!(export.status.success(), "{export:?}");
    let lines = String::from_utf8(export.stdout).unwrap();
    assert!(lines.contains("\"owner.enrolled\"") && lines.contains("\"checkpoint\""), "{lines}");
    let shown = run(&["audit", "show", "--last", "1"], &config);
    assert!(shown.status.success(), "{shown:?}");
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("owner.enrolled shop") && !shown.contains("broker.started"), "{shown}");
}

#[test]
fn bad_names_and_keys_are_refused_before_anything_happens() {
    let dir = tempfile::tempdir().unwrap();
    let config = configuration(dir.path(), "");
    assert!(run(&["init"], &config).status.success());
    let key = OwnerKey::generate().unwrap().public().to_string();
    let bad = run(&["owner", "enrol", "--repository", "Shop", "--key", &key], &config);
    assert!(!bad.status.success() && stderr(&bad).contains("'Shop' is not valid"), "{bad:?}");
    let bad = run(&["owner", "enrol", "--repository", "shop", "--key", "-AAA"], &config);
    assert!(!bad.status.success() && stderr(&bad).contains("43 characters"), "{bad:?}");
}

#[test]
fn an_emulated_root_that_is_none_stops_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let config = configuration(dir.path(), "[trust]\nemulated_roots = [\"ark.pem\"]\n");
    assert!(run(&["init"], &config).status.success());
    let missing = run(&["serve"], &config);
    assert!(!missing.status.success() && stderr(&missing).contains("ark.pem"), "{missing:?}");
    // A certificate, but none that says that it is emulated.
    std::fs::copy(dir.path().join("state/ca.pem"), dir.path().join("ark.pem")).unwrap();
    let wrong = run(&["serve"], &config);
    assert!(!wrong.status.success() && stderr(&wrong).contains("emulated root"), "{wrong:?}");
}

#[test]
fn a_broken_configuration_names_the_key() {
    let dir = tempfile::tempdir().unwrap();
    let config = configuration(dir.path(), "[limits]\nsessions = 0\n");
    let refused = run(&["init"], &config);
    assert!(!refused.status.success() && stderr(&refused).contains("limits.sessions"), "{refused:?}");
    assert!(!dir.path().join("state").exists());
}

#[test]
fn sample_evidence_is_announced_and_its_resources_are_the_operators() {
    let dir = tempfile::tempdir().unwrap();
    let config = configuration(dir.path(), "[trust]\nsample = true\n[compat]\ntee = [\"sample\"]\n");
    assert!(run(&["init"], &config).status.success());
    let file = dir.path().join("secret");
    std::fs::write(&file, b"secret").unwrap();
    let serving = Serving::start(&config);
    let put = |uri: &str, file: &Path| run(&["compat", "put", "--uri", uri, file.to_str().unwrap()], &config);
    assert!(put("kbs:///compat/keys/one", &file).status.success());
    for uri in ["kbs:///shop/keys/one", "kbs:///compat/sealed-spec/one"] {
        let refused = put(uri, &file);
        assert!(!refused.status.success() && stderr(&refused).contains("kbs:///compat/"), "{refused:?}");
    }
    std::fs::write(&file, vec![0; 256 * 1024 + 1]).unwrap();
    let refused = put("kbs:///compat/keys/one", &file);
    assert!(!refused.status.success() && stderr(&refused).contains("longer than"), "{refused:?}");
    let (clean, log) = serving.stop();
    assert!(clean && log.contains("THIS BROKER ACCEPTS SAMPLE EVIDENCE"), "{log}");
}

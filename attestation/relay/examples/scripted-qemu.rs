//! What the launch tests start in QEMU's place: a monitor that answers as a script says, and a guest that "runs" until
//! its standard input ends. Records what it was started with and what it was told.

use std::error::Error;
use std::fs::{self, OpenOptions};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use serde_json::{Value, json};

const DAEMON: &str = "SCRIPTED_QEMU_DAEMON";
const STRANGER: &str = "SCRIPTED_QEMU_STRANGER";
const GREETING: &str = "{\"QMP\": {\"version\": {}, \"capabilities\": [\"oob\"]}}\r\n";

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let script: Value = serde_json::from_slice(&fs::read(words.next().ok_or("no script")?)?)?;
    let words: Vec<String> = words.collect();
    if words.iter().any(|word| word == "--version") {
        println!("scripted");
        return Ok(ExitCode::from(3));
    }
    let probe = words.iter().any(|word| word.starts_with("none"));
    if words.iter().any(|word| word == "-daemonize") && std::env::var_os(DAEMON).is_none() {
        return daemonize();
    }
    if let (false, Some(code)) = (probe, script["exit_at_start"].as_u64()) {
        return Ok(ExitCode::from(u8::try_from(code)?));
    }
    if !probe {
        record(&script, &json!({ "started": words, "pid": std::process::id(), "files": files(&words) }))?;
    }
    let stranger = std::env::var_os(STRANGER).is_some();
    if !probe && !stranger && script["stranger"] == true {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(std::env::args_os().skip(1)).env(STRANGER, "1").stdin(Stdio::null()).status()?;
        std::thread::park();
    }
    if script["never_connects"] == if probe { "probe" } else { "guest" } {
        std::thread::park();
    }
    let at = words.iter().rposition(|word| word == "-qmp").ok_or("no -qmp")?;
    let path = words[at + 1].strip_prefix("unix:").ok_or("not a unix socket")?.replace(",,", ",");
    let mut monitor = UnixStream::connect(path)?;
    if std::env::var_os(DAEMON).is_some() {
        // The first process waits for this before it ends.
        println!("set up");
    }
    // Whoever listens may hang up on any of it.
    drop(monitor.write_all(GREETING.as_bytes()));
    for line in BufReader::new(monitor.try_clone()?).lines().map_while(Result::ok) {
        let command: Value = serde_json::from_str(&line)?;
        let name = command["execute"].as_str().ok_or("no command")?;
        if !probe {
            record(&script, &json!({ "command": name, "arguments": command["arguments"] }))?;
        }
        let answers = &script["answers"];
        // Without a guest there is only one thing to ask.
        let answer = if probe && name == "qmp_capabilities" { &Value::Null } else { &answers[name] };
        if let Some(code) = answer["exit"].as_u64() {
            return Ok(ExitCode::from(u8::try_from(code)?));
        }
        let text = match answer.as_str() {
            Some(raw) => raw.replace("ID", &command["id"].to_string()),
            None if answer.is_null() => format!("{{\"return\": {{}}, \"id\": {}}}\n", command["id"]),
            None => format!("{}\n", json!({ "return": answer, "id": command["id"] })),
        };
        if monitor.write_all(text.as_bytes()).is_err() {
            break;
        }
    }
    // Whoever held the monitor is gone: like QEMU, it goes on as it is.
    drop(monitor);
    drop(writeln!(std::io::stdout(), "{} guest", if probe { "no" } else { "a" }));
    std::io::stdin().read_to_end(&mut Vec::new())?;
    if std::env::var_os(DAEMON).is_some() {
        std::thread::park();
    }
    Ok(ExitCode::from(7))
}

fn daemonize() -> Result<ExitCode, Box<dyn Error>> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(std::env::args_os().skip(1)).env(DAEMON, "1");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().ok_or("no pipe")?).read_line(&mut line)?;
    Ok(if line.trim() == "set up" { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// Contents and modes of the files that the SEV object names, and of their directory.
fn files(words: &[String]) -> Value {
    let object = words.iter().find(|word| word.starts_with("sev-guest")).cloned().unwrap_or_default();
    let mut files = json!({});
    for (name, path) in object.split(',').filter_map(|part| part.split_once('=')) {
        if !name.ends_with("-file") {
            continue;
        }
        let mode = |path: &Path| fs::metadata(path).map_or(0, |file| file.permissions().mode() & 0o777);
        let path = Path::new(path);
        files[name] = json!({
            "text": fs::read_to_string(path).unwrap_or_default(),
            "mode": mode(path), "directory": mode(path.parent().unwrap_or(path)),
        });
    }
    files
}

fn record(script: &Value, event: &Value) -> Result<(), Box<dyn Error>> {
    let path = script["record"].as_str().ok_or("no record")?;
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    Ok(file.write_all(format!("{event}\n").as_bytes())?)
}

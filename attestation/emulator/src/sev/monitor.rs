//! QMP as far as an SEV launch needs it: one JSON object a line, capabilities first, and QEMU's own words
//! where something is refused.

use serde_json::{Value, json};
use std::io::{self, BufRead, Read, Write};

/// More than the longest secret in base64.
const LINE_MAX: u64 = 256 * 1024;

/// What a command comes to.
#[derive(Debug)]
pub enum Outcome {
    /// The answer.
    Return(Value),
    /// Refused, with a class of QMP's and a description.
    Error(&'static str, String),
    /// Answered with nothing; then the guest runs.
    Run,
    /// Answered with nothing; then the program ends.
    Quit,
}

/// How a monitor was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// With `cont`.
    Run,
    /// With `quit`.
    Quit,
    /// Without a word.
    HungUp,
}

/// A command that the launch answers.
pub trait Commands {
    /// Answers `execute` with its `arguments` (null if there are none).
    fn execute(&mut self, command: &str, arguments: &Value) -> Outcome;
}

/// Speaks QMP until `cont`, `quit`, or the other side is gone.
pub fn serve(
    input: &mut impl BufRead,
    output: &mut impl Write,
    commands: &mut impl Commands,
) -> io::Result<Left> {
    let version = json!({ "qemu": { "major": 9, "minor": 2, "micro": 0 }, "package": "emulated" });
    send(output, &json!({ "QMP": { "version": version, "capabilities": [] } }))?;
    let mut negotiated = false;
    loop {
        let mut line = Vec::new();
        input.by_ref().take(LINE_MAX).read_until(b'\n', &mut line)?;
        if !line.ends_with(b"\n") {
            return Ok(Left::HungUp);
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        let Ok(Value::Object(request)) = serde_json::from_slice(&line) else {
            send(output, &failure("GenericError", "JSON parse error, expecting value", None))?;
            continue;
        };
        let id = request.get("id");
        let command = request.get("execute").and_then(Value::as_str).unwrap_or_default();
        let arguments = request.get("arguments").unwrap_or(&Value::Null);
        let outcome = match (command, negotiated) {
            ("qmp_capabilities", false) => {
                negotiated = true;
                Outcome::Return(json!({}))
            }
            (_, false) => Outcome::Error(
                "CommandNotFound",
                "Expecting capabilities negotiation with 'qmp_capabilities'".to_owned(),
            ),
            ("quit", _) => Outcome::Quit,
            _ => commands.execute(command, arguments),
        };
        let (answer, left) = match outcome {
            Outcome::Return(value) => (success(&value, id), None),
            Outcome::Error(class, description) => (failure(class, &description, id), None),
            Outcome::Run => (success(&json!({}), id), Some(Left::Run)),
            Outcome::Quit => (success(&json!({}), id), Some(Left::Quit)),
        };
        send(output, &answer)?;
        if let Some(left) = left {
            return Ok(left);
        }
    }
}

fn send(output: &mut impl Write, message: &Value) -> io::Result<()> {
    let mut line = message.to_string().into_bytes();
    line.extend_from_slice(b"\r\n");
    output.write_all(&line)?;
    output.flush()
}

fn success(value: &Value, id: Option<&Value>) -> Value {
    with_id(json!({ "return": value }), id)
}

fn failure(class: &str, description: &str, id: Option<&Value>) -> Value {
    with_id(json!({ "error": { "class": class, "desc": description } }), id)
}

fn with_id(mut message: Value, id: Option<&Value>) -> Value {
    if let (Some(id), Some(message)) = (id, message.as_object_mut()) {
        message.insert("id".to_owned(), id.clone());
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Echo;

    impl Commands for Echo {
        fn execute(&mut self, command: &str, arguments: &Value) -> Outcome {
            match command {
                "cont" => Outcome::Run,
                "echo" => Outcome::Return(arguments.clone()),
                other => Outcome::Error("CommandNotFound", format!("The command {other} has not been found")),
            }
        }
    }

    fn talk(input: &str) -> (Vec<Value>, Left) {
        let mut output = Vec::new();
        let left = serve(&mut input.as_bytes(), &mut output, &mut Echo).unwrap();
        let lines = String::from_utf8(output).unwrap();
        (lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), left)
    }

    #[test]
    fn capabilities_come_first_and_ids_come_back() {
        let (lines, left) = talk(
            "{\"execute\":\"echo\"}\n{\"execute\":\"qmp_capabilities\",\"id\":1}\nnot json\n\n\
             {\"execute\":\"echo\",\"arguments\":{\"a\":2},\"id\":\"x\"}\n{\"execute\":\"stop\"}\n{\"execute\":\"cont\"}\n{\"execute\":\"echo\"}\n",
        );
        assert!(lines[0].get("QMP").is_some());
        assert_eq!(lines[1]["error"]["class"], "CommandNotFound");
        assert_eq!(lines[2], json!({ "return": {}, "id": 1 }));
        assert_eq!(lines[3]["error"]["class"], "GenericError");
        assert_eq!(lines[4], json!({ "return": { "a": 2 }, "id": "x" }));
        assert_eq!(lines[5]["error"]["class"], "CommandNotFound");
        assert_eq!(lines[6], json!({ "return": {} }));
        assert_eq!((lines.len(), left), (7, Left::Run));
    }

    #[test]
    fn endings_are_told_apart() {
        let hello = "{\"execute\":\"qmp_capabilities\"}\n";
        assert_eq!(talk(&format!("{hello}{{\"execute\":\"quit\"}}\n")).1, Left::Quit);
        assert_eq!(talk(hello).1, Left::HungUp);
        assert_eq!(talk("{\"execute\":").1, Left::HungUp);
        assert_eq!(talk(&"x".repeat(300 * 1024)).1, Left::HungUp);
    }
}

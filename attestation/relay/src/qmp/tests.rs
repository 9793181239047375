//! The client against a scripted server: the good order, and each way in which an answer can be wrong.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream, duplex};

use super::*;

const HELLO: &str = "{\"QMP\": {\"version\": {}, \"capabilities\": [\"oob\"]}}\r\n";
const PATIENCE: Patience = Patience { start: Duration::from_secs(120), answer: Duration::from_secs(30) };

/// Sends the greeting, then an answer a command, in which ID stands for the command's; after the last one it hangs
/// up, or keeps silent.
fn server(
    greeting: &str,
    answers: &[&str],
    hang_up: bool,
) -> (DuplexStream, tokio::task::JoinHandle<Vec<Value>>) {
    let (ours, theirs) = duplex(1024);
    let greeting = greeting.to_owned();
    let answers: Vec<String> = answers.iter().map(|answer| (*answer).to_owned()).collect();
    let task = tokio::spawn(async move {
        let mut stream = BufReader::new(theirs);
        // The client may hang up on any of it.
        drop(stream.write_all(greeting.as_bytes()).await);
        let mut commands = Vec::new();
        for answer in answers {
            let mut line = String::new();
            if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
                return commands;
            }
            let command: Value = serde_json::from_str(&line).unwrap();
            let answer = answer.replace("ID", &command["id"].to_string());
            commands.push(command);
            drop(stream.write_all(answer.as_bytes()).await);
        }
        if !hang_up {
            let mut line = String::new();
            drop(stream.read_line(&mut line).await);
            std::future::pending::<()>().await;
        }
        commands
    });
    (ours, task)
}

const OK: &str = "{\"return\": {}, \"id\": ID}\r\n";

async fn greeted(answers: &[&str], hang_up: bool) -> Client<DuplexStream> {
    let answers = [&[OK], answers].concat();
    Client::greet(server(HELLO, &answers, hang_up).0, PATIENCE).await.unwrap()
}

#[tokio::test]
async fn commands_are_answered_in_order_past_events() {
    let event = "{\"event\": \"RESUME\", \"timestamp\": {}}\r\n";
    let answer = format!("{event}{event}{}", OK.replace("{}", "{\"a\": 1}"));
    let (stream, task) = server(HELLO, &[OK, &answer, OK], true);
    let mut client = Client::greet(stream, PATIENCE).await.unwrap();
    assert_eq!(client.execute("first", None).await.unwrap(), json!({"a": 1}));
    client.execute("second", Some(json!({"x": "y"}))).await.unwrap();
    let commands = task.await.unwrap();
    assert_eq!(commands[0], json!({"execute": "qmp_capabilities", "id": 0}));
    assert_eq!(commands[1], json!({"execute": "first", "id": 1}));
    assert_eq!(commands[2], json!({"execute": "second", "id": 2, "arguments": {"x": "y"}}));
}

#[tokio::test]
async fn a_refusal_names_the_command_and_leaves_the_connection_in_step() {
    let refusal = "{\"id\": ID, \"error\": {\"class\": \"GenericError\", \"desc\": \"KVM not enabled\"}}\n";
    let mut client = greeted(&[refusal, OK], true).await;
    let error = client.sev_capabilities().await.unwrap_err();
    assert_eq!(error.to_string(), "qemu refused 'query-sev-capabilities': GenericError: KVM not enabled");
    client.cont().await.unwrap();
}

#[tokio::test]
async fn each_wrong_answer_is_refused_and_ends_the_connection() {
    let long = format!("{{\"return\": \"{}\"}}\n", "x".repeat(MAX_LINE));
    let endless = "x".repeat(2 * MAX_LINE);
    let deep = format!("{{\"return\": {}}}\n", "[".repeat(100));
    let events = "{\"event\": \"X\"}\n".repeat(MAX_EVENTS + 1);
    for (answer, named) in [
        ("not json\n", "not a JSON object"),
        ("{\"id\": ID}\n", "not one of"),
        ("{\"return\": {}, \"error\": {}, \"id\": ID}\n", "not one of"),
        ("{\"error\": {\"class\": \"X\"}, \"id\": ID}\n", "without class"),
        ("{\"return\": {}}\n", "another command"),
        ("{\"return\": {}, \"id\": 7}\n", "another command"),
        ("{\"return\": {}, \"id\": \"ID\"}\n", "another command"),
        ("{\"error\": {\"class\": \"X\", \"desc\": \"y\"}, \"id\": 7}\n", "another command"),
        (HELLO, "second greeting"),
        (&long, "longer"),
        (&endless, "longer"),
        (&deep, "nests deeper"),
        (&events, "nothing but events"),
        ("", "hung up"),
        ("{\"return\": ", "hung up"),
    ] {
        let mut client = greeted(&[answer], true).await;
        let error = client.execute("query", None).await.unwrap_err().to_string();
        assert!(error.contains(named) && error.contains("'query'"), "{named}: {error}");
        let error = client.execute("again", None).await.unwrap_err();
        assert!(matches!(error, QmpError::Broken { command: "again" }), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_qemu_is_given_up() {
    let mut client = greeted(&[""], false).await;
    let error = client.cont().await.unwrap_err();
    assert!(matches!(error, QmpError::Silent { command: "cont", seconds: 30 }), "{error}");
    assert!(matches!(client.cont().await, Err(QmpError::Broken { .. })));

    let error = Client::greet(server("", &[], false).0, PATIENCE).await.unwrap_err();
    assert!(matches!(error, QmpError::Silent { command: GREETING, seconds: 120 }), "{error}");
    let error = Client::greet(server(HELLO, &[""], false).0, PATIENCE).await.unwrap_err();
    assert!(matches!(error, QmpError::Silent { command: "qmp_capabilities", seconds: 120 }), "{error}");
}

#[tokio::test]
async fn another_greeting_is_refused() {
    for (greeting, named) in [
        ("{\"return\": {}}\n", "out of order"),
        ("{\"event\": \"X\"}\n", "out of order"),
        ("SSH-2.0\r\n", "not a JSON object"),
        ("", "hung up"),
    ] {
        let error = Client::greet(server(greeting, &[], true).0, PATIENCE).await.unwrap_err().to_string();
        assert!(error.contains(named) && error.contains("'greeting'"), "{greeting}: {error}");
    }
    let refused = "{\"error\": {\"class\": \"CommandNotFound\", \"desc\": \"x\"}, \"id\": ID}\n";
    let error = Client::greet(server(HELLO, &[refused], true).0, PATIENCE).await.unwrap_err().to_string();
    assert!(error.contains("'qmp_capabilities'") && error.contains("CommandNotFound"), "{error}");
}

fn capabilities() -> Value {
    json!({
        "pdh": STANDARD.encode([1; 2084]), "cert-chain": STANDARD.encode([2; 6252]),
        "cpu0-id": STANDARD.encode([3; 64]), "cbitpos": 51, "reduced-phys-bits": 1, "more": true,
    })
}

fn launch() -> Value {
    json!({
        "enabled": true, "state": "launch-secret", "api-major": 1, "api-minor": 55, "build-id": 21, "policy": 5,
        "handle": 1,
    })
}

fn with(mut value: Value, field: &str, to: Value) -> Value {
    value[field] = to;
    value
}

#[test]
fn capabilities_are_bounded() {
    let good = Capabilities::from_value(&capabilities()).unwrap();
    assert_eq!((good.cbitpos, good.reduced_phys_bits), (51, 1));
    let mut older = capabilities();
    older.as_object_mut().unwrap().remove("cpu0-id");
    assert_eq!(Capabilities::from_value(&older).unwrap().cpu0_id, "");
    for (field, to) in [
        ("pdh", Value::Null),
        ("pdh", json!("")),
        ("pdh", json!("a b")),
        ("pdh", json!(STANDARD.encode(vec![1; 5000]))),
        ("cert-chain", json!(STANDARD.encode(vec![1; 20_000]))),
        ("cert-chain", json!(7)),
        ("cpu0-id", json!(STANDARD.encode([1; 200]))),
        ("cpu0-id", Value::Null),
        ("cbitpos", json!(31)),
        ("cbitpos", json!(64)),
        ("cbitpos", json!(-1)),
        ("cbitpos", json!("51")),
        ("reduced-phys-bits", json!(0)),
        ("reduced-phys-bits", json!(17)),
        ("reduced-phys-bits", json!(1_u64 << 32)),
    ] {
        let error = Capabilities::from_value(&with(capabilities(), field, to.clone())).unwrap_err();
        assert!(matches!(error, QmpError::Field { field: named, .. } if named == field), "{to}: {error}");
    }
    assert!(Capabilities::from_value(&json!([])).is_err());
}

#[test]
fn only_a_measured_paused_sev_guest_is_measured() {
    let good = Launch { api_major: 1, api_minor: 55, build: 21, policy: 5 };
    assert_eq!(Launch::from_value(&launch()).unwrap(), good);
    assert_eq!(Launch::from_value(&with(launch(), "sev-type", json!("sev"))).unwrap(), good);
    for (field, to) in [
        ("enabled", json!(false)),
        ("enabled", json!("true")),
        ("sev-type", json!("sev-snp")),
        ("sev-type", Value::Null),
        ("state", json!("running")),
        ("state", json!("launch-update")),
        ("state", Value::Null),
        ("api-major", json!(256)),
        ("api-minor", json!(-1)),
        ("build-id", json!(1.5)),
        ("policy", json!(1_u64 << 32)),
        ("policy", Value::Null),
    ] {
        let error = Launch::from_value(&with(launch(), field, to.clone())).unwrap_err();
        assert!(matches!(error, QmpError::Field { field: named, .. } if named == field), "{to}: {error}");
    }
}

#[test]
fn a_measurement_is_48_bytes() {
    let text = STANDARD.encode([7; 48]);
    assert_eq!(Measurement::from_value(&json!({ "data": text })).unwrap().as_str(), text);
    for data in
        [json!(STANDARD.encode([7; 47])), json!(STANDARD.encode([7; 49])), json!(""), json!("!"), json!(1)]
    {
        assert!(Measurement::from_value(&json!({ "data": data })).is_err(), "{data}");
    }
    assert!(Measurement::from_value(&json!({})).is_err());
}

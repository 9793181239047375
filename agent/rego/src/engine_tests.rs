//! Policies in the shapes that CoCo's tools write, and what must not get past one.

use serde_json::json;

use super::*;

/// As the stock rules are built: defaults, containers to match, state, ops.
const STOCK: &str = r#"package agent_policy

import future.keywords.in
import future.keywords.every
import future.keywords.if

default CreateContainerRequest := false
default ExecProcessRequest := false
default SetPolicyRequest := false
default UpdateInterfaceRequest := false
default WaitProcessRequest := true

CreateContainerRequest := {"ops": ops, "allowed": true} if {
    print("CreateContainerRequest: input =", input)
    is_null(input.OCI.Hooks)
    some index, container in policy_data.containers
    allow_process(container.process, input.OCI.Process)
    every mount in input.OCI.Mounts {
        allow_mount(container.mounts, mount)
    }
    action := state_allows(input.container_id, index)
    ops := [op | some op in [action]; op != null]
}

allow_process(wanted, given) if {
    print("allow_process: given =", given)
    wanted.Args == given.Args
    every variable in given.Env {
        some pattern in wanted.env
        regex.match(pattern, variable)
    }
}

allow_mount(wanted, given) if {
    some mount in wanted
    mount.type_ == given.type_
    mount.destination == given.destination
    expected := replace(mount.source, "$(device)", base64url.encode("00/01"))
    expected == given.source
}

state_allows(key, value) = action if {
    not data.pstate[key]
    action := {"op": "add", "path": concat("/", ["/pstate", key]), "value": value}
}
state_allows(key, value) = action if {
    data.pstate[key] == value
    action := null
}

ExecProcessRequest if {
    container := policy_data.containers[data.pstate[input.container_id]]
    some command in container.exec
    command == input.process.Args
}

RemoveContainerRequest := {"ops": [{"op": "remove", "path": concat("/", ["/pstate", input.container_id])}], "allowed": true}

UpdateInterfaceRequest if {
    bits.and(input.interface.raw_flags, bits.negate(128)) == 0
    not input.interface.name in ["lo"]
}

policy_data := {"containers": [{
    "process": {"Args": ["/pause"], "env": []},
    "mounts": [],
    "exec": [],
}, {
    "process": {"Args": ["sh", "-c", "true"], "env": ["^PATH=[a-z/:]+$", "^HOSTNAME="]},
    "mounts": [{"type_": "bind", "destination": "/data", "source": "/run/$(device)"}],
    "exec": [["ls", "/"]],
}]}
"#;

fn create() -> serde_json::Value {
    json!({
        "container_id": "c1",
        "OCI": {
            "Hooks": null,
            "Process": {"Args": ["sh", "-c", "true"], "Env": ["PATH=/bin:/usr/bin", "HOSTNAME=a"]},
            "Mounts": [{"type_": "bind", "destination": "/data", "source": "/run/MDAvMDE="}],
        },
    })
}

fn ask(policy: &Policy, request: &str, input: &serde_json::Value) -> Decision {
    policy.allow(request, &input.to_string())
}

fn policy(rules: &str) -> Policy {
    Policy::parse(&format!("package agent_policy\n{rules}\n")).unwrap()
}

#[test]
fn a_pod_lives_by_the_stock_shapes() {
    let policy = Policy::parse(STOCK).unwrap();
    assert!(!policy.allows_failures() && !policy.prints_for_host());
    let exec = json!({"container_id": "c1", "process": {"Args": ["ls", "/"]}});
    assert!(!ask(&policy, "ExecProcessRequest", &exec).allowed, "no such container yet");
    assert_eq!(ask(&policy, "CreateContainerRequest", &create()).denial, None);
    assert!(ask(&policy, "ExecProcessRequest", &exec).allowed);
    assert!(ask(&policy, "CreateContainerRequest", &create()).allowed, "the same again");
    assert!(ask(&policy, "WaitProcessRequest", &json!({})).allowed);
    let remove = json!({"container_id": "c1"});
    assert!(ask(&policy, "RemoveContainerRequest", &remove).allowed);
    assert!(!ask(&policy, "ExecProcessRequest", &exec).allowed, "its state is gone");
    assert!(matches!(ask(&policy, "RemoveContainerRequest", &remove).denial, Some(Denial::Patch(_))));
    for (name, flags, allowed) in [("eth0", 128, true), ("eth0", 129, false), ("lo", 0, false)] {
        let interface = json!({"interface": {"name": name, "raw_flags": flags}});
        assert_eq!(ask(&policy, "UpdateInterfaceRequest", &interface).allowed, allowed, "{interface}");
    }
}

#[test]
fn each_difference_is_denied() {
    for (pointer, value) in [
        ("/OCI/Hooks", json!({"Prestart": []})),
        ("/OCI/Process/Args/2", json!("false")),
        ("/OCI/Process/Env/0", json!("LD_PRELOAD=/x.so")),
        ("/OCI/Mounts/0/source", json!("/run/other")),
        ("/OCI/Mounts/0/type_", json!("tmpfs")),
        ("/OCI", json!(null)),
    ] {
        let policy = Policy::parse(STOCK).unwrap();
        let mut request = create();
        *request.pointer_mut(pointer).unwrap() = value;
        let decision = ask(&policy, "CreateContainerRequest", &request);
        assert!(matches!(decision.denial, Some(Denial::Rule(_))), "{pointer}: {decision:?}");
        assert!(!decision.allowed, "{pointer}");
    }
}

#[test]
fn a_denial_names_the_rule_and_nothing_of_the_request() {
    let policy = Policy::parse(STOCK).unwrap();
    let mut request = create();
    request["OCI"]["Process"]["Args"][0] = json!("very-secret");
    let decision = ask(&policy, "CreateContainerRequest", &request);
    let Some(Denial::Rule(Some(place))) = &decision.denial else { panic!("{decision:?}") };
    assert_eq!(place.rule, "allow_process");
    assert_eq!(
        STOCK.lines().nth(place.line - 1).unwrap().trim(),
        r#"print("allow_process: given =", given)"#
    );
    assert!(!decision.denial.unwrap().to_string().contains("very-secret"));
    assert!(decision.prints.last().unwrap().contains("very-secret"), "the prints are for debugging");
}

#[test]
fn only_a_boolean_or_allowed_with_ops_allows() {
    for (rule, denial) in [
        (r#"A := "true""#, Denial::Answer),
        ("A if { x := y }", Denial::Evaluation),
        ("A := 1", Denial::Answer),
        ("A := [true]", Denial::Answer),
        (r#"A := {"ops": []}"#, Denial::Answer),
        (r#"A := {"allowed": "true"}"#, Denial::Answer),
        (r#"A := {"allowed": true, "user": {"uid": 0}}"#, Denial::Answer),
        (r#"A := {"allowed": true, "ops": {}}"#, Denial::Patch("they are no list")),
        (r#"A := {"allowed": false, "ops": []}"#, Denial::Rule(None)),
        ("A := false", Denial::Rule(None)),
        ("A if { input.x }", Denial::Rule(None)),
        ("B := true", Denial::NoRule),
        ("A := true\nA := false", Denial::Evaluation),
        ("A if { f(1) }\nf(x) if { g(x) }", Denial::Evaluation),
    ] {
        // A text that is refused as a whole denies as well.
        let Ok(policy) = Policy::parse(&format!("package agent_policy\n{rule}\n")) else { continue };
        let decision = ask(&policy, "A", &json!({}));
        assert_eq!((decision.allowed, decision.denial), (false, Some(denial)), "{rule}");
    }
    for rule in ["A := true", r#"A := {"allowed": true}"#, r#"A := {"allowed": true, "ops": null}"#] {
        assert!(ask(&policy(rule), "A", &json!({})).allowed, "{rule}");
    }
}

#[test]
fn a_name_is_no_expression() {
    let policy = policy("A := true");
    for name in ["", "A == false; true", "A.b", "[A]", "A\n"] {
        assert_eq!(policy.allow(name, "{}").denial, Some(Denial::NoRule), "{name}");
    }
    assert_eq!(policy.allow("A", "not json").denial, Some(Denial::Evaluation));
}

#[test]
fn state_is_only_the_policys_own() {
    let policy = policy(
        r#"A := {"allowed": true, "ops": [{"op": "add", "path": "/agent_policy/B", "value": true}]}
default B := false"#,
    );
    assert!(matches!(ask(&policy, "A", &json!({})).denial, Some(Denial::Patch(_))));
    assert!(!ask(&policy, "B", &json!({})).allowed);
}

#[test]
fn a_policy_that_lets_failures_pass_does_so_as_with_the_stock_agent() {
    let lenient = policy("AllowRequestsFailingPolicy := true\ndefault A := false\nB if { 1 == 2 }\nC := 3");
    assert!(lenient.allows_failures() && lenient.prints_for_host());
    for (request, allowed) in [("A", true), ("B", true), ("Unknown", true), ("C", false)] {
        let decision = ask(&lenient, request, &json!({}));
        assert_eq!(decision.allowed, allowed, "{request}");
        assert!(decision.denial.is_some(), "it is still said why");
    }
    assert!(!policy("default AllowRequestsFailingPolicy := false").allows_failures());
    assert!(!policy(r#"AllowRequestsFailingPolicy := "true""#).allows_failures());
    assert!(policy("AllowPrintsForHost := true").prints_for_host());
}

#[test]
fn older_syntax_is_understood() {
    let policy = policy("default A = false\nA { input.x == 1 }\nA { some i; input.y[i] == 2 }");
    assert!(ask(&policy, "A", &json!({"x": 1})).allowed);
    assert!(ask(&policy, "A", &json!({"y": [1, 2]})).allowed);
    assert!(!ask(&policy, "A", &json!({"x": 2})).allowed);
}

#[test]
fn what_is_no_policy_is_refused() {
    for (text, message) in [
        ("", "policy:"),
        ("package agent_policy\nA := ", "policy: "),
        ("package agent_policy\n\nA := {\n", "policy: "),
        ("package other\nA := true\n", "\"other\""),
        ("package agent_policy.more\nA := true\n", "\"agent_policy.more\""),
    ] {
        let error = Policy::parse(text).unwrap_err().to_string();
        assert!(error.contains(message) && error.lines().count() == 1, "{text:?}: {error}");
    }
    assert_eq!(Policy::parse(&" ".repeat(MAX_POLICY + 1)).unwrap_err(), PolicyError::TooLong);
}

#[test]
fn an_endless_evaluation_ends() {
    let policy = Policy::parse_within(
        "package agent_policy
A if { some a in numbers.range(1, 90000); some b in numbers.range(1, 90000); a + b < 0 }
B if { every a in numbers.range(1, 90000) { every b in numbers.range(1, 90000) { a + b > 0 } } }
C := true",
        Duration::from_millis(50),
    )
    .unwrap();
    for request in ["A", "B"] {
        let decision = ask(&policy, request, &json!({}));
        assert!(matches!(decision.denial, Some(Denial::TimeOut | Denial::Evaluation)), "{decision:?}");
    }
    assert!(ask(&policy, "C", &json!({})).allowed, "and the next one is decided");
}

#[test]
fn one_call_cannot_fill_the_memory() {
    let policy = policy(
        "A if { count(numbers.range(1, 1000000000)) > 0 }
B if { count(numbers.range_step(0, 1000000000, 2)) > 0 }
C if { numbers.range(3, 1) == [3, 2, 1]; numbers.range_step(1, 6, 2) == [1, 3, 5] }",
    );
    assert!(!ask(&policy, "A", &json!({})).allowed);
    assert!(!ask(&policy, "B", &json!({})).allowed);
    assert!(ask(&policy, "C", &json!({})).allowed);
    let long = json!({"data": "x".repeat(MAX_INPUT)});
    assert_eq!(ask(&policy, "C", &long).denial, Some(Denial::TooLarge));
}

#[test]
fn recursion_is_no_way_out() {
    let text = |rules: &str| format!("package agent_policy\n{rules}\n");
    for rules in [
        "A if { f(1) }\nf(x) if { f(x + 1) }",
        "f(x) if { g (x) }\ng(x) := y if { y := h(x) } else := 3\nh(x) if { x > 3 } else if { f(x) }",
        "f(x) if { data.agent_policy.f(x) }",
        "f(x) if { h(x) with h as f }\nh(x) if { x }",
        "f(x) := [y | y := f(x)]",
    ] {
        let error = Policy::parse(&text(rules)).err();
        assert!(matches!(error, Some(PolicyError::Recursion(_))), "{rules}: {error:?}");
    }
    let Ok(policy) = Policy::parse(&text("A if { B }\nB if { A }")) else { return };
    assert!(!ask(&policy, "A", &json!({})).allowed);
}

#[test]
fn functions_that_only_look_recursive_pass() {
    let policy = policy(
        r#"A if { f(1) }
f(x) if { print("f(x): f (x)"); g(x) } # f(x)
g(x) if { x == 1 }"#,
    );
    assert!(ask(&policy, "A", &json!({})).allowed);
}

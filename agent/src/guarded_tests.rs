//! Requests under a policy, as the API hands them in.

use protobuf::MessageField;
use protocols::agent::{CreateContainerRequest, ExecProcessRequest};
use protocols::oci::{Process, Spec};

use super::*;

struct NoBroker;

#[async_trait]
impl Resources for NoBroker {
    async fn resource(&self, uri: &ResourceUri) -> Result<Zeroizing<Vec<u8>>, Refusal> {
        Err(Refusal::new(Code::Resource, uri.to_string()))
    }
}

fn guarded(rules: &str) -> Guarded {
    let log = Logger::root(slog::Discard, slog::o!());
    Guarded::new(&format!("package agent_policy\n{rules}\n"), BTreeMap::new(), Box::new(NoBroker), log)
}

async fn admit<R: protobuf::Message + Serialize>(guarded: &Guarded, request: &R) -> Result<(), Refusal> {
    guarded.admit(R::NAME, as_seen(request)?).await
}

fn exec(command: &str) -> ExecProcessRequest {
    let process = Process { Args: vec![command.to_owned()], ..Default::default() };
    ExecProcessRequest { process: MessageField::some(process), ..Default::default() }
}

#[tokio::test]
async fn a_request_is_decided_by_its_messages_name_and_contents() {
    let guarded = guarded(
        r#"ExecProcessRequest if { input.process.Args == ["ls"] }
CreateContainerRequest if { input.OCI.Hostname == "a"; is_null(input.OCI.Hooks) }"#,
    );
    admit(&guarded, &exec("ls")).await.unwrap();
    let refusal = admit(&guarded, &exec("very-secret")).await.unwrap_err();
    assert_eq!(refusal.code, Code::PolicyDenied);
    assert!(refusal.detail.starts_with("ExecProcessRequest: "), "{refusal}");
    assert!(!refusal.detail.contains("very-secret"), "{refusal}");
    let spec = Spec { Hostname: "a".into(), ..Default::default() };
    let mut create = CreateContainerRequest { OCI: MessageField::some(spec), ..Default::default() };
    admit(&guarded, &create).await.unwrap();
    create.OCI.mut_or_insert_default().Hooks = MessageField::some(Default::default());
    admit(&guarded, &create).await.unwrap_err();
    // A message without a rule.
    let refusal = admit(&guarded, &protocols::agent::AddSwapRequest::new()).await.unwrap_err();
    assert!(refusal.detail.contains("AddSwapRequest"), "{refusal}");
}

#[tokio::test]
async fn of_a_copied_file_the_policy_sees_what_it_is() {
    let guarded = guarded(
        r#"CopyFileRequest if { input.file_type == "Regular"; not input.data; input.symlink_target == null }
CopyFileRequest if { input.file_type == "Symlink"; input.symlink_target == "..data/a" }"#,
    );
    let copy =
        |file_mode, data: &[u8]| CopyFileRequest { file_mode, data: data.to_vec(), ..Default::default() };
    admit(&guarded, &copy(libc::S_IFREG | 0o644, b"content")).await.unwrap();
    admit(&guarded, &copy(libc::S_IFLNK | 0o777, b"..data/a")).await.unwrap();
    // Without type bits it is written as a file.
    admit(&guarded, &copy(0o644, b"content")).await.unwrap();
    for refused in [
        copy(libc::S_IFLNK | 0o777, b"/etc/passwd"),
        copy(libc::S_IFLNK | 0o777, b"\xff"),
        copy(libc::S_IFDIR | 0o755, b""),
        copy(libc::S_IFSOCK, b""),
    ] {
        assert_eq!(admit(&guarded, &refused).await.unwrap_err().code, Code::PolicyDenied);
    }
}

#[tokio::test]
async fn another_policy_comes_into_force_only_by_the_one_before() {
    const LOCKED: &str = "package agent_policy\nWaitProcessRequest := true\n";
    let open = guarded(
        "SetPolicyRequest if { contains(input.policy, \"WaitProcess\") }\nExecProcessRequest := true",
    );
    let refusal = open.replace("package agent_policy\nExecProcessRequest := true").await.unwrap_err();
    assert_eq!(refusal.code, Code::PolicyDenied, "the policy says which");
    open.replace(LOCKED).await.unwrap();
    let wait = protocols::agent::WaitProcessRequest::new();
    admit(&open, &wait).await.unwrap();
    assert_eq!(admit(&open, &exec("ls")).await.unwrap_err().code, Code::PolicyDenied);
    assert_eq!(open.replace(LOCKED).await.unwrap_err().code, Code::PolicyDenied, "and that one doesn't");
}

#[tokio::test]
async fn an_invalid_policy_leaves_the_one_in_force_whole() {
    let guarded =
        guarded("SetPolicyRequest := true\nExecProcessRequest if { input.process.Args == [\"ls\"] }");
    for invalid in ["", "package agent_policy\nA := ", "package other\nA := true", "no rego at all {"] {
        assert_eq!(guarded.replace(invalid).await.unwrap_err().code, Code::PolicyInvalid, "{invalid}");
        admit(&guarded, &exec("ls")).await.unwrap();
        admit(&guarded, &exec("sh")).await.unwrap_err();
    }
}

#[tokio::test]
async fn under_a_policy_that_is_none_nothing_is_allowed() {
    let guarded = guarded("CreateSandboxRequest := {");
    assert_eq!(guarded.failure().unwrap().code, Code::PolicyInvalid);
    for refusal in [
        admit(&guarded, &protocols::agent::CreateSandboxRequest::new()).await,
        admit(&guarded, &protocols::agent::SetPolicyRequest::new()).await,
        guarded.replace("package agent_policy\nSetPolicyRequest := true").await,
    ] {
        assert_eq!(refusal.unwrap_err().code, Code::PolicyInvalid);
    }
}

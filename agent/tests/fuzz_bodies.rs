//! Runs the bodies of the agent's fuzz targets on the stable compiler: on random bytes, and on valid requests with a few
//! bytes changed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

#[path = "../../fuzz/bodies/agent.rs"]
mod bodies;

use proptest::prelude::*;
use protobuf::Message as _;
use protocols::agent as wire;
use protocols::oci;
use sealpod_agent::policy::ROWS;

/// As the bodies read a call: number of the method's row, length, payload.
fn call(rpc: &str, request: &impl protobuf::Message) -> Vec<u8> {
    let method = u8::try_from(ROWS.iter().position(|row| row.rpc == rpc).unwrap()).unwrap();
    let payload = request.write_to_bytes().unwrap();
    let mut bytes = vec![method];
    bytes.extend(u16::try_from(payload.len()).unwrap().to_le_bytes());
    bytes.extend(payload);
    bytes
}

/// What a runtime sends for a pod, as far as it gets.
fn lifecycle() -> Vec<u8> {
    let mut sandbox = wire::CreateSandboxRequest::new();
    sandbox.sandbox_id = "s".into();
    sandbox.hostname = "web".into();
    let create = create();
    let mut start = wire::StartContainerRequest::new();
    start.container_id = "c".into();
    let mut exec = wire::ExecProcessRequest::new();
    exec.container_id = "c".into();
    exec.exec_id = "e".into();
    exec.process.mut_or_insert_default().Args = vec!["id".into()];
    let mut signal = wire::SignalProcessRequest::new();
    signal.container_id = "c".into();
    signal.signal = 9;
    let mut policy = wire::SetPolicyRequest::new();
    policy.policy = "default allow := true".into();
    let calls = [
        call("CreateSandbox", &sandbox),
        call("CreateContainer", &create),
        call("StartContainer", &start),
        call("ExecProcess", &exec),
        call("SignalProcess", &signal),
        call("SetPolicy", &policy),
        call("CopyFile", &copy("c-hosts", 0o100_644, 3, 0, b"abc")),
    ];
    calls.concat()
}

fn create() -> wire::CreateContainerRequest {
    let mut spec = oci::Spec::new();
    spec.Version = "1.0.2".into();
    let process = spec.Process.mut_or_insert_default();
    process.Args = vec!["/bin/sh".into()];
    process.Env = vec!["PATH=/bin".into()];
    process.Cwd = "/".into();
    process.Capabilities.mut_or_insert_default().Bounding = vec!["CHOWN".into()];
    spec.Root.mut_or_insert_default().Path = "/run/kata-containers/c/rootfs".into();
    spec.Annotations.insert("io.kubernetes.cri.container-name".into(), "web".into());
    let mut mount = oci::Mount::new();
    mount.destination = "/etc/hosts".into();
    mount.source = "/run/kata-containers/shared/containers/c-hosts".into();
    mount.type_ = "bind".into();
    mount.options = vec!["rbind".into(), "ro".into()];
    spec.Mounts.push(mount);
    let linux = spec.Linux.mut_or_insert_default();
    linux.CgroupsPath = "/kubepods/c".into();
    linux.Sysctl.insert("net.core.somaxconn".into(), "1024".into());
    let mut namespace = oci::LinuxNamespace::new();
    namespace.Type = "mnt".into();
    linux.Namespaces.push(namespace);
    linux.Resources.mut_or_insert_default().Memory.mut_or_insert_default().Limit = 1 << 20;
    let mut request = wire::CreateContainerRequest::new();
    request.container_id = "c".into();
    request.OCI = Some(spec).into();
    request
}

fn copy(path: &str, mode: u32, size: i64, offset: i64, data: &[u8]) -> wire::CopyFileRequest {
    let mut request = wire::CopyFileRequest::new();
    request.path = path.into();
    request.file_mode = mode;
    request.file_size = size;
    request.offset = offset;
    request.data = data.to_vec();
    request
}

/// Directories, links that lead out, files through them, in parts.
fn copies() -> Vec<u8> {
    let requests = [
        copy("d", 0o040_755, 0, 0, b""),
        copy("d/up", 0o120_777, 0, 0, b"../.."),
        copy("d/up/outside", 0o100_644, 3, 0, b"abc"),
        copy("d/file", 0o100_644, 6, 0, b"abc"),
        copy("d/file", 0o100_644, 6, 3, b"def"),
        copy("d/../../outside", 0o100_644, 3, 0, b"abc"),
        copy("d/sticky", 0o107_777, 1, 0, b"x"),
        copy("d/node", 0o020_666, 0, 0, b""),
        copy("d/giant", 0o100_644, i64::MAX, i64::MAX, b"x"),
    ];
    requests.iter().flat_map(|request| call("CopyFile", request)).collect()
}

/// One frame: length, stream, request, no flags, and its ttrpc envelope.
fn frame(rpc: &str, payload: &[u8]) -> Vec<u8> {
    let mut envelope = ttrpc::Request::new();
    envelope.service = "grpc.AgentService".into();
    envelope.method = rpc.into();
    envelope.payload = payload.to_vec();
    let body = envelope.write_to_bytes().unwrap();
    let mut bytes = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend([0, 0, 0, 1, 1, 0]);
    bytes.extend(body);
    bytes
}

/// `good` with some bytes replaced, or cut off.
fn damaged(good: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    let changes = proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..6);
    (changes, any::<proptest::sample::Index>(), any::<bool>()).prop_map(move |(changes, end, cut)| {
        let mut bytes = good.clone();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if cut {
            bytes.truncate(end.index(bytes.len()));
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn random_requests(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        bodies::requests(&bytes);
    }

    #[test]
    fn damaged_lifecycles(bytes in damaged(lifecycle())) {
        bodies::requests(&bytes);
    }

    #[test]
    fn damaged_copies(bytes in damaged(copies())) {
        bodies::copies(&bytes);
    }

    #[test]
    fn damaged_specifications(bytes in damaged(create().write_to_bytes().unwrap())) {
        bodies::specifications(&bytes);
    }

    #[test]
    fn random_frames(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        bodies::frames(&bytes);
    }

    #[test]
    fn damaged_frames(bytes in damaged([frame("GetGuestDetails", b""), frame("SetPolicy", b"\x0a\x01x")].concat())) {
        bodies::frames(&bytes);
    }
}

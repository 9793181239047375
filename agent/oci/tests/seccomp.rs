//! The filters as a kernel enforces them, loaded by the runtime that the agent uses. The test runs itself
//! again, because a filter can't be taken off.

#![allow(clippy::unwrap_used, reason = "a failing test panics")]

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use agent_oci::{AgentFiles, ContainerInput, SharedNamespaces, SubPaths, container_spec};
use oci_spec::runtime::LinuxSeccomp;
use rustix::net::{AddressFamily, SocketType};
use serde_json::json;

const CHILD: &str = "SEALPOD_SECCOMP_CHILD";

fn filter(profile: &str) -> LinuxSeccomp {
    let context = json!({"seccompProfile": {"type": profile}});
    let pod =
        json!({"containers": [{"name": "c", "image": "i", "command": ["/x"], "securityContext": context}]});
    let pod: sealed_spec::PodSpec = serde_json::from_value(pod).unwrap();
    let image = json!({"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": []}});
    let image = serde_json::from_value(image).unwrap();
    let nowhere = PathBuf::from("/nowhere");
    let files = AgentFiles {
        hosts: nowhere.clone(),
        hostname: nowhere.clone(),
        resolv_conf: nowhere.clone(),
        termination_log: nowhere.clone(),
        shm: nowhere.clone(),
    };
    let root = tempfile::tempdir().unwrap();
    let spec = container_spec(&ContainerInput {
        pod: &pod,
        container: &pod.containers[0],
        image: &image,
        rootfs: root.path(),
        files: &files,
        volumes: &BTreeMap::new(),
        sub_paths: &SubPaths::default(),
        namespaces: &SharedNamespaces { ipc: nowhere.clone(), uts: nowhere },
        cgroups_path: Path::new("/c"),
        hostname: "h",
    });
    spec.unwrap().linux().clone().unwrap().seccomp().clone().unwrap()
}

/// Under the filter: what a container does works, what leads to the host doesn't.
fn child(profile: &str) {
    rustix::thread::set_no_new_privs(true).unwrap();
    libcontainer::seccomp::initialize_seccomp(&filter(profile)).unwrap();
    let vsock = AddressFamily::from_raw(40);
    for kind in [SocketType::STREAM, SocketType::SEQPACKET, SocketType::DGRAM] {
        let error = rustix::net::socket(vsock, kind, None).unwrap_err();
        assert_eq!(error, rustix::io::Errno::PERM, "vsock is open");
    }
    rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
    // A thread, and a program that runs another.
    assert_eq!(std::thread::spawn(|| 7).join().unwrap(), 7);
    let output = Command::new("/bin/sh").args(["-c", "ls / >/dev/null && echo fine"]).output().unwrap();
    assert_eq!(output.stdout, b"fine\n", "{output:?}");
    let unshare = Command::new("unshare").args(["--mount", "true"]).output();
    if profile == "RuntimeDefault"
        && let Ok(output) = unshare
    {
        assert!(!output.status.success(), "a new mount namespace is possible");
    }
}

#[test]
fn the_kernel_enforces_each_profile() {
    if let Ok(profile) = std::env::var(CHILD) {
        return child(&profile);
    }
    for profile in ["RuntimeDefault", "Unconfined"] {
        let output: io::Result<_> = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_kernel_enforces_each_profile", "--nocapture"])
            .env(CHILD, profile)
            .output();
        let output = output.unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{profile}: {}\n{text}", output.status);
        assert!(
            String::from_utf8_lossy(&output.stdout).contains("1 passed"),
            "{profile}: the child ran no test"
        );
    }
}

//! The filters as a kernel enforces them, loaded by the runtime that the agent uses. The test runs itself
//! again, because a filter can't be taken off.

#![allow(clippy::unwrap_used, reason = "a failing test panics")]
#![expect(unsafe_code, reason = "calls that no library would make")]

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use agent_oci::{AgentFiles, ContainerInput, SharedNamespaces, SubPaths, Supplied, container_spec};
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
        host_volumes: &BTreeMap::new(),
        extra_mounts: &[],
        supplied: &Supplied::default(),
        sub_paths: &SubPaths::default(),
        namespaces: &SharedNamespaces { ipc: nowhere.clone(), uts: nowhere, pid: None },
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
    // The kernel ignores the upper half of the number.
    assert_eq!(raw(libc::SYS_socket, [1 << 32 | 40, libc::SOCK_STREAM.into()]), Err(libc::EPERM));
    rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
    // A thread, and a program that runs another.
    assert_eq!(std::thread::spawn(|| 7).join().unwrap(), 7);
    let output = Command::new("/bin/sh").args(["-c", "ls / >/dev/null && echo fine"]).output().unwrap();
    assert_eq!(output.stdout, b"fine\n", "{output:?}");
    if profile == "RuntimeDefault" {
        for flag in [libc::CLONE_NEWUSER, libc::CLONE_NEWNS, libc::CLONE_NEWPID] {
            // Flags that the kernel refuses together: past the filter, the answer is another one.
            let flags = i64::from(flag | libc::CLONE_SIGHAND);
            assert_eq!(raw(libc::SYS_clone, [flags, 0]), Err(libc::EPERM), "{flag:x}");
        }
    }
    let unshare = Command::new("unshare").args(["--mount", "true"]).output();
    if profile == "RuntimeDefault"
        && let Ok(output) = unshare
    {
        assert!(!output.status.success(), "a new mount namespace is possible");
    }
}

fn raw(number: i64, [first, second]: [i64; 2]) -> Result<i64, i32> {
    // SAFETY: socket(2) takes no pointers; clone(2) is only called with flags that make no process.
    match unsafe { libc::syscall(number, first, second, 0, 0, 0) } {
        -1 => Err(io::Error::last_os_error().raw_os_error().unwrap()),
        done => Ok(done),
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

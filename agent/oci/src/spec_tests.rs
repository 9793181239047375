//! Golden specifications, and what is refused.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use oci_spec::image::ImageConfiguration;
use sealed_spec::PodSpec;
use serde_json::{Value, json};

use super::*;
use crate::{
    AgentFiles, ExtraMount, HostVolume, SharedNamespaces, SubPaths, Supplied, exec_process, make_working_dir,
};

#[path = "spec_host_tests.rs"]
mod host;

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001:App:/home/app:/bin/sh\nbad line\n";
const GROUP: &str = "root:x:0:\napp:x:1001:\nextra:x:2000:other,app\ndocker:x:2001:app\n";

/// A pod, its image's config and the root file system, all to be bent by a test.
#[derive(Debug)]
struct Case {
    pod: Value,
    image: Value,
    root: tempfile::TempDir,
    sub_paths: SubPaths,
    host_volumes: BTreeMap<usize, HostVolume>,
    extra_mounts: Vec<ExtraMount>,
    supplied: Supplied,
}

impl Case {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        fs::write(root.path().join("etc/passwd"), PASSWD).unwrap();
        fs::write(root.path().join("etc/group"), GROUP).unwrap();
        Self {
            pod: json!({"containers": [{"name": "main", "image": "registry.example/app:1"}]}),
            image: json!({
                "os": "linux", "architecture": "amd64",
                "rootfs": {"type": "layers", "diff_ids": []}, "history": [],
                "config": {"Entrypoint": ["/entry"], "Cmd": ["from", "image"], "Env": ["PATH=/bin", "A=image"]},
            }),
            root,
            sub_paths: SubPaths::default(),
            host_volumes: BTreeMap::new(),
            extra_mounts: Vec::new(),
            supplied: Supplied::default(),
        }
    }

    /// Sets a field of the container; `pod` sets one of the pod.
    fn container(mut self, field: &str, value: Value) -> Self {
        self.pod["containers"][0][field] = value;
        self
    }

    fn pod(mut self, field: &str, value: Value) -> Self {
        self.pod[field] = value;
        self
    }

    fn image(mut self, field: &str, value: Value) -> Self {
        self.image["config"][field] = value;
        self
    }

    fn spec(&self) -> Result<Spec, OciError> {
        let pod: PodSpec = serde_json::from_value(self.pod.clone()).unwrap();
        let image: ImageConfiguration = serde_json::from_value(self.image.clone()).unwrap();
        let run = |name: &str| PathBuf::from("/run/sealpod").join(name);
        let volumes: BTreeMap<String, PathBuf> =
            pod.volumes.iter().map(|v| (v.name.clone(), run("volumes").join(&v.name))).collect();
        container_spec(&ContainerInput {
            pod: &pod,
            container: &pod.containers[0],
            image: &image,
            rootfs: self.root.path(),
            files: &AgentFiles {
                hosts: run("hosts"),
                hostname: run("hostname"),
                resolv_conf: run("resolv.conf"),
                termination_log: run("main/termination-log"),
                shm: run("shm"),
            },
            volumes: &volumes,
            host_volumes: &self.host_volumes,
            extra_mounts: &self.extra_mounts,
            supplied: &self.supplied,
            sub_paths: &self.sub_paths,
            namespaces: &SharedNamespaces { ipc: run("ns/ipc"), uts: run("ns/uts"), pid: None },
            cgroups_path: Path::new("/sealpod/main"),
            hostname: "pod-1",
        })
    }

    fn json(&self) -> Value {
        serde_json::to_value(self.spec().unwrap()).unwrap()
    }

    fn refusal(&self) -> String {
        let error = self.spec().unwrap_err().to_string();
        assert!(!error.contains('\n') && !error.ends_with('.'), "{error}");
        error
    }

    /// Compares the whole specification with a file; `SEALPOD_BLESS=1` writes it.
    fn golden(&self, name: &str) {
        let mut spec = self.json();
        spec["root"]["path"] = json!("ROOT");
        sort_sets(&mut spec);
        let text = format!("{}\n", serde_json::to_string_pretty(&spec).unwrap());
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name);
        if std::env::var_os("SEALPOD_BLESS").is_some() {
            fs::write(&file, &text).unwrap();
        }
        let golden = fs::read_to_string(&file).unwrap_or_default();
        assert_eq!(text, golden, "differs from {}; SEALPOD_BLESS=1 writes it", file.display());
    }
}

/// Capabilities are sets in the library and lists in JSON.
fn sort_sets(spec: &mut Value) {
    for set in ["bounding", "effective", "permitted"] {
        if let Some(list) = spec["process"]["capabilities"][set].as_array_mut() {
            list.sort_by_key(Value::to_string);
        }
    }
}

#[test]
fn a_plain_container() {
    Case::new().golden("plain.json");
}

#[test]
fn a_container_with_everything() {
    let case = Case::new()
        .pod("volumes", json!([{"name": "data", "emptyDir": {}}, {"name": "mem", "emptyDir": {"medium": "Memory"}}]))
        .pod(
            "securityContext",
            json!({
                "runAsUser": 1, "runAsNonRoot": true, "supplementalGroups": [30, 20], "fsGroup": 40,
                "sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}],
            }),
        )
        .container("command", json!(["/run", "$(A)", "$$(A)", "$(NOPE)"]))
        .container("args", json!(["--b=$(B)"]))
        .container("env", json!([{"name": "A", "value": "pod"}, {"name": "B", "value": "$(A)-$(LATER)"}, {"name": "LATER", "value": "x"}]))
        .container("workingDir", json!("/srv/here"))
        .container("tty", json!(true))
        .container("terminationMessagePath", json!("/tmp/last"))
        .container("resources", json!({"requests": {"cpu": "100m", "memory": "8Mi"}, "limits": {"cpu": "1", "memory": "16Mi"}}))
        .container(
            "volumeMounts",
            json!([
                {"name": "data", "mountPath": "/data/deep", "readOnly": true},
                {"name": "mem", "mountPath": "/dev/shm"}, {"name": "data", "mountPath": "/data"},
            ]),
        )
        .container(
            "securityContext",
            json!({
                "runAsUser": 1000, "runAsGroup": 7, "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]},
            }),
        );
    case.golden("everything.json");
}

#[test]
fn an_unconfined_container_still_has_no_vsock() {
    let case = Case::new().container(
        "securityContext",
        json!({"seccompProfile": {"type": "Unconfined"}, "procMount": "Unmasked"}),
    );
    case.golden("unconfined.json");
    let spec = case.json();
    let masked = spec["linux"]["maskedPaths"].to_string();
    for path in ALWAYS_MASKED {
        assert!(masked.contains(path), "{path}");
    }
    // Nor a way to the kernel's parameters, which belong to the whole guest.
    assert_eq!(spec["linux"]["readonlyPaths"], json!(READ_ONLY));
}

#[test]
fn commands_and_arguments_merge_as_in_kubernetes() {
    let args = |case: Case| case.json()["process"]["args"].clone();
    assert_eq!(args(Case::new()), json!(["/entry", "from", "image"]));
    assert_eq!(args(Case::new().container("args", json!(["x"]))), json!(["/entry", "x"]));
    assert_eq!(args(Case::new().container("command", json!(["/c"]))), json!(["/c"]));
    assert_eq!(
        args(Case::new().container("command", json!(["/c"])).container("args", json!(["x"]))),
        json!(["/c", "x"])
    );
    assert_eq!(args(Case::new().image("Entrypoint", Value::Null)), json!(["from", "image"]));
    let nothing = Case::new().image("Entrypoint", Value::Null).image("Cmd", Value::Null);
    assert!(nothing.refusal().contains("no command"));
    // The image's own words are not expanded, and its environment isn't what $(NAME) means.
    assert_eq!(args(Case::new().image("Cmd", json!(["$(A)"]))), json!(["/entry", "$(A)"]));
    assert_eq!(args(Case::new().container("args", json!(["$(A)"]))), json!(["/entry", "$(A)"]));
}

#[test]
fn the_environment_has_its_defaults() {
    let env = |case: Case| case.json()["process"]["env"].clone();
    assert_eq!(env(Case::new()), json!(["PATH=/bin", "A=image", "HOSTNAME=pod-1", "HOME=/root"]));
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(env(Case::new().image("Env", Value::Null)), json!(["HOSTNAME=pod-1", path, "HOME=/root"]));
    let own = json!([{"name": "HOME", "value": "/h"}, {"name": "HOSTNAME", "value": "me"}, {"name": "A", "value": ""}]);
    assert_eq!(env(Case::new().container("env", own)), json!(["PATH=/bin", "A=", "HOSTNAME=me", "HOME=/h"]));
    // An empty HOME would be looked up by libc.
    let empty = json!([{"name": "HOME", "value": ""}]);
    assert_eq!(env(Case::new().container("env", empty))[3], json!("HOME=/root"));
    assert_eq!(env(Case::new().image("User", json!("4242")))[3], json!("HOME=/"));
}

#[test]
fn users_are_looked_up_in_the_image() {
    let user = |case: Case| case.json()["process"]["user"].clone();
    let wanted =
        |uid: u32, gid: u32, groups: &[u32]| json!({"uid": uid, "gid": gid, "additionalGids": groups});
    assert_eq!(user(Case::new()), wanted(0, 0, &[0]));
    assert_eq!(user(Case::new().image("User", json!("app"))), wanted(1000, 1001, &[1001, 2000, 2001]));
    assert_eq!(user(Case::new().image("User", json!("1000"))), wanted(1000, 1001, &[1001, 2000, 2001]));
    assert_eq!(user(Case::new().image("User", json!("app:extra"))), wanted(1000, 2000, &[2000, 2001]));
    assert_eq!(user(Case::new().image("User", json!("77:88"))), wanted(77, 88, &[88]));
    assert_eq!(user(Case::new().image("User", json!("77"))), wanted(77, 0, &[0]));
    let run_as =
        |context: Value| Case::new().image("User", json!("app:extra")).container("securityContext", context);
    // The pod's user takes the image's group away too.
    assert_eq!(user(run_as(json!({"runAsUser": 5}))), wanted(5, 0, &[0]));
    assert_eq!(user(run_as(json!({"runAsGroup": 9}))), wanted(1000, 9, &[9, 2000, 2001]));
    let strict = Case::new()
        .image("User", json!("app"))
        .pod("securityContext", json!({"supplementalGroupsPolicy": "Strict", "supplementalGroups": [3]}));
    assert_eq!(user(strict), wanted(1000, 1001, &[3, 1001]));
}

#[test]
fn unknown_users_are_refused() {
    assert!(Case::new().image("User", json!("nobody")).refusal().contains("\"nobody\""));
    assert!(Case::new().image("User", json!("app:nogroup")).refusal().contains("\"nogroup\""));
    Case::new().image("User", json!("4294967295")).refusal();
    Case::new().image("User", json!("4294967296")).refusal();
    Case::new().image("User", json!("-1")).refusal();
}

#[test]
fn run_as_non_root_decides_on_the_user_that_runs() {
    let non_root = |user: &str| {
        Case::new().image("User", json!(user)).pod("securityContext", json!({"runAsNonRoot": true}))
    };
    for root in ["", "0", "root", "0:1000"] {
        assert!(non_root(root).refusal().contains("runAsNonRoot"), "{root}");
    }
    non_root("app").spec().unwrap();
    non_root("1000").spec().unwrap();
    non_root("root").container("securityContext", json!({"runAsUser": 1})).spec().unwrap();
    non_root("app").container("securityContext", json!({"runAsUser": 0})).refusal();
    non_root("root").container("securityContext", json!({"runAsNonRoot": false})).spec().unwrap();
    // A user of another name with id 0 is root.
    let toor = non_root("toor");
    fs::write(toor.root.path().join("etc/passwd"), "toor:x:0:0::/:/bin/sh\n").unwrap();
    toor.refusal();
}

#[test]
fn user_files_are_never_read_outside_the_root() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("passwd"), "outsider:x:1:1::/:\n").unwrap();
    let deep = "../../../../../../../../../../..";
    for target in [
        outside.path().join("passwd"),
        PathBuf::from(format!("{deep}{}", outside.path().join("passwd").display())),
    ] {
        let case = Case::new().image("User", json!("outsider"));
        let passwd = case.root.path().join("etc/passwd");
        fs::remove_file(&passwd).unwrap();
        symlink(target, &passwd).unwrap();
        assert!(case.refusal().contains("outsider"));
    }
    // An absolute link means a place inside, as for the container's own processes.
    let case = Case::new().image("User", json!("inside"));
    fs::remove_file(case.root.path().join("etc/passwd")).unwrap();
    symlink("/files/passwd", case.root.path().join("etc/passwd")).unwrap();
    fs::create_dir(case.root.path().join("files")).unwrap();
    fs::write(case.root.path().join("files/passwd"), "inside:x:3:4::/:\n").unwrap();
    assert_eq!(case.json()["process"]["user"]["uid"], json!(3));
    // Something that isn't a file is refused, and doesn't stop the agent.
    for make in [
        |p: &Path| fs::create_dir(p).unwrap(),
        |p: &Path| {
            rustix::fs::mknodat(rustix::fs::CWD, p, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        },
    ] {
        let case = Case::new();
        let passwd = case.root.path().join("etc/passwd");
        fs::remove_file(&passwd).unwrap();
        make(&passwd);
        assert!(case.refusal().contains("not a regular file"));
    }
    let none = Case::new();
    fs::remove_dir_all(none.root.path().join("etc")).unwrap();
    none.spec().unwrap();
}

#[test]
fn what_would_open_the_guest_is_refused() {
    let with = |context: Value| Case::new().container("securityContext", context);
    assert!(with(json!({"privileged": true})).refusal().contains("privileged"));
    with(json!({"privileged": false})).spec().unwrap();
    assert!(with(json!({"capabilities": {"add": ["SYS_ADMIN"]}})).refusal().contains("SYS_ADMIN"));
    let sysctl = json!({"sysctls": [{"name": "kernel.core_pattern", "value": "1"}]});
    assert!(Case::new().pod("securityContext", sysctl).refusal().contains("kernel.core_pattern"));
    let gpu = json!({"limits": {"nvidia.com/gpu": "1"}});
    assert!(Case::new().container("resources", gpu).refusal().contains("nvidia.com/gpu"));
}

#[test]
fn volumes_that_are_not_there_or_in_the_way_are_refused() {
    let mounts = |mounts: Value| {
        Case::new().pod("volumes", json!([{"name": "v", "emptyDir": {}}])).container("volumeMounts", mounts)
    };
    mounts(json!([{"name": "v", "mountPath": "/v"}])).spec().unwrap();
    for bad in [
        json!([{"name": "other", "mountPath": "/v"}]),
        json!([{"name": "v", "mountPath": "/v", "subPath": "not-bound"}]),
        json!([{"name": "v", "mountPath": "/proc/sys"}]),
        json!([{"name": "v", "mountPath": "/sys"}]),
        json!([{"name": "v", "mountPath": "/v/../../proc"}]),
        json!([{"name": "v", "mountPath": "/"}]),
        json!([{"name": "v", "mountPath": "/v"}, {"name": "v", "mountPath": "/v/"}]),
        json!([{"name": "v", "mountPath": "/dev/termination-log"}]),
    ] {
        mounts(bad).refusal();
    }
}

#[test]
fn an_exec_has_the_containers_own_rights() {
    let spec = Case::new()
        .image("User", json!("app"))
        .container(
            "securityContext",
            json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}),
        )
        .spec()
        .unwrap();
    let argv = ["/bin/ls".to_owned(), "$(A)".to_owned()];
    let process = exec_process(&spec, &argv, false).unwrap();
    let own = spec.process().as_ref().unwrap();
    assert_eq!(process.args().as_deref().unwrap(), argv);
    assert_eq!(process.user(), own.user());
    assert_eq!(process.env(), own.env());
    assert_eq!(process.capabilities(), own.capabilities());
    assert_eq!(process.no_new_privileges(), Some(true));
    assert_eq!(process.cwd(), own.cwd());
    let terminal = exec_process(&spec, &argv, true).unwrap();
    assert!(terminal.env().as_ref().unwrap().contains(&"TERM=xterm".to_owned()));
    exec_process(&spec, &[], false).unwrap_err();
    exec_process(&spec, &["a\0b".to_owned()], false).unwrap_err();
}

#[test]
fn working_directories_are_made_inside_the_root() {
    let outside = tempfile::tempdir().unwrap();
    let made = |dir: &str, prepare: &dyn Fn(&Path)| {
        let case = Case::new().container("workingDir", json!(dir));
        prepare(case.root.path());
        let result = make_working_dir(case.root.path(), &case.spec().unwrap());
        result.map(|()| case)
    };
    let case = made("/a/b", &|_| {}).unwrap();
    assert!(case.root.path().join("a/b").is_dir());
    let case = made("/link/b", &|root| {
        symlink("/real", root.join("link")).and_then(|()| fs::create_dir(root.join("real"))).unwrap();
    })
    .unwrap();
    assert!(case.root.path().join("real/b").is_dir());
    made("/out/b", &|root| symlink(outside.path(), root.join("out")).unwrap()).unwrap_err();
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    made("/etc/passwd", &|_| {}).unwrap_err();
    assert!(Case::new().container("workingDir", json!("/a/../..")).refusal().contains("workingDir"));
    assert_eq!(Case::new().image("WorkingDir", json!("rel/")).json()["process"]["cwd"], json!("/rel"));
}

#[test]
fn seccomp_closes_vsock_in_every_profile() {
    for (profile, rule) in [
        (json!(null), json!({"index": 0, "value": 40, "op": "SCMP_CMP_LT"})),
        (json!({"type": "RuntimeDefault"}), json!({"index": 0, "value": 40, "op": "SCMP_CMP_LT"})),
        (json!({"type": "Unconfined"}), json!({"index": 0, "value": 40, "op": "SCMP_CMP_EQ"})),
    ] {
        let spec = Case::new().container("securityContext", json!({"seccompProfile": profile})).json();
        let seccomp = &spec["linux"]["seccomp"];
        assert_eq!(seccomp["architectures"], json!(["SCMP_ARCH_X86_64"]));
        let rules = seccomp["syscalls"].as_array().unwrap();
        let socket: Vec<_> = rules.iter().filter(|r| r["names"] == json!(["socket"])).collect();
        assert_eq!(socket[0]["args"], json!([rule]));
        let allowed = |name: &str| {
            let named = |r: &&Value| r["names"].as_array().unwrap().contains(&json!(name));
            match rules.iter().find(named) {
                Some(rule) => rule["action"] == json!("SCMP_ACT_ALLOW"),
                None => seccomp["defaultAction"] == json!("SCMP_ACT_ALLOW"),
            }
        };
        for never in ["io_uring_setup", "io_uring_enter", "io_uring_register", "bpf"] {
            assert!(!allowed(never), "{never}");
        }
        assert!(allowed("read") && allowed("execve"));
    }
    let with = |names: Value| {
        Case::new()
            .container("securityContext", json!({"capabilities": {"drop": ["ALL"], "add": names}}))
            .json()["linux"]["seccomp"]
            .to_string()
    };
    assert!(!with(json!([])).contains("\"chroot\""));
    assert!(with(json!(["SYS_CHROOT"])).contains("\"chroot\""));
}

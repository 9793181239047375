//! The plain path through the API, with real containers: what the host describes is what runs.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod bed;

use std::fs;
use std::path::Path;

use bed::{Bed, bed, code, soon};
use nix::mount::{MsFlags, mount};
use protocols::{agent as wire, oci};

const CONTAINERS: &str = "/run/kata-containers";

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|s| (*s).to_owned()).collect()
}

/// `/run/kata-containers` of the test's own.
fn own_containers() {
    fs::create_dir_all(CONTAINERS).unwrap();
    mount(Some("tmpfs"), CONTAINERS, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
}

fn bind(source: &str, destination: &str) -> oci::Mount {
    oci::Mount {
        destination: destination.into(),
        source: source.into(),
        type_: "bind".into(),
        options: strings(&["rbind", "rw"]),
        ..Default::default()
    }
}

/// A container as the wire has it: programs of this machine, everything else its own.
fn container(bed: &Bed, id: &str, script: &str) -> wire::CreateContainerRequest {
    let root = bed.directory.join("roots").join(id);
    fs::create_dir_all(root.join("etc")).unwrap();
    fs::write(root.join("etc/resolv.conf"), "of the image\n").unwrap();
    let mut mounts = vec![
        oci::Mount {
            destination: "/proc".into(),
            source: "proc".into(),
            type_: "proc".into(),
            ..Default::default()
        },
        oci::Mount {
            destination: "/dev".into(),
            source: "tmpfs".into(),
            type_: "tmpfs".into(),
            ..Default::default()
        },
    ];
    for program in ["/bin", "/lib", "/lib64", "/usr"].into_iter().filter(|p| Path::new(p).exists()) {
        mounts.push(bind(program, program));
    }
    let namespace = |kind: &str| oci::LinuxNamespace { Type: kind.into(), ..Default::default() };
    let linux = oci::Linux {
        Namespaces: ["mnt", "ipc", "uts", "pid", "pid", "network"].map(namespace).to_vec(),
        CgroupsPath: format!("{}/{id}", bed.cgroup),
        MaskedPaths: strings(&["/proc/kcore"]),
        ReadonlyPaths: strings(&["/proc/sys"]),
        ..Default::default()
    };
    let capabilities = strings(&["CHOWN", "KILL", "SETUID"]);
    let sets = oci::LinuxCapabilities {
        Bounding: capabilities.clone(),
        Effective: capabilities.clone(),
        Permitted: capabilities,
        ..Default::default()
    };
    let process = oci::Process {
        Args: strings(&["/bin/sh", "-c", script]),
        Env: strings(&["PATH=/usr/bin:/bin", "WHO=host"]),
        Cwd: "/work/dir".into(),
        Capabilities: Some(sets).into(),
        ApparmorProfile: "cri-containerd.apparmor.d".into(),
        Rlimits: vec![oci::POSIXRlimit {
            Type: "RLIMIT_NOFILE".into(),
            Hard: 777,
            Soft: 777,
            ..Default::default()
        }],
        ..Default::default()
    };
    let spec = oci::Spec {
        Process: Some(process).into(),
        Root: Some(oci::Root { Path: root.display().to_string(), ..Default::default() }).into(),
        Mounts: mounts,
        Linux: Some(linux).into(),
        Hostname: "ignored".into(),
        ..Default::default()
    };
    wire::CreateContainerRequest { container_id: id.into(), OCI: Some(spec).into(), ..Default::default() }
}

fn memory(point: &str) -> wire::Storage {
    wire::Storage {
        driver: "ephemeral".into(),
        source: "shm".into(),
        fstype: "tmpfs".into(),
        options: strings(&["noexec", "nosuid", "nodev", "mode=1777", "size=1048576"]),
        mount_point: point.into(),
        ..Default::default()
    }
}

async fn sandbox(bed: &Bed, change: impl FnOnce(&mut wire::CreateSandboxRequest)) {
    let mut request = wire::CreateSandboxRequest {
        hostname: "pod-1".into(),
        sandbox_id: "sandbox1".into(),
        dns: strings(&["nameserver 192.0.2.1", ""]),
        storages: vec![memory("/run/kata-containers/sandbox/shm")],
        ..Default::default()
    };
    change(&mut request);
    bed.agent.create_sandbox(soon(), &request).await.unwrap();
}

fn mounted(point: &str) -> Option<String> {
    let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    table.lines().find(|line| line.contains(&format!(" {point} "))).map(str::to_owned)
}

#[test]
fn what_the_host_describes_is_what_runs() {
    bed(|bed| async move {
        own_containers();
        let early = container(&bed, "c0", "true");
        assert_eq!(code(bed.agent.create_container(soon(), &early).await), ttrpc::Code::INTERNAL);
        sandbox(&bed, |_| ()).await;
        let again = wire::CreateSandboxRequest::new();
        assert_eq!(code(bed.agent.create_sandbox(soon(), &again).await), ttrpc::Code::INTERNAL);
        let shm = mounted("/run/kata-containers/sandbox/shm").unwrap();
        assert!(shm.contains("noexec") && shm.contains("size=1024k"), "{shm}");

        let script = "hostname; pwd; echo $WHO $$; ulimit -n; cat /etc/resolv.conf; grep CapBnd /proc/self/status; \
                      echo shared > /dev/shm/x; touch /proc/sys/kernel/x 2>/dev/null || echo read-only; exit 3";
        let mut create = container(&bed, "c1", script);
        let spec = create.OCI.as_mut().unwrap();
        spec.Mounts.push(bind("/run/kata-containers/sandbox/shm", "/dev/shm"));
        bed.agent.create_container(soon(), &create).await.unwrap();
        assert_eq!(code(bed.agent.create_container(soon(), &create).await), ttrpc::Code::INTERNAL);
        bed.start("c1").await.unwrap();
        let output = bed.output("c1", "").await;
        let lines: Vec<&str> = output.lines().collect();
        assert_eq!(lines[..5], ["pod-1", "/work/dir", "host 1", "777", "nameserver 192.0.2.1"], "{output}");
        assert!(output.contains("CapBnd:\t00000000000000a1"), "{output}");
        assert_eq!(lines.last(), Some(&"read-only"));
        assert_eq!(bed.wait("c1", "").await, 3);
        bed.remove("c1").await.unwrap();

        // Another container finds what the first has left in the pod's memory.
        let mut create = container(&bed, "c2", "cat /dev/shm/x; read line; echo $line");
        create.OCI.as_mut().unwrap().Mounts.push(bind("/run/kata-containers/sandbox/shm", "/dev/shm"));
        create.storages = vec![memory("/run/kata-containers/sandbox/ephemeral/v")];
        bed.agent.create_container(soon(), &create).await.unwrap();
        bed.start("c2").await.unwrap();
        bed.until("c2", "", "shared").await;
        let exec = wire::ExecProcessRequest {
            container_id: "c2".into(),
            exec_id: "e1".into(),
            process: Some(oci::Process {
                Args: strings(&["/bin/sh", "-c", "echo exec $0; exit 7"]),
                Env: strings(&["PATH=/bin"]),
                ..Default::default()
            })
            .into(),
            ..Default::default()
        };
        bed.agent.exec_process(soon(), &exec).await.unwrap();
        assert_eq!(bed.output("c2", "e1").await, "exec /bin/sh\n");
        assert_eq!(bed.wait("c2", "e1").await, 7);
        bed.write("c2", "", b"word\n").await.unwrap();
        assert_eq!(bed.output("c2", "").await, "word\n");

        // The sandbox' end takes everything with it.
        let end = wire::DestroySandboxRequest::new();
        bed.agent.destroy_sandbox(soon(), &end).await.unwrap();
        assert!(bed.core.container_ids().is_empty());
        assert_eq!(mounted("/run/kata-containers/sandbox/shm"), None);
        assert_eq!(mounted("/run/kata-containers/sandbox/ephemeral/v"), None);
        assert_eq!(code(bed.agent.create_container(soon(), &early).await), ttrpc::Code::INTERNAL);
    });
}

/// What containerd's default specification has beside what [`container`] has.
fn as_containerd_writes_it(spec: &mut oci::Spec) {
    let kernel = |destination: &str, kind: &str, options: &[&str]| oci::Mount {
        destination: destination.into(),
        source: kind.into(),
        type_: kind.into(),
        options: strings(options),
        ..Default::default()
    };
    let programs: Vec<_> = spec.Mounts.drain(2..).collect();
    spec.Mounts = vec![
        kernel("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        kernel("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        kernel(
            "/dev/pts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        kernel("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        kernel("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        kernel("/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
        kernel("/run", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
    ];
    spec.Mounts.extend(programs);
    spec.Root.as_mut().unwrap().Readonly = true;
    let rule = |allow, kind: &str, major, minor, access: &str| oci::LinuxDeviceCgroup {
        Allow: allow,
        Type: kind.into(),
        Major: major,
        Minor: minor,
        Access: access.into(),
        ..Default::default()
    };
    let resources = oci::LinuxResources {
        Devices: vec![
            rule(false, "", 0, 0, "rwm"),
            rule(true, "c", 1, 3, "rwm"),
            rule(true, "c", 5, 0, "rwm"),
            rule(true, "c", 136, -1, "rwm"),
        ],
        Memory: Some(oci::LinuxMemory { Limit: 64 << 20, ..Default::default() }).into(),
        CPU: Some(oci::LinuxCPU { Shares: 2, Period: 100_000, ..Default::default() }).into(),
        Pids: Some(oci::LinuxPids { Limit: 32, ..Default::default() }).into(),
        ..Default::default()
    };
    let call = oci::LinuxSyscall {
        Names: strings(&["sethostname", "no_such_call"]),
        Action: "SCMP_ACT_ERRNO".into(),
        ..Default::default()
    };
    let filter = oci::LinuxSeccomp {
        DefaultAction: "SCMP_ACT_ALLOW".into(),
        Architectures: strings(&["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]),
        Syscalls: vec![call],
        ..Default::default()
    };
    let linux = spec.Linux.as_mut().unwrap();
    linux.Resources = Some(resources).into();
    linux.Seccomp = Some(filter).into();
    linux.RootfsPropagation = "rslave".into();
    linux.Namespaces.push(oci::LinuxNamespace { Type: "cgroup".into(), ..Default::default() });
}

#[test]
fn a_specification_of_containerds_and_hooks_of_the_guest() {
    use std::os::unix::fs::PermissionsExt;
    bed(|bed| async move {
        own_containers();
        let hooks = bed.directory.join("hooks");
        let ran = bed.directory.join("ran");
        for kind in ["prestart", "poststart", "poststop"] {
            fs::create_dir_all(hooks.join(kind)).unwrap();
            let script = format!("#!/bin/sh\necho $1 >> {}\n", ran.display());
            fs::write(hooks.join(kind).join("hook"), script).unwrap();
            fs::set_permissions(hooks.join(kind).join("hook"), fs::Permissions::from_mode(0o755)).unwrap();
        }
        sandbox(&bed, |request| request.guest_hook_path = hooks.display().to_string()).await;
        let script = "touch /new 2>/dev/null || echo root is read-only; ls -d /sys/fs/cgroup /dev/pts/ptmx; \
                      grep Seccomp: /proc/self/status; test -e /dev/mqueue && echo end";
        let mut create = container(&bed, "c1", script);
        as_containerd_writes_it(create.OCI.as_mut().unwrap());
        create.OCI.as_mut().unwrap().Process.as_mut().unwrap().Cwd = "/".into();
        for directory in ["proc", "dev", "sys", "run", "bin", "lib", "lib64", "usr"] {
            fs::create_dir_all(bed.directory.join("roots/c1").join(directory)).unwrap();
        }
        bed.agent.create_container(soon(), &create).await.unwrap();
        bed.start("c1").await.unwrap();
        let output = bed.output("c1", "").await;
        assert_eq!(output, "root is read-only\n/dev/pts/ptmx\n/sys/fs/cgroup\nSeccomp:\t2\nend\n");
        assert_eq!(bed.wait("c1", "").await, 0);
        bed.remove("c1").await.unwrap();
        let ran = fs::read_to_string(ran).unwrap();
        assert_eq!(ran.lines().count(), 3, "{ran}");
    });
}

#[test]
fn containers_see_each_others_processes_when_the_pod_shares_them() {
    bed(|bed| async move {
        own_containers();
        sandbox(&bed, |request| request.sandbox_pidns = true).await;
        let mut pause = container(&bed, "sandbox1", "never run");
        let spec = pause.OCI.as_mut().unwrap();
        spec.Annotations.insert("io.kubernetes.cri.container-type".into(), "sandbox".into());
        // The pause image that the host names isn't needed.
        spec.Root.as_mut().unwrap().Path = "/nowhere".into();
        bed.agent.create_container(soon(), &pause).await.unwrap();
        bed.start("sandbox1").await.unwrap();
        bed.agent.create_container(soon(), &container(&bed, "c1", "echo $$; exec sleep 4242")).await.unwrap();
        bed.start("c1").await.unwrap();
        let own = bed.until("c1", "", "\n").await;
        assert_ne!(own.trim(), "1");
        let look = "until tr '\\0' ' ' < /proc/$1/cmdline | grep 'sleep 4242'; do sleep 0.01; done; echo $$";
        let script = format!("set -- {}; {look}", own.trim());
        bed.agent.create_container(soon(), &container(&bed, "c2", &script)).await.unwrap();
        bed.start("c2").await.unwrap();
        assert!(bed.output("c2", "").await.starts_with("sleep 4242"));
        assert_eq!(bed.wait("c2", "").await, 0);
        bed.signal("c1", "", libc::SIGKILL).await.unwrap();
        assert_eq!(bed.wait("c1", "").await, 137);
        bed.signal("sandbox1", "", libc::SIGKILL).await.unwrap();
        assert_eq!(bed.wait("sandbox1", "").await, 137);
        bed.agent.destroy_sandbox(soon(), &wire::DestroySandboxRequest::new()).await.unwrap();
    });
}

#[test]
fn what_fails_leaves_nothing_behind() {
    bed(|bed| async move {
        own_containers();
        sandbox(&bed, |_| ()).await;
        let point = "/run/kata-containers/c1/volume";
        let volume = || wire::Storage { driver: "bind".into(), source: "/usr/bin".into(), ..memory(point) };
        type Change = Box<dyn Fn(&mut wire::CreateContainerRequest)>;
        let cases: Vec<(Change, &str)> = vec![
            (Box::new(|r| r.OCI = None.into()), "no content"),
            (Box::new(|r| r.OCI.as_mut().unwrap().Process = None.into()), "no process"),
            (Box::new(|r| r.OCI.as_mut().unwrap().Process.as_mut().unwrap().Args.clear()), "what to run"),
            (
                Box::new(|r| r.OCI.as_mut().unwrap().Root.as_mut().unwrap().Path = "/".into()),
                "no container's root",
            ),
            (
                Box::new(|r| r.OCI.as_mut().unwrap().Root.as_mut().unwrap().Path = "/no/where".into()),
                "not there",
            ),
            (
                Box::new(|r| r.OCI.as_mut().unwrap().Linux.as_mut().unwrap().CgroupsPath = "/../c1".into()),
                "cgroup",
            ),
            (
                Box::new(|r| {
                    r.storages
                        .push(wire::Storage { driver: "nfs".into(), ..memory("/run/kata-containers/n") });
                }),
                "no driver 'nfs'",
            ),
            (Box::new(|r| r.storages.push(memory("/etc"))), "/etc"),
            (
                Box::new(|r| {
                    r.devices.push(wire::Device {
                        type_: "blk".into(),
                        id: "zz".into(),
                        container_path: "/dev/x".into(),
                        ..Default::default()
                    });
                }),
                "not a PCI path",
            ),
            (Box::new(|r| r.shared_mounts.push(wire::SharedMount::new())), "not supported"),
            (Box::new(|r| r.stdin_port = 7), "not supported"),
            (
                Box::new(|r| {
                    r.OCI.as_mut().unwrap().Process.as_mut().unwrap().Args = strings(&["/no/program"]);
                }),
                "command",
            ),
        ];
        for (change, word) in cases {
            let mut create = container(&bed, "c1", "true");
            create.storages = vec![wire::Storage { options: Vec::new(), fstype: "bind".into(), ..volume() }];
            create.storages[0].source = bed.directory.display().to_string() + "/roots";
            change(&mut create);
            let error = bed.agent.create_container(soon(), &create).await.unwrap_err();
            let ttrpc::Error::RpcStatus(status) = &error else { panic!("{error:?}") };
            assert_eq!(status.code(), ttrpc::Code::INTERNAL, "{word}: {error}");
            assert!(status.message.contains(word), "{word}: {}", status.message);
            assert_eq!(mounted(point), None, "{word}");
            assert!(bed.core.container_ids().is_empty(), "{word}");
            assert!(!bed.directory.join("state/containers/c1").exists(), "{word}");
        }
        // The id is free all the same.
        bed.agent.create_container(soon(), &container(&bed, "c1", "exit 5")).await.unwrap();
        bed.start("c1").await.unwrap();
        assert_eq!(bed.wait("c1", "").await, 5);
    });
}

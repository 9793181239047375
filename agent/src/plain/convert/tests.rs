//! What the conversion makes of each section, and what it refuses.

use libcontainer::oci_spec::runtime::{Capability, LinuxDeviceType, LinuxNamespaceType};
use proptest::prelude::*;

use super::*;

fn minimal() -> wire::Spec {
    let process = wire::Process {
        Args: vec!["sh".into()],
        Env: vec!["PATH=/bin".into()],
        Cwd: "/".into(),
        ..wire::Process::default()
    };
    wire::Spec {
        Process: Some(process).into(),
        Root: Some(wire::Root { Path: "/run/kata-containers/x/rootfs".into(), ..Default::default() }).into(),
        Linux: Some(wire::Linux::default()).into(),
        ..wire::Spec::default()
    }
}

const ALL: Controllers = Controllers { io: true, hugetlb: true };

fn with(change: impl FnOnce(&mut wire::Spec)) -> wire::Spec {
    let mut spec = minimal();
    change(&mut spec);
    spec
}

fn converted(change: impl FnOnce(&mut wire::Spec)) -> Converted<Spec> {
    spec(&with(change), ALL).unwrap()
}

fn refused(change: impl FnOnce(&mut wire::Spec)) -> String {
    spec(&with(change), ALL).unwrap_err().to_string()
}

fn process_of(spec: &Spec) -> &Process {
    spec.process().as_ref().unwrap()
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|s| (*s).to_owned()).collect()
}

#[test]
fn capabilities_come_without_their_prefix() {
    let Converted { value, left_out } = converted(|spec| {
        let sets = wire::LinuxCapabilities {
            Bounding: strings(&["CHOWN", "CAP_KILL", "net_raw", "KILL", "FUTURE"]),
            Ambient: strings(&["SYS_ADMIN"]),
            ..Default::default()
        };
        spec.Process.as_mut().unwrap().Capabilities = Some(sets).into();
    });
    let sets = process_of(&value).capabilities().as_ref().unwrap();
    let bounding = sets.bounding().as_ref().unwrap();
    assert_eq!(bounding.len(), 3);
    assert!(bounding.contains(&Capability::NetRaw) && bounding.contains(&Capability::Kill));
    assert!(sets.ambient().as_ref().unwrap().contains(&Capability::SysAdmin));
    assert!(sets.effective().as_ref().unwrap().is_empty());
    assert_eq!(left_out, ["capabilities that nobody knows"]);
}

#[test]
fn network_and_pid_namespaces_are_the_agents() {
    let namespace = |kind: &str, path: &str| wire::LinuxNamespace {
        Type: kind.into(),
        Path: path.into(),
        ..Default::default()
    };
    let Converted { value, left_out } = converted(|spec| {
        spec.Linux.as_mut().unwrap().Namespaces = vec![
            namespace("pid", ""),
            namespace("pid", "/proc/1/ns/pid"),
            namespace("network", "/var/run/netns/x"),
            namespace("ipc", "/proc/7/ns/ipc"),
            namespace("uts", ""),
            namespace("mnt", ""),
            namespace("ipc", ""),
            namespace("user", ""),
        ];
    });
    let list = value.linux().as_ref().unwrap().namespaces().as_ref().unwrap();
    let kinds: Vec<_> = list.iter().map(|n| n.typ()).collect();
    assert_eq!(kinds, [LinuxNamespaceType::Ipc, LinuxNamespaceType::Uts, LinuxNamespaceType::Mount]);
    assert!(list.iter().all(|namespace| namespace.path().is_none()));
    assert_eq!(left_out, ["user namespace without mappings"]);
    assert!(
        refused(|s| s.Linux.as_mut().unwrap().Namespaces = vec![namespace("disk", "")])
            .contains("namespaces")
    );
}

#[test]
fn zero_is_not_set() {
    let Converted { value, .. } = converted(|spec| {
        let resources = wire::LinuxResources {
            Memory: Some(wire::LinuxMemory { Limit: 1 << 20, ..Default::default() }).into(),
            CPU: Some(wire::LinuxCPU { Quota: -1, ..Default::default() }).into(),
            Pids: Some(wire::LinuxPids::default()).into(),
            ..Default::default()
        };
        spec.Linux.as_mut().unwrap().Resources = Some(resources).into();
    });
    let resources = value.linux().as_ref().unwrap().resources().as_ref().unwrap();
    let memory = resources.memory().as_ref().unwrap();
    assert_eq!((memory.limit(), memory.swap(), memory.swappiness()), (Some(1 << 20), None, None));
    let cpu = resources.cpu().as_ref().unwrap();
    assert_eq!((cpu.quota(), cpu.period(), cpu.shares(), cpu.cpus()), (Some(-1), None, None, &None));
    assert!(resources.pids().is_none());
}

#[test]
fn a_limit_without_a_controller_is_named() {
    let spec_with = with(|spec| {
        let limit = wire::LinuxHugepageLimit { Pagesize: "2MB".into(), Limit: 1, ..Default::default() };
        let io = wire::LinuxBlockIO { Weight: 100, ..Default::default() };
        let resources = wire::LinuxResources {
            HugepageLimits: vec![limit],
            BlockIO: Some(io).into(),
            ..Default::default()
        };
        spec.Linux.as_mut().unwrap().Resources = Some(resources).into();
    });
    let of = |controllers| {
        let Converted { value, left_out } = spec(&spec_with, controllers).unwrap();
        let resources = value.linux().as_ref().unwrap().resources().clone().unwrap();
        (resources.block_io().is_some(), resources.hugepage_limits().is_some(), left_out.len())
    };
    assert_eq!(of(ALL), (true, true, 0));
    assert_eq!(of(Controllers::default()), (false, false, 2));
}

#[test]
fn device_rules_without_numbers_are_for_all() {
    let rule = |kind: &str, major, minor, access: &str| wire::LinuxDeviceCgroup {
        Type: kind.into(),
        Major: major,
        Minor: minor,
        Access: access.into(),
        ..Default::default()
    };
    let rules = |list: Vec<wire::LinuxDeviceCgroup>| {
        with(|spec| {
            let resources = wire::LinuxResources { Devices: list, ..Default::default() };
            spec.Linux.as_mut().unwrap().Resources = Some(resources).into();
        })
    };
    let given = rules(vec![
        rule("a", 0, 0, "rwm"),
        rule("c", -1, -1, "m"),
        rule("b", 8, 0, ""),
        rule("", 5, -1, "r"),
    ]);
    let converted = spec(&given, ALL).unwrap().value;
    let list = converted.linux().as_ref().unwrap().resources().as_ref().unwrap().devices().clone().unwrap();
    let numbers: Vec<_> = list.iter().map(|d| (d.major(), d.minor())).collect();
    assert_eq!(numbers, [(None, None), (None, None), (Some(8), Some(0)), (Some(5), None)]);
    assert_eq!(list[2].typ(), Some(LinuxDeviceType::B));
    assert_eq!(list[2].access().as_deref(), Some("rwm"));
    for wrong in [rule("x", 1, 1, "r"), rule("c", 1, 1, "rx"), rule("c", 1, 1, "rwmr")] {
        assert!(spec(&rules(vec![wrong]), ALL).is_err());
    }
}

#[test]
fn binds_are_binds_by_type_or_option() {
    let mount = |kind: &str, source: &str, options: &[&str]| wire::Mount {
        destination: "/data".into(),
        source: source.into(),
        type_: kind.into(),
        options: strings(options),
        ..Default::default()
    };
    let of = |m: wire::Mount| {
        let spec = converted(|spec| spec.Mounts = vec![m]).value;
        let mount = spec.mounts().as_ref().unwrap()[0].clone();
        (mount.typ().clone().unwrap_or_default(), mount.options().clone().unwrap_or_default())
    };
    assert_eq!(of(mount("bind", "/s", &["ro"])), ("bind".into(), strings(&["ro", "rbind"])));
    assert_eq!(
        of(mount("none", "/s", &["rbind", "rprivate"])),
        ("bind".into(), strings(&["rbind", "rprivate"]))
    );
    assert_eq!(of(mount("tmpfs", "tmpfs", &["size=1m"])), ("tmpfs".into(), strings(&["size=1m"])));
    assert!(refused(|s| s.Mounts = vec![mount("bind", "relative", &[])]).contains("source of a bind mount"));
    let relative = wire::Mount { destination: "data".into(), ..mount("tmpfs", "tmpfs", &[]) };
    assert!(refused(|s| s.Mounts = vec![relative]).contains("mount destination"));
    assert!(refused(|s| s.Mounts = vec![mount("tmpfs", "a\0b", &[])]).contains("NUL"));
}

#[test]
fn seccomp_hooks_limits_and_devices_arrive() {
    let Converted { value, .. } = converted(|spec| {
        let mut call = wire::LinuxSyscall {
            Names: strings(&["clone"]),
            Action: "SCMP_ACT_ERRNO".into(),
            Args: vec![wire::LinuxSeccompArg {
                Index: 0,
                Value: 1,
                ValueTwo: 2,
                Op: "SCMP_CMP_MASKED_EQ".into(),
                ..Default::default()
            }],
            ..Default::default()
        };
        call.set_errnoret(38);
        let filter = wire::LinuxSeccomp {
            DefaultAction: "SCMP_ACT_ALLOW".into(),
            Architectures: strings(&["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]),
            Syscalls: vec![call],
            ..Default::default()
        };
        let linux = spec.Linux.as_mut().unwrap();
        linux.Seccomp = Some(filter).into();
        linux.Sysctl.insert("net.ipv4.ip_forward".into(), "1".into());
        linux.RootfsPropagation = "rslave".into();
        linux.Devices = vec![wire::LinuxDevice {
            Path: "/dev/xvda".into(),
            Type: "b".into(),
            Major: 8,
            Minor: 1,
            FileMode: 0o100660,
            ..Default::default()
        }];
        let process = spec.Process.as_mut().unwrap();
        process.Rlimits =
            vec![wire::POSIXRlimit { Type: "NOFILE".into(), Hard: 2, Soft: 1, ..Default::default() }];
        process.Terminal = true;
        process.User =
            Some(wire::User { UID: 1, GID: 2, AdditionalGids: vec![3], ..Default::default() }).into();
        let hook = wire::Hook { Path: "/hook".into(), Timeout: 5, ..Default::default() };
        spec.Hooks = Some(wire::Hooks { Poststop: vec![hook], ..Default::default() }).into();
    });
    let linux = value.linux().as_ref().unwrap();
    let call = &linux.seccomp().as_ref().unwrap().syscalls().as_ref().unwrap()[0];
    assert_eq!(call.errno_ret(), Some(38));
    assert_eq!(call.args().as_ref().unwrap()[0].value_two(), Some(2));
    assert_eq!(linux.sysctl().as_ref().unwrap().len(), 1);
    assert_eq!(linux.rootfs_propagation().as_deref(), Some("slave"));
    let device = &linux.devices().as_ref().unwrap()[0];
    assert_eq!((device.major(), device.minor(), device.file_mode()), (8, 1, Some(0o660)));
    let process = process_of(&value);
    assert_eq!(process.rlimits().as_ref().unwrap()[0].soft(), 1);
    assert_eq!(process.terminal(), Some(true));
    assert_eq!(process.no_new_privileges(), None);
    assert_eq!(process.user().additional_gids().as_deref(), Some(&[3][..]));
    let hooks = value.hooks().as_ref().unwrap();
    assert_eq!(hooks.poststop().as_ref().unwrap()[0].timeout(), Some(5));
}

#[test]
fn each_part_that_cannot_be_is_refused_by_name() {
    type Change = Box<dyn FnOnce(&mut wire::Spec)>;
    let process =
        |change: fn(&mut wire::Process)| -> Change { Box::new(move |s| change(s.Process.as_mut().unwrap())) };
    let linux =
        |change: fn(&mut wire::Linux)| -> Change { Box::new(move |s| change(s.Linux.as_mut().unwrap())) };
    let cases: Vec<(Change, &str)> = vec![
        (Box::new(|s| s.Process = None.into()), "no process"),
        (Box::new(|s| s.Root = None.into()), "no root"),
        (Box::new(|s| s.Linux = None.into()), "no linux section"),
        (Box::new(|s| s.Root.as_mut().unwrap().Path = "\0".into()), "root"),
        (process(|p| p.Args.push("a\0".into())), "args"),
        (process(|p| p.Env.push("A=\0".into())), "env"),
        (process(|p| p.Cwd = "tmp".into()), "cwd"),
        (process(|p| p.OOMScoreAdj = 1001), "OOM score"),
        (
            process(|p| p.Rlimits.push(wire::POSIXRlimit { Type: "RLIMIT_X".into(), ..Default::default() })),
            "RLIMIT_X",
        ),
        (process(|p| p.Rlimits.push(wire::POSIXRlimit { Soft: 1, ..Default::default() })), "soft limit"),
        (linux(|l| drop(l.Sysctl.insert("../../etc/x".into(), "1".into()))), "sysctl"),
        (linux(|l| l.RootfsPropagation = "everywhere".into()), "propagation"),
        (linux(|l| l.MaskedPaths.push("proc".into())), "masked"),
        (
            linux(|l| l.Devices.push(wire::LinuxDevice { Path: "/dev/x".into(), ..Default::default() })),
            "devices",
        ),
        (
            linux(|l| {
                l.Seccomp =
                    Some(wire::LinuxSeccomp { DefaultAction: "MAYBE".into(), ..Default::default() }).into();
            }),
            "MAYBE",
        ),
        (
            Box::new(|s| {
                let hook = wire::Hook { Path: "hook".into(), ..Default::default() };
                s.Hooks = Some(wire::Hooks { Prestart: vec![hook], ..Default::default() }).into();
            }),
            "hook",
        ),
    ];
    for (change, word) in cases {
        let text = refused(change);
        assert!(text.contains(word), "{word}: {text}");
    }
}

#[test]
fn labels_and_nameless_variables_are_left_out_and_named() {
    let Converted { value, left_out } = converted(|spec| {
        let process = spec.Process.as_mut().unwrap();
        process.ApparmorProfile = "cri-containerd.apparmor.d".into();
        process.SelinuxLabel = "system_u:x".into();
        process.Env = strings(&["A=1", "=2", "B", "C="]);
    });
    assert_eq!(process_of(&value).env().as_ref().unwrap(), &["A=1", "C="]);
    assert_eq!(left_out, ["variables without a name", "AppArmor profile", "SELinux label"]);
    assert!(process_of(&value).apparmor_profile().is_none() && process_of(&value).selinux_label().is_none());
}

#[test]
fn an_exec_needs_arguments_only() {
    let exec = wire::Process { Args: strings(&["id"]), ..Default::default() };
    let value = process(&exec).unwrap().value;
    assert_eq!(value.cwd(), std::path::Path::new("/"));
    assert!(value.capabilities().is_none());
    assert!(process(&wire::Process::default()).is_err());
}

/// Any message at all: bytes that decode as one.
fn any_spec() -> impl Strategy<Value = wire::Spec> {
    let word = || {
        prop_oneof![
            "[a-zA-Z_/=.:0-9\\x00]{0,12}",
            Just("SCMP_ACT_ALLOW".to_owned()),
            Just("CAP_KILL".to_owned())
        ]
    };
    let words = move || prop::collection::vec(word(), 0..4);
    let number = || prop_oneof![Just(0i64), Just(-1), any::<i64>()];
    let process = (words(), words(), word(), words(), number(), any::<bool>(), word(), any::<u32>())
        .prop_map(|(args, env, cwd, caps, oom, flag, word, id)| wire::Process {
            Args: args,
            Env: env,
            Cwd: cwd,
            Capabilities: Some(wire::LinuxCapabilities { Bounding: caps, ..Default::default() }).into(),
            OOMScoreAdj: oom,
            Terminal: flag,
            NoNewPrivileges: flag,
            SelinuxLabel: word.clone(),
            User: Some(wire::User { UID: id, Username: word.clone(), ..Default::default() }).into(),
            Rlimits: vec![wire::POSIXRlimit { Type: word, Soft: id.into(), ..Default::default() }],
            ..Default::default()
        });
    let linux = (words(), words(), word(), number(), number(), any::<u32>()).prop_map(
        |(kinds, paths, word, major, minor, count)| {
            let mut call =
                wire::LinuxSyscall { Names: paths.clone(), Action: word.clone(), ..Default::default() };
            call.set_errnoret(count);
            let seccomp = wire::LinuxSeccomp {
                DefaultAction: word.clone(),
                Architectures: kinds.clone(),
                Syscalls: vec![call],
                ..Default::default()
            };
            let rule = wire::LinuxDeviceCgroup {
                Type: word.clone(),
                Major: major,
                Minor: minor,
                ..Default::default()
            };
            let resources = wire::LinuxResources {
                Devices: vec![rule],
                Memory: Some(wire::LinuxMemory { Limit: major, Swap: minor, ..Default::default() }).into(),
                CPU: Some(wire::LinuxCPU { Quota: minor, Cpus: word.clone(), ..Default::default() }).into(),
                BlockIO: Some(wire::LinuxBlockIO { Weight: count, ..Default::default() }).into(),
                ..Default::default()
            };
            let device = wire::LinuxDevice {
                Path: word.clone(),
                Type: word.clone(),
                Major: major,
                Minor: minor,
                FileMode: count,
                ..Default::default()
            };
            wire::Linux {
                Namespaces: kinds
                    .into_iter()
                    .map(|kind| wire::LinuxNamespace { Type: kind, ..Default::default() })
                    .collect(),
                MaskedPaths: paths,
                RootfsPropagation: word.clone(),
                CgroupsPath: word.clone(),
                Sysctl: [(word.clone(), word)].into(),
                Seccomp: if count % 2 == 0 { Some(seccomp).into() } else { None.into() },
                Devices: if count % 3 == 0 { vec![device] } else { Vec::new() },
                Resources: Some(resources).into(),
                ..Default::default()
            }
        },
    );
    let mounts = prop::collection::vec((word(), word(), word(), words()), 0..3).prop_map(|list| {
        list.into_iter()
            .map(|(destination, source, type_, options)| wire::Mount {
                destination,
                source,
                type_,
                options,
                ..Default::default()
            })
            .collect::<Vec<_>>()
    });
    (process, linux, mounts, word(), prop::option::of(word())).prop_map(
        |(process, linux, mounts, root, hook)| wire::Spec {
            Process: Some(process).into(),
            Linux: Some(linux).into(),
            Mounts: mounts,
            Root: Some(wire::Root { Path: root, ..Default::default() }).into(),
            Hooks: Into::into(hook.map(|path| wire::Hooks {
                Prestart: vec![wire::Hook { Path: path, ..Default::default() }],
                ..Default::default()
            })),
            ..Default::default()
        },
    )
}

proptest! {
    #[test]
    fn any_specification_converts_or_is_refused(wire in any_spec()) {
        if let Ok(Converted { value, .. }) = spec(&wire, ALL) {
            // What libcontainer reads from config.json is what was meant.
            let text = serde_json::to_string(&value).unwrap();
            prop_assert_eq!(serde_json::from_str::<Spec>(&text).unwrap(), value);
        }
    }
}

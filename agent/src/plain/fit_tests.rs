//! What of a host's specification fits this guest.

use libcontainer::oci_spec::runtime::{
    LinuxBuilder, LinuxDeviceBuilder, LinuxResourcesBuilder, ProcessBuilder,
};
use proptest::prelude::*;

use super::*;

fn rule_of(kind: LinuxDeviceType, major: i64, minor: i64) -> LinuxDeviceCgroup {
    let rule = LinuxDeviceCgroupBuilder::default().allow(true).typ(kind).major(major).minor(minor);
    rule.build().unwrap()
}

fn spec(devices: &[(&str, i64, i64)], env: &[&str]) -> Spec {
    let list: Vec<_> = devices
        .iter()
        .map(|(path, major, minor)| {
            let device = LinuxDeviceBuilder::default().path(*path).typ(LinuxDeviceType::B);
            device.major(*major).minor(*minor).build().unwrap()
        })
        .collect();
    let rules: Vec<_> =
        devices.iter().map(|(_, major, minor)| rule_of(LinuxDeviceType::B, *major, *minor)).collect();
    let resources = LinuxResourcesBuilder::default().devices(rules).build().unwrap();
    let linux = LinuxBuilder::default().devices(list).resources(resources).build().unwrap();
    let env: Vec<String> = env.iter().map(|v| (*v).to_owned()).collect();
    let mut spec = Spec::default();
    spec.set_linux(Some(linux));
    spec.set_process(Some(ProcessBuilder::default().env(env).build().unwrap()));
    spec
}

fn update(path: &str, node: Option<(bool, i64, i64)>) -> DeviceUpdate {
    let node = node.map(|(block, major, minor)| DeviceNode { block, major, minor });
    DeviceUpdate { container_path: path.into(), node, path: None, pci: Vec::new() }
}

fn rules(spec: &Spec) -> Vec<(Option<i64>, Option<i64>)> {
    let resources = spec.linux().as_ref().unwrap().resources().clone().unwrap();
    resources.devices().iter().flatten().map(|rule| (rule.major(), rule.minor())).collect()
}

#[test]
fn devices_get_the_guests_numbers_once() {
    // The guest's number of the first is the host's number of the second.
    let mut spec = spec(&[("/dev/a", 8, 0), ("/dev/b", 254, 0)], &[]);
    devices(&mut spec, &[update("/dev/a", Some((true, 254, 0))), update("/dev/b", Some((true, 254, 16)))])
        .unwrap();
    let list = spec.linux().as_ref().unwrap().devices().clone().unwrap();
    assert_eq!(list.iter().map(|d| (d.major(), d.minor())).collect::<Vec<_>>(), [(254, 0), (254, 16)]);
    let numbers = [(Some(254), Some(0)), (Some(254), Some(16)), (Some(254), Some(0)), (Some(254), Some(16))];
    assert_eq!(rules(&spec), numbers);
}

#[test]
fn a_rule_for_minor_0_is_for_any_unless_that_is_a_device() {
    let mut spec = spec(&[("/dev/a", 8, 0)], &[]);
    let linux = spec.linux_mut().as_mut().unwrap();
    let mut resources = linux.resources().clone().unwrap();
    let mut list = resources.devices().clone().unwrap();
    list.extend([
        rule_of(LinuxDeviceType::C, 136, 0),
        rule_of(LinuxDeviceType::B, 9, 0),
        rule_of(LinuxDeviceType::C, 1, 3),
    ]);
    resources.set_devices(Some(list));
    linux.set_resources(Some(resources));
    devices(&mut spec, &[]).unwrap();
    let numbers = [(Some(8), Some(0)), (Some(136), None), (Some(9), None), (Some(1), Some(3))];
    assert_eq!(rules(&spec), numbers);
}

#[test]
fn a_device_that_the_specification_has_not_is_refused() {
    let mut one = spec(&[("/dev/a", 8, 0)], &[]);
    let error = devices(&mut one, &[update("/dev/b", Some((true, 1, 1)))]).unwrap_err();
    assert!(error.to_string().contains("no device '/dev/b'"), "{error}");
    let twice = [update("/dev/a", Some((true, 1, 1))), update("/dev/a", Some((true, 1, 2)))];
    assert!(devices(&mut one, &twice).unwrap_err().to_string().contains("two devices"));
    // One that the guest's kernel drives needs no node.
    devices(&mut one, &[update("/dev/vfio/9", None)]).unwrap();
}

#[test]
fn pci_addresses_in_variables_are_the_guests() {
    let env = [
        "PCIDEVICE_NIC=0000:41:00.0,0000:41:00.1",
        "PCIDEVICE_NIC_INFO={\"0000:41:00.0\":{},\"0000:41:00.1\":{}}",
        "OTHER=0000:41:00.0",
    ];
    let mut fitted = spec(&[], &env);
    let pair = |host: &str, guest: &str| (host.parse().unwrap(), guest.parse().unwrap());
    let pci = vec![pair("0000:41:00.0", "0000:00:02.0"), pair("0000:41:00.1", "0000:00:03.0")];
    let update = DeviceUpdate { pci, ..update("/dev/vfio/1", None) };
    pci_variables(&mut fitted, std::slice::from_ref(&update)).unwrap();
    let variables = fitted.process().as_ref().unwrap().env().clone().unwrap();
    assert_eq!(variables[0], "PCIDEVICE_NIC=0000:00:02.0,0000:00:03.0");
    assert_eq!(variables[1], "PCIDEVICE_NIC_INFO={\"0000:00:02.0\":{},\"0000:00:03.0\":{}}");
    assert_eq!(variables[2], "OTHER=0000:41:00.0");
    let mut unknown = spec(&[], &["PCIDEVICE_NIC=0000:99:00.0"]);
    assert!(pci_variables(&mut unknown, &[update]).unwrap_err().to_string().contains("PCIDEVICE_NIC"));
}

#[test]
fn every_container_has_a_cgroup_of_its_own() {
    for (asked, path) in [
        ("/kubepods/burstable/pod1/c1", "/kubepods/burstable/pod1/c1"),
        ("kubepods/c1/", "/kubepods/c1"),
        ("", "/c1"),
        ("/", "/c1"),
        ("/shared", "/shared/c1"),
        (
            "kubepods-burstable-pod1.slice:cri-containerd:c1",
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice/cri-containerd-c1.scope",
        ),
        ("system.slice::c1", "/system.slice/c1.scope"),
    ] {
        assert_eq!(cgroup(asked, "c1").unwrap(), path, "{asked}");
    }
    for wrong in ["/../c1", "a/./c1", "..:x:c1", "\0"] {
        assert!(cgroup(wrong, "c1").is_err(), "{wrong}");
    }
    assert!(cgroup(&"x".repeat(2000), "c1").is_err());
}

#[test]
fn one_pid_namespace_and_the_pods_others() {
    let mut spec = Spec::default();
    let kinds = [
        LinuxNamespaceType::Pid,
        LinuxNamespaceType::Ipc,
        LinuxNamespaceType::Pid,
        LinuxNamespaceType::Network,
        LinuxNamespaceType::Mount,
    ];
    let list: Vec<_> =
        kinds.iter().map(|kind| LinuxNamespaceBuilder::default().typ(*kind).build().unwrap()).collect();
    spec.set_linux(Some(LinuxBuilder::default().namespaces(list).build().unwrap()));
    spec.set_hostname(Some("x".into()));
    let shared = Shared { ipc: "/ns/ipc".into(), uts: "/ns/uts".into(), pid: None };
    namespaces(&mut spec, &shared).unwrap();
    let of = |spec: &Spec| {
        let list = spec.linux().as_ref().unwrap().namespaces().clone().unwrap();
        list.iter().map(|n| (n.typ(), n.path().clone())).collect::<Vec<_>>()
    };
    let ipc = (LinuxNamespaceType::Ipc, Some(PathBuf::from("/ns/ipc")));
    let mount = (LinuxNamespaceType::Mount, None);
    assert_eq!(of(&spec), [ipc.clone(), mount.clone(), (LinuxNamespaceType::Pid, None)]);
    assert_eq!(spec.hostname(), &None);
    namespaces(&mut spec, &Shared { pid: Some("/ns/pid".into()), ..shared }).unwrap();
    assert_eq!(of(&spec), [ipc, mount, (LinuxNamespaceType::Pid, Some("/ns/pid".into()))]);
}

#[test]
fn the_image_speaks_where_the_host_is_silent() {
    let config: ImageConfiguration = serde_json::from_str(
        r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]},"history":[],
            "config":{"Entrypoint":["/init"],"Cmd":["-v"],"WorkingDir":"/srv","Env":["A=image","B=image","broken"]}}"#,
    )
    .unwrap();
    let mut silent = spec(&[], &["A=host"]);
    silent.process_mut().as_mut().unwrap().set_args(None).set_cwd("/".into());
    image(&mut silent, &config);
    let process = silent.process().as_ref().unwrap();
    assert_eq!(process.args().as_ref().unwrap(), &["/init", "-v"]);
    assert_eq!(process.cwd(), Path::new("/srv"));
    assert_eq!(process.env().as_ref().unwrap(), &["A=host", "B=image"]);
    let mut told = spec(&[], &[]);
    told.process_mut().as_mut().unwrap().set_args(Some(vec!["sh".into()])).set_cwd("/tmp".into());
    image(&mut told, &config);
    let process = told.process().as_ref().unwrap();
    assert_eq!(process.args().as_ref().unwrap().len(), 1);
    assert_eq!(process.cwd(), Path::new("/tmp"));
}

proptest! {
    #[test]
    fn any_cgroup_path_stays_below_the_root(asked in "[a-z:./\\-]{0,60}") {
        if let Ok(path) = cgroup(&asked, "c1") {
            prop_assert!(path.starts_with('/') && !path.split('/').any(|name| name == ".."));
            prop_assert!(path.rsplit('/').next().is_some_and(|name| name.contains("c1")));
        }
    }
}

//! What the kubelet's and the runtime's copies become in a container, and what a host may not do with them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use agent_oci::HostVolume;
use protocols::refusal::Code;
use sealed_spec::SealedSpec;
use sealed_spec::grants::{SERVICE_ACCOUNT_MOUNT, VolumeGrant};
use sealed_spec::podspec::{
    ConfigMapVolume, Container, KeyToPath, PodSpec, SealedFile, SealedFiles, SecretVolume, Volume,
    VolumeKind, VolumeMount,
};

use super::publish::Rules;
use super::*;
use crate::policy::HostSpec;
use crate::quarantine::Copy;

const FILE: u32 = 0o100_644;
const LINK: u32 = 0o120_777;
const SOURCE: &str = "c1-00ff-config";

struct Case {
    dir: tempfile::TempDir,
    quarantine: Quarantine,
    volumes: Volumes,
    mounted: Mounted,
}

/// `None` where nothing can be mounted.
fn case() -> Option<Case> {
    let dir = tempfile::tempdir().unwrap();
    let probe = dir.path().join("probe");
    if crate::sandbox::tmpfs(&probe, "size=4k", nix::mount::MsFlags::empty()).is_err() {
        println!("skipped: can't mount here");
        return None;
    }
    nix::mount::umount(&probe).unwrap();
    let quarantine = Quarantine::new(&dir.path().join("q")).unwrap();
    Some(Case { dir, quarantine, volumes: Volumes::default(), mounted: Mounted::default() })
}

fn granted(max_bytes: u64) -> Granted {
    Granted {
        index: Some(0),
        destination: "/etc/app".into(),
        source: format!("{SHARED}/{SOURCE}"),
        executable: false,
        rules: Rules { default_mode: 0o644, max_bytes, ..Rules::default() },
    }
}

impl Case {
    fn copy(&self, path: &str, mode: u32, data: &[u8]) -> Result<(), Refusal> {
        let path = format!("{SHARED}/{SOURCE}/{path}");
        let size = data.len() as i64;
        self.quarantine.copy(&Copy { path: &path, mode, size, offset: 0, data })?;
        self.volumes.arrived(&path, &self.quarantine)
    }

    /// As the runtime copies the kubelet's directory.
    fn version(&self, name: &str, files: &[(&str, &[u8])]) -> Result<(), Refusal> {
        for (file, data) in files {
            self.copy(&format!("{name}/{file}"), FILE, data)?;
        }
        self.copy("..data", LINK, name.as_bytes())?;
        for (file, _) in files {
            let first = file.split('/').next().unwrap();
            self.copy(first, LINK, format!("..data/{first}").as_bytes())?;
        }
        Ok(())
    }

    fn mount(&mut self, granted: &Granted) -> Result<HostVolume, Refusal> {
        self.volumes.mount(granted, &self.quarantine, &self.dir.path().join("v"), &mut self.mounted)
    }

    fn seen(&self) -> Vec<String> {
        let entries = fs::read_dir(self.dir.path().join("v")).unwrap();
        let mut names: Vec<String> = entries
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .filter(|n| !n.starts_with(".."))
            .collect();
        names.sort();
        names
    }

    fn read(&self, path: &str) -> Vec<u8> {
        fs::read(self.dir.path().join("v").join(path)).unwrap()
    }
}

#[test]
fn a_config_map_reaches_the_container_and_so_do_its_updates() {
    let Some(mut c) = case() else { return };
    c.version("..2026_01", &[("a", b"one"), ("sub/b", b"two")]).unwrap();
    let volume = c.mount(&granted(1000)).unwrap();
    assert_eq!(volume.source, c.dir.path().join("v"));
    assert_eq!(c.seen(), ["a", "sub"]);
    assert_eq!((c.read("a"), c.read("sub/b")), (b"one".to_vec(), b"two".to_vec()));
    // Whatever comes of the next version, nothing shows before the link to it is swapped.
    c.copy("..2026_02/a", FILE, b"newer").unwrap();
    c.copy("..2026_02/c", FILE, b"more").unwrap();
    assert_eq!((c.seen(), c.read("a")), (vec!["a".to_owned(), "sub".to_owned()], b"one".to_vec()));
    c.copy("..data", LINK, b"..2026_02").unwrap();
    assert_eq!((c.seen(), c.read("a")), (vec!["a".to_owned(), "c".to_owned()], b"newer".to_vec()));
    // The version before is gone on both sides: only one counts.
    assert!(!c.dir.path().join("q").join(SOURCE).join("..2026_01").exists());
    assert_eq!(fs::read_dir(c.dir.path().join("v")).unwrap().count(), 4);
}

#[test]
fn a_file_of_the_current_version_that_comes_late_is_not_lost() {
    let Some(mut c) = case() else { return };
    c.version("..1", &[("a", b"1")]).unwrap();
    c.mount(&granted(1000)).unwrap();
    c.copy("..2/a", FILE, b"2").unwrap();
    c.copy("..data", LINK, b"..2").unwrap();
    c.copy("..2/b", FILE, b"late").unwrap();
    assert_eq!((c.seen(), c.read("b")), (vec!["a".to_owned(), "b".to_owned()], b"late".to_vec()));
}

#[test]
fn a_volume_is_bounded_as_granted() {
    let Some(mut c) = case() else { return };
    c.version("..1", &[("a", &[0; 101])]).unwrap();
    assert_eq!(c.mount(&granted(100)).unwrap_err().code, Code::VolumeLimit);
    c.mounted = Mounted::default();
    c.mount(&granted(150)).unwrap();
    // An update counts beside the version that it replaces; one that is too large changes nothing.
    c.copy("..2/a", FILE, &[1; 50]).unwrap();
    assert_eq!(c.copy("..data", LINK, b"..2").unwrap_err().code, Code::VolumeLimit);
    assert_eq!(c.read("a"), [0; 101]);
    c.copy("..3/a", FILE, &[1; 49]).unwrap();
    c.copy("..data", LINK, b"..3").unwrap();
    assert_eq!(c.read("a"), [1; 49]);
}

#[test]
fn many_small_files_are_bounded_too() {
    let Some(mut c) = case() else { return };
    for n in 0..2048 {
        c.copy(&format!("..1/{n}"), FILE, b"").unwrap();
    }
    c.copy("..data", LINK, b"..1").unwrap();
    assert_eq!(c.mount(&granted(1 << 20)).unwrap_err().code, Code::VolumeLimit);
}

#[test]
fn links_lead_nowhere_but_to_a_version() {
    let Some(mut c) = case() else { return };
    c.copy("real/a", FILE, b"x").unwrap();
    for target in ["real", "..1/sub", "..data"] {
        c.copy("..data", LINK, target.as_bytes()).unwrap();
        assert_eq!(c.mount(&granted(1000)).unwrap_err().code, Code::VolumeDenied, "{target}");
    }
    c.copy("..1/link", LINK, b"a").unwrap();
    c.copy("..data", LINK, b"..1").unwrap();
    assert_eq!(c.mount(&granted(1000)).unwrap_err().code, Code::VolumeDenied);
    c.copy("..data", LINK, b"..missing").unwrap();
    assert_eq!(c.mount(&granted(1000)).unwrap_err().code, Code::VolumeDenied);
}

#[test]
fn only_what_was_copied_in_for_it_fills_a_volume() {
    let Some(mut c) = case() else { return };
    for source in [
        String::new(),
        "/etc".into(),
        format!("{SHARED}/.stage"),
        format!("{SHARED}/a/b"),
        format!("{SHARED}/../x"),
        format!("{SHARED}/nothing"),
        format!("{SHARED}x/y"),
    ] {
        let granted = Granted { source: source.clone(), ..granted(100) };
        assert_eq!(c.mount(&granted).unwrap_err().code, Code::VolumeDenied, "{source}");
    }
}

#[test]
fn modes_and_group_are_the_pods_whatever_the_host_says() {
    let Some(mut c) = case() else { return };
    c.copy("..1/key", 0o106_777, b"secret").unwrap();
    c.copy("..1/run", FILE, b"#!").unwrap();
    c.copy("..data", LINK, b"..1").unwrap();
    let mut volume = granted(1000);
    volume.rules.default_mode = 0o400;
    volume.rules.modes.insert("run".into(), 0o755);
    volume.rules.gid = Some(3000);
    c.mount(&volume).unwrap();
    let mode =
        |name: &str| fs::metadata(c.dir.path().join("v").join(name)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("key"), mode("run")), (0o440, 0o755));
}

#[test]
fn one_file_of_a_volume_is_a_volume() {
    let Some(mut c) = case() else { return };
    let path = format!("{SHARED}/{SOURCE}");
    c.quarantine.copy(&Copy { path: &path, mode: FILE, size: 3, offset: 0, data: b"one" }).unwrap();
    let mut volume = granted(3);
    volume.rules.single = Some("dir/key".into());
    volume.rules.modes.insert("dir/key".into(), 0o600);
    let made = c.mount(&volume).unwrap();
    assert_eq!(fs::read(&made.source).unwrap(), b"one");
    assert_eq!(fs::metadata(&made.source).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn sealed_files_are_written_as_sealed() {
    let Some(c) = case() else { return };
    let root = c.dir.path().join("sealed");
    let files = BTreeMap::from([
        ("a".to_owned(), SealedFile::new(b"one", 0o400)),
        ("d/e/b".to_owned(), SealedFile::new(b"two", 0o755)),
    ]);
    write_sealed_files(&root, &SealedFiles { files }, None).unwrap();
    assert_eq!(fs::read(root.join("d/e/b")).unwrap(), b"two");
    assert_eq!(fs::metadata(root.join("a")).unwrap().permissions().mode() & 0o777, 0o400);
    let escape = BTreeMap::from([("../x".to_owned(), SealedFile::new(b"", 0o400))]);
    assert!(write_sealed_files(&c.dir.path().join("other"), &SealedFiles { files: escape }, None).is_err());
    nix::mount::umount(&c.dir.path().join("other")).unwrap();
    nix::mount::umount(&root).unwrap();
}

fn pod() -> (SealedSpec, HostSpec) {
    let mount = |name: &str, path: &str| VolumeMount {
        name: name.into(),
        mount_path: path.into(),
        ..VolumeMount::default()
    };
    let items = vec![KeyToPath { key: "k".into(), path: "run".into(), mode: Some(0o700) }];
    let config = ConfigMapVolume { name: "c".into(), items, ..ConfigMapVolume::default() };
    let secret =
        SecretVolume { secret_name: "s".into(), default_mode: Some(0o400), ..SecretVolume::default() };
    let volume = |name: &str| Volume { name: name.into(), ..Volume::default() };
    let container = Container {
        name: "web".into(),
        volume_mounts: vec![mount("config", "/etc/app/"), mount("secret", "/keys")],
        ..Container::default()
    };
    let mut spec = SealedSpec::new(PodSpec {
        containers: vec![container],
        volumes: vec![
            Volume { config_map: Some(config), ..volume("config") },
            Volume { secret: Some(secret), ..volume("secret") },
        ],
        ..PodSpec::default()
    });
    let grant = |kind| VolumeGrant { kind, executable: kind == VolumeKind::ConfigMap, max_bytes: 10 };
    let grants = BTreeMap::from([
        ("/etc/app".to_owned(), grant(VolumeKind::ConfigMap)),
        ("/keys".to_owned(), grant(VolumeKind::Secret)),
    ]);
    spec.grants.volumes.insert("web".into(), grants);
    let mut host = HostSpec::default();
    for (at, from) in [("/etc/app", "x"), ("/keys", "y"), ("/etc/hosts", "h"), (SERVICE_ACCOUNT_MOUNT, "t")] {
        host.mounts.insert(at.into(), format!("{SHARED}/{from}"));
    }
    (spec, host)
}

#[test]
fn grants_and_mount_paths_decide_which_files_are_which_volume() {
    let (mut spec, host) = pod();
    let list = |spec: &SealedSpec| super::granted(spec, &spec.pod.containers[0], &host);
    let (granted, added) = list(&spec).unwrap();
    let of = |at: usize| (granted[at].source.clone(), granted[at].executable, granted[at].rules.default_mode);
    assert_eq!(of(0), (format!("{SHARED}/x"), true, 0o644));
    assert_eq!(of(1), (format!("{SHARED}/y"), false, 0o400));
    assert_eq!(granted[0].rules.modes["run"], 0o700);
    // A token that nobody granted is left out, and named.
    assert_eq!((granted.len(), added), (2, vec![SERVICE_ACCOUNT_MOUNT.to_owned()]));
    spec.grants.service_account_token = true;
    let (granted, added) = list(&spec).unwrap();
    assert_eq!((granted[2].index, granted[2].source.clone()), (None, format!("{SHARED}/t")));
    assert!(added.is_empty());
    spec.grants.volumes.clear();
    assert_eq!(list(&spec).unwrap_err().code, Code::VolumeDenied);
}

#[test]
fn the_quarantine_has_room_for_what_is_granted() {
    let (mut spec, _) = pod();
    assert_eq!(granted_bytes(&spec), 20);
    spec.grants.service_account_token = true;
    assert_eq!(granted_bytes(&spec), 20 + (2 << 20));
}

/// Tests mount below directories that are removed.
impl Drop for Case {
    fn drop(&mut self) {
        self.mounted = Mounted::default();
    }
}

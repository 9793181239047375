//! Storages as the kernel has them, in mount namespaces of their own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::any::Any;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use agent_storage::{
    FsGroup, GroupChange, ImagePull, ImageRequest, Machine, Settings, StorageRequest, Storages,
    is_mount_point, update_ephemeral,
};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// Each test is a thread; it gets a mount namespace and a scratch directory of its own.
struct Guest {
    dir: PathBuf,
    storages: Storages,
    _temp: tempfile::TempDir,
}

fn guest() -> Option<Guest> {
    if unshare(CloneFlags::CLONE_NEWNS).is_err() {
        eprintln!("not allowed to make a mount namespace");
        return None;
    }
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
    let temp = tempfile::tempdir().unwrap();
    // A file system of its own: overlays don't stack on overlays.
    mount(Some("tmpfs"), temp.path(), Some("tmpfs"), MsFlags::empty(), Some("size=64m")).unwrap();
    let dir = temp.path().to_owned();
    let settings = Settings {
        machine: Machine::at(dir.join("sys"), dir.join("dev"), Duration::ZERO),
        containers: dir.join("containers"),
        private: vec![dir.join("agent")],
    };
    Some(Guest { storages: Storages::new(settings), dir, _temp: temp })
}

impl Guest {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn request(
        &self,
        driver: &str,
        source: &str,
        fstype: &str,
        point: &str,
        options: &[&str],
    ) -> StorageRequest {
        StorageRequest {
            driver: driver.into(),
            source: source.into(),
            fstype: fstype.into(),
            options: options.iter().map(|o| (*o).to_owned()).collect(),
            mount_point: self.path(point).display().to_string(),
            ..StorageRequest::default()
        }
    }

    fn add(&self, owner: &str, requests: &[StorageRequest]) -> Result<(), String> {
        self.storages.add(Some(owner), requests, &NoImages).map(drop).map_err(|e| e.to_string())
    }

    /// The line of the kernel's mount table for a place.
    fn line(&self, name: &str) -> Option<String> {
        let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        let point = format!(" {} ", self.path(name).display());
        table.lines().find(|line| line.contains(&point)).map(str::to_owned)
    }
}

struct NoImages;

impl ImagePull for NoImages {
    fn pull(&self, _: &ImageRequest<'_>) -> Result<Box<dyn Any + Send>, String> {
        Err("no registry".into())
    }
}

#[test]
fn ephemeral_options_reach_the_kernel() {
    let Some(guest) = guest() else { return };
    let options = ["noexec", "nosuid", "nodev", "mode=1777", "size=1048576", "fsgid=1234"];
    guest.add("c1", &[guest.request("ephemeral", "shm", "tmpfs", "shm", &options)]).unwrap();
    let line = guest.line("shm").unwrap();
    for word in ["noexec", "nosuid", "nodev", "size=1024k", "tmpfs"] {
        assert!(line.contains(word), "{word}: {line}");
    }
    let metadata = fs::metadata(guest.path("shm")).unwrap();
    assert_eq!((metadata.mode() & 0o7777, metadata.gid()), (0o3777, 1234));
    // It is the pod's: a container that is made anew finds what it wrote.
    fs::write(guest.path("shm/x"), "kept").unwrap();
    assert!(guest.storages.release("c1").is_empty());
    guest.add("c2", &[guest.request("ephemeral", "shm", "tmpfs", "shm", &options)]).unwrap();
    assert_eq!(fs::read_to_string(guest.path("shm/x")).unwrap(), "kept");
    assert!(guest.storages.release_all().is_empty());
    assert!(guest.line("shm").is_none() && !guest.path("shm").exists());
}

#[test]
fn memory_gets_another_size() {
    let Some(guest) = guest() else { return };
    guest.add("c1", &[guest.request("ephemeral", "tmpfs", "tmpfs", "m", &["size=1048576"])]).unwrap();
    fs::write(guest.path("m/x"), "kept").unwrap();
    let update = guest.request("ephemeral", "tmpfs", "tmpfs", "m", &["remount", "size=2097152"]);
    update_ephemeral(std::slice::from_ref(&update), &[]).unwrap();
    assert!(guest.line("m").unwrap().contains("size=2048k"));
    assert_eq!(fs::read_to_string(guest.path("m/x")).unwrap(), "kept");
    let other = StorageRequest { driver: "local".into(), ..update };
    assert!(update_ephemeral(&[other], &[]).unwrap_err().is_invalid());
}

#[test]
fn local_directories_have_mode_and_group() {
    let Some(guest) = guest() else { return };
    guest.add("c1", &[guest.request("local", "local", "local", "l/d", &["mode=0777", "fsgid=77"])]).unwrap();
    let metadata = fs::metadata(guest.path("l/d")).unwrap();
    assert_eq!((metadata.mode() & 0o7777, metadata.gid()), (0o2777, 77));
}

#[test]
fn a_bind_takes_its_flags_and_files() {
    let Some(guest) = guest() else { return };
    fs::create_dir(guest.path("source")).unwrap();
    fs::write(guest.path("file"), "x").unwrap();
    let source = guest.path("source").display().to_string();
    let file = guest.path("file").display().to_string();
    let requests = [
        guest.request("bind", &source, "bind", "d", &["rbind", "ro", "nosuid", "rprivate"]),
        guest.request("bind", &file, "bind", "f", &["bind"]),
    ];
    guest.add("c1", &requests).unwrap();
    let line = guest.line("d").unwrap();
    assert!(line.contains(" ro,nosuid"), "{line}");
    assert_eq!(fs::read_to_string(guest.path("f")).unwrap(), "x");
    assert!(fs::write(guest.path("d/x"), "").is_err());
    assert!(guest.storages.release("c1").is_empty());
    assert!(guest.line("d").is_none() && guest.line("f").is_none());
}

#[test]
fn a_writable_overlay_has_directories_of_its_own() {
    let Some(guest) = guest() else { return };
    for lower in ["a", "b"] {
        fs::create_dir(guest.path(lower)).unwrap();
        fs::write(guest.path(lower).join("name"), lower).unwrap();
    }
    let lower = format!("lowerdir={}:{}", guest.path("a").display(), guest.path("b").display());
    let options = ["io.katacontainers.fs-opt.overlay-rw", &lower];
    guest.add("c1", &[guest.request("overlayfs", "overlay", "overlay", "rootfs", &options)]).unwrap();
    assert_eq!(fs::read_to_string(guest.path("rootfs/name")).unwrap(), "a");
    fs::write(guest.path("rootfs/new"), "x").unwrap();
    assert!(guest.path("containers/c1/upper/new").exists());
    assert!(guest.storages.release("c1").is_empty());
    assert!(!is_mount_point(&guest.path("rootfs")).unwrap());
}

#[test]
fn what_two_containers_share_goes_with_the_second() {
    let Some(guest) = guest() else { return };
    fs::create_dir(guest.path("source")).unwrap();
    let source = guest.path("source").display().to_string();
    let storage = guest.request("bind", &source, "bind", "shared", &[]);
    guest.add("c1", std::slice::from_ref(&storage)).unwrap();
    guest.add("c2", std::slice::from_ref(&storage)).unwrap();
    guest.storages.release("c1");
    assert!(guest.line("shared").is_some());
    // Another thing in the same place is not what the first one meant.
    let other = guest.request("bind", &guest.path("other").display().to_string(), "bind", "shared", &[]);
    assert!(guest.add("c3", &[other]).unwrap_err().contains("there already"));
    guest.storages.release("c2");
    assert!(guest.line("shared").is_none() && guest.storages.points().is_empty());
    // `shared` makes it the pod's.
    let lasting = StorageRequest { shared: true, ..storage };
    guest.add("c1", &[lasting]).unwrap();
    guest.storages.release("c1");
    assert!(guest.line("shared").is_some());
}

#[test]
fn a_failure_takes_back_what_came_before() {
    let Some(guest) = guest() else { return };
    fs::create_dir(guest.path("source")).unwrap();
    let source = guest.path("source").display().to_string();
    let requests = [
        guest.request("bind", &source, "bind", "one", &[]),
        guest.request("ephemeral", "x", "tmpfs", "one/below", &[]),
        guest.request("blk", "02/03", "ext4", "two", &[]),
    ];
    let error = guest.add("c1", &requests).unwrap_err();
    assert_eq!(error, "device PCI 02/03 did not appear within 0 s");
    assert!(guest.line("one").is_none() && guest.line("two").is_none());
    assert!(!guest.path("two").exists());
    let image = StorageRequest {
        driver_options: vec!["image_guest_pull={}".into()],
        ..guest.request("image_guest_pull", "busybox:1", "overlay", "rootfs", &[])
    };
    assert_eq!(guest.add("c1", &[image]).unwrap_err(), "image busybox:1: no registry");
    // One that is refused has had no effect at all, not even of those before it.
    let requests = [requests[0].clone(), guest.request("nfs", "x", "nfs", "three", &[])];
    assert!(guest.add("c1", &requests).unwrap_err().contains("no driver 'nfs'"));
    assert!(guest.line("one").is_none() && !guest.path("one").exists());
}

#[test]
fn a_mount_point_behind_a_link_is_refused() {
    let Some(guest) = guest() else { return };
    fs::create_dir(guest.path("victim")).unwrap();
    std::os::unix::fs::symlink(guest.path("victim"), guest.path("link")).unwrap();
    let error = guest.add("c1", &[guest.request("ephemeral", "x", "tmpfs", "link", &[])]).unwrap_err();
    assert!(error.contains("symbolic link"), "{error}");
    assert!(guest.line("victim").is_none());
}

#[test]
fn a_volume_belongs_to_its_group() {
    let Some(guest) = guest() else { return };
    fs::create_dir_all(guest.path("source/sub")).unwrap();
    fs::write(guest.path("source/sub/file"), "x").unwrap();
    fs::set_permissions(guest.path("source/sub/file"), fs::Permissions::from_mode(0o600)).unwrap();
    let source = guest.path("source").display().to_string();
    let mut storage = guest.request("bind", &source, "bind", "v", &[]);
    storage.fs_group = Some(FsGroup { id: 2000, change: GroupChange::Always });
    guest.add("c1", &[storage]).unwrap();
    let metadata = fs::metadata(guest.path("v/sub/file")).unwrap();
    assert_eq!((metadata.gid(), metadata.mode() & 0o777), (2000, 0o660));
}

#[test]
fn a_watched_directory_follows_its_source() {
    let Some(guest) = guest() else { return };
    fs::create_dir(guest.path("source")).unwrap();
    fs::write(guest.path("source/key"), "one").unwrap();
    let source = guest.path("source").display().to_string();
    guest.add("c1", &[guest.request("watchable-bind", &source, "bind", "w/config", &[])]).unwrap();
    assert_eq!(fs::read_to_string(guest.path("w/config/key")).unwrap(), "one");
    guest.storages.release("c1");
    assert!(!guest.path("w/config").exists());
    assert!(Path::new(&source).join("key").exists());
}

#[test]
fn huge_pages_that_the_kernel_has_not_are_named() {
    let Some(guest) = guest() else { return };
    let sys = guest.path("sys/kernel/mm/hugepages/hugepages-2048kB");
    fs::create_dir_all(&sys).unwrap();
    fs::write(sys.join("nr_hugepages"), "1\n").unwrap();
    let huge = |point| guest.request("ephemeral", "nodev", "hugetlbfs", point, &["pagesize=2M,size=8M"]);
    // The file of this test takes any number; whether the kernel then mounts is the machine's affair.
    let _ = guest.add("c1", &[huge("h")]);
    assert_eq!(fs::read_to_string(sys.join("nr_hugepages")).unwrap(), "4");
    let giant = guest.request("ephemeral", "nodev", "hugetlbfs", "g", &["pagesize=1G,size=1G"]);
    assert!(guest.add("c1", &[giant]).unwrap_err().contains("hugepages-1048576kB"));
}

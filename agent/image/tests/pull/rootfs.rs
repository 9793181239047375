//! Root file systems on real overlay mounts; skipped without the right to mount.

use std::path::{Path, PathBuf};

use agent_image::{ImageStore, Rootfs, Settings};
use rustix::mount::{MountFlags, UnmountFlags};

use crate::image::{GZIP, Image, Layer, Store, tar_of};
use crate::registry::Registry;
use crate::run;

/// A tmpfs of the test's own: overlayfs doesn't take an overlay as its upper layer.
struct Scratch(tempfile::TempDir);

impl Scratch {
    fn new() -> Option<Self> {
        Self::with_options(None)
    }

    fn with_options(options: Option<&std::ffi::CStr>) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        match rustix::mount::mount("tmpfs", directory.path(), "tmpfs", MountFlags::empty(), options) {
            Ok(()) => Some(Self(directory)),
            Err(e) => {
                println!("skipped: can't mount here: {e}");
                None
            }
        }
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("container")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.0.path(), UnmountFlags::DETACH);
    }
}

fn pulled(layers: Vec<Layer>) -> (Store, std::sync::Arc<agent_image::Image>) {
    run(async {
        let registry = Registry::start();
        let reference = Image::new(layers).serve(&registry);
        let store = Store::new(registry.source());
        let image = store.images.pull(&reference).await.unwrap();
        (store, image)
    })
}

fn read(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

#[test]
fn upper_layers_win_and_whiteouts_hide() {
    let Some(scratch) = Scratch::new() else { return };
    let (_store, image) = pulled(vec![
        Layer::new(GZIP, tar_of(&[("a", b"1"), ("gone", b"1"), ("dir/old", b"1"), ("kept", b"1")])),
        Layer::new(
            GZIP,
            tar_of(&[("a", b"2"), (".wh.gone", b""), ("dir/.wh..wh..opq", b""), ("dir/new", b"2")]),
        ),
    ]);
    let rootfs = Rootfs::mount(&image, &scratch.path()).unwrap();
    let root = rootfs.path().to_owned();
    assert_eq!(read(&root.join("a")).as_deref(), Some("2"));
    assert_eq!(read(&root.join("kept")).as_deref(), Some("1"));
    assert!(!root.join("gone").exists());
    let names: Vec<_> =
        std::fs::read_dir(root.join("dir")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["new"]);

    // What a container writes is its own: neither the layers nor another container see it.
    std::fs::write(root.join("a"), "mine").unwrap();
    assert_eq!(read(&image.layers()[1].join("a")).as_deref(), Some("2"));
    let other = Rootfs::mount(&image, &scratch.path().join("other")).unwrap();
    assert_eq!(read(&other.path().join("a")).as_deref(), Some("2"));
    rootfs.unmount().unwrap();
    assert!(!root.join("a").exists());
    let other_root = other.path().to_owned();
    drop(other);
    assert!(!other_root.join("a").exists());
}

#[test]
fn the_longest_image_fits_one_mount() {
    let Some(scratch) = Scratch::new() else { return };
    let layers = (0..127).map(|n| Layer::file(GZIP, &format!("f{n}"), b"x")).collect();
    let (_store, image) = pulled(layers);
    let rootfs = Rootfs::mount(&image, &scratch.path()).unwrap();
    assert_eq!(std::fs::read_dir(rootfs.path()).unwrap().count(), 127);
}

#[test]
fn an_image_without_layers_is_an_empty_root() {
    let Some(scratch) = Scratch::new() else { return };
    let (_store, image) = pulled(Vec::new());
    let rootfs = Rootfs::mount(&image, &scratch.path()).unwrap();
    assert_eq!(std::fs::read_dir(rootfs.path()).unwrap().count(), 0);
}

#[test]
fn a_full_guest_says_so_and_keeps_nothing() {
    for options in [c"size=64k", c"nr_inodes=8"] {
        let Some(scratch) = Scratch::with_options(Some(options)) else { return };
        let files: Vec<String> = (0..16).map(|n| format!("f{n}")).collect();
        let files: Vec<(&str, &[u8])> = files.iter().map(|name| (name.as_str(), &[7u8; 8192][..])).collect();
        run(async {
            let registry = Registry::start();
            let reference = Image::new(vec![Layer::new(GZIP, tar_of(&files))]).serve(&registry);
            let store = ImageStore::new(Settings {
                registries: vec![registry.source()],
                ..Settings::new(scratch.path())
            })
            .unwrap();
            let error = store.pull(&reference).await.unwrap_err();
            assert!(error.to_string().contains("give it more memory"), "{error}");
        });
        assert_eq!(std::fs::read_dir(scratch.path().join("layers")).unwrap().count(), 0);
        assert_eq!(std::fs::read_dir(scratch.path().join("stage")).unwrap().count(), 0);
    }
}

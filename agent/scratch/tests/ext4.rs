//! The file system as e2fsprogs and this machine's kernel see it: needs e2fsck, and root with a loop device for the
//! mount; skipped with a word otherwise.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

const MIB: u64 = 1 << 20;
const GROUP: u64 = 128 * MIB;

/// A formatted file in a directory of its own; none when this machine can't hold it.
fn image(bytes: u64) -> Option<(tempfile::TempDir, PathBuf)> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image");
    let file = File::create(&path).unwrap();
    // What is there before must not matter.
    file.write_all_at(&vec![0xff; 8 << 20], 0).unwrap();
    if file.set_len(bytes).is_err() {
        eprintln!("skipped: no file of {bytes} bytes on this machine");
        return None;
    }
    agent_scratch::ext4::format(&file, bytes, &[0x5a; 32]).unwrap();
    Some((directory, path))
}

fn program(name: &str) -> Option<PathBuf> {
    let found = ["/sbin", "/usr/sbin", "/bin"].map(|directory| Path::new(directory).join(name));
    let found = found.into_iter().find(|path| path.exists());
    if found.is_none() {
        eprintln!("skipped: needs {name}");
    }
    found
}

fn check(image: &Path) {
    let Some(e2fsck) = program("e2fsck") else { return };
    let output = Command::new(e2fsck).args(["-f", "-n"]).arg(image).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}\n{text}", output.status);
}

#[test]
fn e2fsck_finds_nothing_wrong_at_any_size() {
    for bytes in [
        8 * MIB,
        8 * MIB + 4095,
        GROUP - 4096,
        GROUP,
        GROUP + 2 * MIB,
        GROUP + 3 * MIB,
        GROUP + 4 * MIB + 511,
        4 * GROUP + 77 * MIB,
        10 << 30,
        (1 << 40) + 12 * MIB,
    ] {
        if let Some((_directory, path)) = image(bytes) {
            check(&path);
        }
    }
}

/// e2fsck would take a while; its library reads the largest size's structures all the same.
#[test]
fn the_largest_size_has_every_group() {
    let Some(dumpe2fs) = program("dumpe2fs") else { return };
    let Some((_directory, path)) = image((16 << 40) - 8192) else { return };
    let output = Command::new(dumpe2fs).arg("-h").arg(&path).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("no {name}")).trim().to_owned()
    };
    assert_eq!(value("Block count"), "4294967294");
    assert_eq!(value("Inode count"), (131_072u64 * 8192).to_string());
    assert_eq!(value("Filesystem state"), "clean");
    assert!(!value("Filesystem features").contains("journal"));
}

#[test]
fn this_machines_kernel_mounts_it_and_e2fsck_agrees_afterwards() {
    let Some((directory, path)) = image(2 * GROUP + 5 * MIB) else { return };
    let at = directory.path().join("at");
    std::fs::create_dir(&at).unwrap();
    let options = "loop,noinit_itable,inode_readahead_blks=0,nobarrier";
    let mounted =
        Command::new("mount").args(["-t", "ext4", "-o", options]).arg(&path).arg(&at).output().unwrap();
    if !mounted.status.success() {
        eprintln!("skipped: cannot mount here: {}", String::from_utf8_lossy(&mounted.stderr).trim());
        return;
    }
    let _umount = Umount(&at);
    assert_eq!(std::fs::read_dir(&at).unwrap().count(), 0, "it begins empty");
    for number in 0..2000u32 {
        let below = at.join((number % 40).to_string());
        std::fs::create_dir_all(&below).unwrap();
        std::fs::write(below.join(number.to_string()), vec![b'x'; number as usize * 7 % 50_000]).unwrap();
    }
    std::os::unix::fs::symlink("/nowhere", at.join("link")).unwrap();
    std::fs::write(at.join("large"), vec![1; 30 << 20]).unwrap();
    std::fs::remove_dir_all(at.join("7")).unwrap();
    drop(_umount);
    check(&path);
}

struct Umount<'a>(&'a Path);

impl Drop for Umount<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).status();
    }
}

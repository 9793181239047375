//! Archives that GNU tar writes: each format, each form of sparse files, unpacked as they were packed.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use super::*;
use crate::archive;

fn tar(tree: &Path, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new("tar")
        .args(arguments)
        .arg("-C")
        .arg(tree)
        .args(["--sort=name", "-cf", "-", "."])
        .output()
        .expect("tar is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn unpacked(stream: &[u8]) -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    let mut unpacker = Unpacker::new(place.path()).unwrap();
    archive::read(stream, 1000, |member, data| unpacker.member(member, data)).unwrap();
    unpacker.finish().unwrap();
    place
}

/// Everything below a directory that a layer is to keep.
fn listing(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let status = fs::symlink_metadata(&path).unwrap();
            let content = if status.is_file() {
                format!("{:?}", crate::Digest::of(&fs::read(&path).unwrap()))
            } else if status.is_symlink() {
                format!("{:?}", fs::read_link(&path).unwrap())
            } else {
                directories.extend(status.is_dir().then(|| path.clone()));
                String::new()
            };
            found.push(format!(
                "{:?} {:o} {}:{} {} links {} {content}",
                path.strip_prefix(root).unwrap(),
                status.mode(),
                status.uid(),
                status.gid(),
                status.mtime(),
                if status.is_dir() { 0 } else { status.nlink() },
            ));
        }
    }
    found.sort();
    found
}

fn tree(long_names: bool) -> tempfile::TempDir {
    let tree = tempfile::tempdir().unwrap();
    let at = |name: &str| tree.path().join(name);
    fs::create_dir_all(at("usr/share/a directory")).unwrap();
    fs::write(at("usr/tool"), vec![3; 70_000]).unwrap();
    fs::set_permissions(at("usr/tool"), fs::Permissions::from_mode(0o6755)).unwrap();
    fs::hard_link(at("usr/tool"), at("usr/same")).unwrap();
    fs::write(at("empty"), "").unwrap();
    fs::write(at("usr/share/a directory/ä"), "umlaut").unwrap();
    symlink("../usr/tool", at("usr/link")).unwrap();
    rustix::fs::mknodat(CWD, at("fifo"), FileType::Fifo, Mode::from_raw_mode(0o640), 0).unwrap();
    if long_names {
        let deep = at(&format!("{}/{}", "d".repeat(120), "e".repeat(200)));
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("f".repeat(250)), "deep").unwrap();
        symlink("t".repeat(900), deep.join("long link")).unwrap();
        fs::hard_link(deep.join("f".repeat(250)), deep.join("another name")).unwrap();
    }
    let past = File::open(at("usr/share")).unwrap();
    rustix::fs::futimens(&past, &times((86_400, 0))).unwrap();
    rustix::fs::utimensat(CWD, at("empty"), &times((-5, 0)), AtFlags::empty()).unwrap();
    tree
}

#[test]
fn each_format_comes_out_as_it_was_packed() {
    for (format, long_names) in
        [("gnu", true), ("oldgnu", true), ("posix", true), ("ustar", false), ("v7", false)]
    {
        let tree = tree(long_names);
        if !matches!(format, "gnu" | "oldgnu" | "posix") {
            // Octal digits only, and no fifos in the oldest.
            rustix::fs::utimensat(CWD, tree.path().join("empty"), &times((5, 0)), AtFlags::empty()).unwrap();
            fs::remove_file(tree.path().join("fifo")).unwrap();
        }
        let place = unpacked(&tar(tree.path(), &[&format!("--format={format}")]));
        assert_eq!(listing(place.path()), listing(tree.path()), "{format}");
    }
}

/// A file with data at these places, otherwise holes.
fn sparse(path: &Path, size: u64, data: &[u64]) {
    let file = File::create(path).unwrap();
    file.set_len(size).unwrap();
    for at in data {
        file.write_all_at(&[9; 4096], *at).unwrap();
    }
}

#[test]
fn each_form_of_sparse_files_keeps_its_holes() {
    let tree = tempfile::tempdir().unwrap();
    let many: Vec<u64> = (0..60).map(|n| n << 17).collect();
    sparse(&tree.path().join("many"), 16 << 20, &many);
    sparse(&tree.path().join("start"), 1 << 20, &[0]);
    sparse(&tree.path().join("end"), 1 << 20, &[(1 << 20) - 4096]);
    sparse(&tree.path().join("odd"), (1 << 20) + 77, &[8192]);
    sparse(&tree.path().join("hole"), 1 << 20, &[]);
    let long = format!("{}/{}", "d".repeat(150), "f".repeat(150));
    fs::create_dir(tree.path().join("d".repeat(150))).unwrap();
    sparse(&tree.path().join(long), 1 << 20, &[65_536]);
    fs::write(tree.path().join("dense"), vec![5; 5000]).unwrap();
    for form in [
        &["--format=gnu"][..],
        &["--format=oldgnu"],
        &["--format=posix", "--sparse-version=0.0"],
        &["--format=posix", "--sparse-version=0.1"],
        &["--format=posix", "--sparse-version=1.0"],
    ] {
        let stream = tar(tree.path(), &[&["--sparse", "--hole-detection=raw"], form].concat());
        assert!(stream.len() < 2 << 20, "{form:?}: tar stored the holes");
        let place = unpacked(&stream);
        assert_eq!(listing(place.path()), listing(tree.path()), "{form:?}");
        for name in ["many", "hole", "end"] {
            let status = fs::metadata(place.path().join(name)).unwrap();
            assert!(
                status.blocks() * 512 < status.len() / 2,
                "{form:?}: {name} takes {} blocks",
                status.blocks()
            );
        }
    }
}

#[test]
fn a_sparse_file_above_eight_gibibytes() {
    let tree = tempfile::tempdir().unwrap();
    let last = (9u64 << 30) - 4096;
    sparse(&tree.path().join("large"), 9 << 30, &[0, last]);
    for form in [&["--format=gnu"][..], &["--format=posix"]] {
        // Where the file system tells its holes, nothing of nine gibibytes is read.
        let place = unpacked(&tar(tree.path(), &[&["--sparse"], form].concat()));
        let file = File::open(place.path().join("large")).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 9 << 30);
        let mut end = [0; 4096];
        file.read_exact_at(&mut end, last).unwrap();
        assert_eq!(end, [9; 4096], "{form:?}");
    }
}

#[test]
fn extended_attributes_come_along() {
    let tree = tempfile::tempdir().unwrap();
    let path = tree.path().join("file");
    fs::write(&path, "x").unwrap();
    let set = rustix::fs::setxattr(&path, "user.sealpod", b"a\0b\n", XattrFlags::empty());
    if set.is_err() {
        println!("skipped: no user attributes here");
        return;
    }
    let place = unpacked(&tar(tree.path(), &["--format=posix", "--xattrs", "--xattrs-include=user.*"]));
    let mut value = [0; 16];
    let length = rustix::fs::getxattr(place.path().join("file"), "user.sealpod", &mut value[..]).unwrap();
    assert_eq!(&value[..length], b"a\0b\n");
}

#[test]
fn global_headers_of_git_and_tar_change_nothing() {
    let tree = tempfile::tempdir().unwrap();
    fs::write(tree.path().join("file"), "x").unwrap();
    let place =
        unpacked(&tar(tree.path(), &["--format=posix", "--pax-option=comment=0123456789abcdef,mtime=12"]));
    assert_eq!(fs::read(place.path().join("file")).unwrap(), b"x");
}

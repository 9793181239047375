//! Copied files: what lands where, and what nobody may write.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use proptest::prelude::*;

use super::*;

fn request(path: &str, mode: u32, data: &[u8]) -> wire::CopyFileRequest {
    let metadata = fs::metadata("/proc/self").unwrap();
    wire::CopyFileRequest {
        path: format!("{SHARED}/{path}"),
        file_mode: mode,
        file_size: data.len() as i64,
        uid: metadata.uid() as i32,
        gid: metadata.gid() as i32,
        data: data.to_vec(),
        ..Default::default()
    }
}

const FILE: u32 = 0o100_644;
const DIR: u32 = 0o040_755;
const LINK: u32 = 0o120_777;

#[test]
fn files_directories_and_links_arrive_as_they_are() {
    let root = tempfile::tempdir().unwrap();
    // Go's mode of a directory has a bit of its own, and 0 is no mode.
    let mut file = request("c1-config/..1/key", FILE, b"value");
    file.dir_mode = 0o20_000_000_750;
    copy(root.path(), &file).unwrap();
    copy(root.path(), &request("c1-config/..data", LINK, b"..1")).unwrap();
    copy(root.path(), &request("c1-config/key", LINK, b"..data/key")).unwrap();
    copy(root.path(), &request("c1-config/empty", DIR, b"")).unwrap();
    let at = |name: &str| root.path().join(name);
    assert_eq!(fs::read_to_string(at("c1-config/key")).unwrap(), "value");
    assert_eq!(fs::metadata(at("c1-config/..1/key")).unwrap().mode(), FILE);
    assert_eq!(fs::metadata(at("c1-config/..1")).unwrap().mode() & 0o7777, 0o750);
    assert_eq!(fs::metadata(at("c1-config/empty")).unwrap().mode(), DIR);
    // An update: the link is moved over the old one, through which files are reached too.
    copy(root.path(), &request("c1-config/..2/key", FILE, b"new")).unwrap();
    copy(root.path(), &request("c1-config/..data", LINK, b"..2")).unwrap();
    assert_eq!(fs::read_to_string(at("c1-config/key")).unwrap(), "new");
    copy(root.path(), &request("c1-config/..data/more", FILE, b"x")).unwrap();
    assert!(at("c1-config/..2/more").is_file());
}

#[test]
fn a_file_is_there_when_its_last_byte_has_come() {
    let root = tempfile::tempdir().unwrap();
    let part = |offset: i64, data: &[u8]| {
        let mut part = request("big", FILE, data);
        (part.offset, part.file_size) = (offset, 6);
        copy(root.path(), &part)
    };
    part(0, b"abc").unwrap();
    assert!(!root.path().join("big").exists());
    part(3, b"def").unwrap();
    assert_eq!(fs::read(root.path().join("big")).unwrap(), b"abcdef");
    assert!(!root.path().join("big.tmp").exists());
    // Begun again, it begins at the beginning; an empty file is whole at once.
    part(0, b"123").unwrap();
    part(0, b"xyz").unwrap();
    part(3, b"456").unwrap();
    assert_eq!(fs::read(root.path().join("big")).unwrap(), b"xyz456");
    copy(root.path(), &request("none", FILE, b"")).unwrap();
    assert_eq!(fs::metadata(root.path().join("none")).unwrap().len(), 0);
}

#[test]
fn what_stands_there_is_replaced() {
    let root = tempfile::tempdir().unwrap();
    copy(root.path(), &request("x/y/z", FILE, b"1")).unwrap();
    copy(root.path(), &request("x", FILE, b"file")).unwrap();
    assert!(root.path().join("x").is_file());
    copy(root.path(), &request("x", DIR, b"")).unwrap();
    copy(root.path(), &request("x", DIR, b"")).unwrap();
    assert!(root.path().join("x").is_dir());
}

#[test]
fn no_link_leads_out() {
    let root = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("victim"), "safe").unwrap();
    symlink(outside.path(), root.path().join("abs")).unwrap();
    symlink("../../../../../../..", root.path().join("up")).unwrap();
    symlink(outside.path().join("victim"), root.path().join("leaf")).unwrap();
    // Absolute links begin at the shared directory: nothing is there.
    let inside = root.path().join(outside.path().strip_prefix("/").unwrap());
    let _ = copy(root.path(), &request("abs/victim", FILE, b"evil"));
    let _ = copy(root.path(), &request("up/etc/evil-of-sealpod", FILE, b"evil"));
    copy(root.path(), &request("leaf", FILE, b"evil")).unwrap();
    copy(root.path(), &request("abs", DIR, b"")).unwrap();
    assert_eq!(fs::read_to_string(outside.path().join("victim")).unwrap(), "safe");
    assert!(!Path::new("/etc/evil-of-sealpod").exists());
    assert!(!inside.join("victim").is_symlink());
    assert!(root.path().join("leaf").symlink_metadata().unwrap().is_file());
    // A link in the place of the file that is being made is not written through.
    symlink(outside.path().join("victim"), root.path().join("t.tmp")).unwrap();
    let mut rest = request("t", FILE, b"evil");
    (rest.offset, rest.file_size) = (4, 8);
    assert!(copy(root.path(), &rest).is_err());
    assert_eq!(fs::read_to_string(outside.path().join("victim")).unwrap(), "safe");
}

#[test]
fn each_wrong_field_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let good = request("a", FILE, b"x");
    copy(root.path(), &good).unwrap();
    type Change = fn(&mut wire::CopyFileRequest);
    for change in [
        (|r| r.path = "/etc/passwd".into()) as Change,
        |r| r.path = format!("{SHARED}x/a"),
        |r| r.path = SHARED.into(),
        |r| r.path = format!("{SHARED}/../x"),
        |r| r.path = format!("{SHARED}/a/../../x"),
        |r| r.path = format!("{SHARED}/a\0"),
        |r| r.path = format!("{SHARED}/{}", "a/".repeat(65)),
        |r| r.file_size = -1,
        |r| r.offset = -1,
        |r| r.offset = 1,
        |r| r.offset = i64::MAX,
        |r| r.file_size = 0,
        |r| r.file_mode = 0o020_666,
        |r| r.file_mode = 0o060_666,
        |r| r.file_mode = 0o010_666,
        |r| (r.file_mode, r.data) = (0o120_777, Vec::new()),
        |r| (r.file_mode, r.data) = (0o120_777, b"a\0b".to_vec()),
    ] {
        let mut request = good.clone();
        change(&mut request);
        assert!(matches!(copy(root.path(), &request), Err(Error::Internal(_))), "{request:?}");
    }
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_is_copied_stays_below(
        steps in prop::collection::vec(("[ab./]{1,8}", 0usize..3, "[ab./]{1,8}"), 1..12),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir(&root).unwrap();
        for (path, kind, data) in steps {
            let mode = [FILE, DIR, LINK][kind];
            let _ = copy(&root, &request(&path, mode, data.as_bytes()));
        }
        prop_assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}

//! What the host may not do with CopyFile.

use super::*;

struct Fixture {
    dir: tempfile::TempDir,
    quarantine: Quarantine,
}

fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let quarantine = Quarantine::new(&dir.path().join("q")).unwrap();
    Fixture { dir, quarantine }
}

impl Fixture {
    fn copy(&self, path: &str, mode: u32, data: &[u8]) -> Result<(), Refusal> {
        let path = format!("{SHARED}/{path}");
        let size = data.len() as i64;
        self.quarantine.copy(&Copy { path: &path, mode, size, offset: 0, data })
    }

    fn read(&self, path: &str) -> Vec<u8> {
        fs::read(self.dir.path().join("q").join(path)).unwrap()
    }
}

const FILE: u32 = 0o100_644;
const DIRECTORY: u32 = 0o040_755;
const LINK: u32 = 0o120_777;

fn code(result: Result<(), Refusal>) -> Code {
    result.unwrap_err().code
}

#[test]
fn a_config_map_volume_arrives_whole() {
    let f = fixture();
    f.copy("c1-ab-config/..2026/key", FILE, b"value").unwrap();
    f.copy("c1-ab-config/..data", LINK, b"..2026").unwrap();
    f.copy("c1-ab-config/key", LINK, b"..data/key").unwrap();
    f.copy("c1-ab-empty", DIRECTORY, b"").unwrap();
    f.copy("c1-ab-none", FILE, b"").unwrap();
    assert_eq!(f.read("c1-ab-config/key"), b"value");
    assert_eq!(f.quarantine.find(1024, |bytes| bytes == b"value").unwrap().unwrap(), b"value");
    // The kubelet updates by replacing the link.
    f.copy("c1-ab-config/..2027/key", FILE, b"newer").unwrap();
    f.copy("c1-ab-config/..data", LINK, b"..2027").unwrap();
    assert_eq!(f.read("c1-ab-config/key"), b"newer");
}

#[test]
fn a_file_is_visible_only_when_whole() {
    let f = fixture();
    let path = format!("{SHARED}/c1-doc");
    let part = |offset, data: &'static [u8]| Copy { path: &path, mode: FILE, size: 6, offset, data };
    f.quarantine.copy(&part(0, b"abc")).unwrap();
    assert!(!f.dir.path().join("q/c1-doc").exists());
    assert!(f.quarantine.find(1024, |_| true).unwrap().is_none());
    assert_eq!(code(f.quarantine.copy(&part(2, b"c"))), Code::CopyDenied);
    f.quarantine.copy(&part(3, b"def")).unwrap();
    assert_eq!(f.read("c1-doc"), b"abcdef");
}

#[test]
fn paths_that_leave_are_refused() {
    let f = fixture();
    for path in ["../x", "a/../../x", "a/./b", "a//b", ".stage/0", "", "a\0b", ".", ".."] {
        assert_eq!(code(f.copy(path, FILE, b"x")), Code::CopyDenied, "{path:?}");
    }
    for path in ["/etc/passwd", "/run/kata-containers/shared/containersx/y", "relative", SHARED] {
        let copy = Copy { path, mode: FILE, size: 1, offset: 0, data: b"x" };
        assert_eq!(code(f.quarantine.copy(&copy)), Code::CopyDenied, "{path:?}");
    }
    assert_eq!(code(f.copy(&"d/".repeat(20), FILE, b"x")), Code::CopyDenied);
    assert_eq!(code(f.copy(&"n".repeat(256), FILE, b"x")), Code::CopyDenied);
}

#[test]
fn links_lead_nowhere_and_are_never_followed() {
    let f = fixture();
    for target in ["/etc/shadow", "../x", "a/../../x", "", "a\0b"] {
        assert_eq!(code(f.copy("l", LINK, target.as_bytes())), Code::CopyDenied, "{target:?}");
    }
    f.copy("real/file", FILE, b"1").unwrap();
    f.copy("link", LINK, b"real").unwrap();
    assert_eq!(code(f.copy("link/other", FILE, b"2")), Code::CopyDenied);
    // A link that somebody else put there is no way out either.
    std::os::unix::fs::symlink(f.dir.path(), f.dir.path().join("q/out")).unwrap();
    assert_eq!(code(f.copy("out/escaped", FILE, b"2")), Code::CopyDenied);
    assert!(!f.dir.path().join("escaped").exists());
    // Writing to a link's own name replaces the link, not its target.
    f.copy("link", FILE, b"3").unwrap();
    assert_eq!(f.read("real/file"), b"1");
}

#[test]
fn device_nodes_sockets_and_pipes_are_refused() {
    let f = fixture();
    for kind in [0o020_000, 0o060_000, 0o010_000, 0o140_000] {
        assert_eq!(code(f.copy("n", kind | 0o666, b"")), Code::CopyDenied, "{kind:o}");
    }
}

#[test]
fn set_id_bits_are_not_taken_over() {
    use std::os::unix::fs::PermissionsExt;
    let f = fixture();
    f.copy("suid", 0o106_777, b"x").unwrap();
    let mode = fs::metadata(f.dir.path().join("q/suid")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7111, 0, "{mode:o}");
}

#[test]
fn offsets_and_sizes_that_lie_are_refused() {
    let f = fixture();
    let path = format!("{SHARED}/f");
    let copy = |size, offset, data: &'static [u8]| {
        f.quarantine.copy(&Copy { path: &path, mode: FILE, size, offset, data })
    };
    assert_eq!(code(copy(-1, 0, b"")), Code::CopyDenied);
    assert_eq!(code(copy(4, -1, b"x")), Code::CopyDenied);
    assert_eq!(code(copy(4, i64::MAX, b"x")), Code::CopyDenied);
    assert_eq!(code(copy(4, 2, b"xy")), Code::CopyDenied);
    assert_eq!(code(copy(1, 0, b"xy")), Code::CopyDenied);
    assert_eq!(code(copy(i64::MAX, 0, b"x")), Code::CopyLimit);
}

#[test]
fn floods_meet_the_bounds_and_removal_frees_them() {
    let f = fixture();
    let large = vec![0; MAX_FILE as usize];
    for n in 0..MAX_BYTES / MAX_FILE {
        f.copy(&format!("c1-{n}"), FILE, &large).unwrap();
    }
    assert_eq!(code(f.copy("c1-x", FILE, b"x")), Code::CopyLimit);
    // Replacing a file needs room for both, as for any other.
    f.quarantine.forget("c2").unwrap();
    assert_eq!(code(f.copy("c1-x", FILE, b"x")), Code::CopyLimit);
    f.quarantine.forget("c1").unwrap();
    f.copy("c1-x", FILE, b"x").unwrap();
    for n in 0..MAX_ENTRIES - 1 {
        f.copy(&format!("e{n}"), DIRECTORY, b"").unwrap();
    }
    assert_eq!(code(f.copy("one-more", DIRECTORY, b"")), Code::CopyLimit);
}

#[test]
fn unfinished_files_are_bounded() {
    let f = fixture();
    for n in 0..=MAX_PARTIAL {
        let path = format!("{SHARED}/p{n}");
        let result = f.quarantine.copy(&Copy { path: &path, mode: FILE, size: 2, offset: 0, data: b"x" });
        assert_eq!(result.is_ok(), n < MAX_PARTIAL);
    }
}

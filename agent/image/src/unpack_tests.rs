//! Layers that try to leave their directory, and honest ones.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::PathBuf;

use tar::{Builder, EntryType, Header};

use super::*;
use crate::archive;

/// A tar stream, written entry by entry and as hostile as wanted: names are put in raw.
struct Tar(Builder<Vec<u8>>);

impl Tar {
    fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    fn entry(mut self, kind: EntryType, path: &str, link: &str, data: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000);
        let old = header.as_old_mut();
        old.name[..path.len()].copy_from_slice(path.as_bytes());
        old.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        self.0.append(&header, data).unwrap();
        self
    }

    fn file(self, path: &str, data: &[u8]) -> Self {
        self.entry(EntryType::Regular, path, "", data)
    }

    fn dir(self, path: &str) -> Self {
        self.entry(EntryType::Directory, path, "", b"")
    }

    fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(EntryType::Symlink, path, target, b"")
    }

    fn hard_link(self, path: &str, target: &str) -> Self {
        self.entry(EntryType::Link, path, target, b"")
    }

    fn pax(self, key: &str, value: &[u8]) -> Self {
        let mut record = Vec::new();
        let rest = key.len() + value.len() + 3;
        let length = (1..).map(|digits| rest + digits).find(|l| l.to_string().len() + rest == *l).unwrap();
        record.extend_from_slice(format!("{length} {key}=").as_bytes());
        record.extend_from_slice(value);
        record.push(b'\n');
        self.entry(EntryType::XHeader, "pax", "", &record)
    }

    fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

/// A layer directory inside a directory that must stay untouched.
struct Place {
    outer: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let outer = tempfile::tempdir().unwrap();
        fs::create_dir(outer.path().join("layer")).unwrap();
        fs::create_dir(outer.path().join("secret")).unwrap();
        fs::write(outer.path().join("secret/file"), "untouched").unwrap();
        Self { outer }
    }

    fn layer(&self) -> PathBuf {
        self.outer.path().join("layer")
    }

    fn unpack(&self, tar: Tar) -> Result<(), String> {
        let mut unpacker = Unpacker::new(&self.layer()).unwrap();
        archive::read(&tar.bytes()[..], 1000, |member, data| unpacker.member(member, data))?;
        unpacker.finish()
    }

    fn assert_untouched(&self) {
        let names: Vec<_> =
            fs::read_dir(self.outer.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names.len(), 2, "{names:?}");
        let secret: Vec<_> = fs::read_dir(self.outer.path().join("secret")).unwrap().collect();
        assert_eq!(secret.len(), 1);
        let file = self.outer.path().join("secret/file");
        assert_eq!(fs::read(&file).unwrap(), b"untouched");
        assert_eq!(fs::metadata(file).unwrap().nlink(), 1);
    }
}

fn sparse_records(major: &str, minor: &str, size: &str) -> Tar {
    Tar::new()
        .pax("GNU.sparse.major", major.as_bytes())
        .pax("GNU.sparse.minor", minor.as_bytes())
        .pax("GNU.sparse.realsize", size.as_bytes())
}

fn sparse_map(size: &str, map: &str) -> Tar {
    Tar::new().pax("GNU.sparse.size", size.as_bytes()).pax("GNU.sparse.map", map.as_bytes())
}

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("skipped: needs root to set owners");
    }
    root
}

#[test]
fn members_come_out_as_packed() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let tar = Tar::new()
        .dir("./")
        .dir("./etc/")
        .file("./etc/hello", b"hi")
        .pax("mtime", b"12.5")
        .pax_next_owner()
        .file("usr/bin/tool", b"#!")
        .symlink("bin", "usr/bin")
        .symlink("abs", "/nowhere/at/all")
        .file("bin/more", b"through a link that stays inside")
        .hard_link("etc/same", "etc/hello")
        .entry(EntryType::Fifo, "pipe", "", b"");
    place.unpack(tar).unwrap();
    let layer = place.layer();
    assert_eq!(fs::read(layer.join("etc/hello")).unwrap(), b"hi");
    assert_eq!(
        fs::metadata(layer.join("etc/hello")).unwrap().ino(),
        fs::metadata(layer.join("etc/same")).unwrap().ino()
    );
    let tool = fs::metadata(layer.join("usr/bin/tool")).unwrap();
    assert_eq!((tool.mtime(), tool.mtime_nsec(), tool.uid(), tool.gid()), (12, 500_000_000, 1234, 5678));
    assert_eq!(fs::read_link(layer.join("abs")).unwrap(), PathBuf::from("/nowhere/at/all"));
    assert!(fs::metadata(layer.join("usr/bin/more")).unwrap().is_file());
    assert!(fs::symlink_metadata(layer.join("pipe")).unwrap().file_type().is_fifo());
    assert_eq!(fs::metadata(layer.join("etc")).unwrap().mtime(), 1_000_000);
    assert_eq!(fs::metadata(layer.join("usr")).unwrap().permissions().mode() & 0o7777, 0o755);
    place.assert_untouched();
}

impl Tar {
    fn pax_next_owner(self) -> Self {
        self.pax("uid", b"1234").pax("gid", b"5678")
    }
}

#[test]
fn nothing_leads_out() {
    let cases: Vec<(&str, Tar)> = vec![
        ("dotdot file", Tar::new().file("../secret/file", b"x")),
        ("dotdot inside", Tar::new().dir("a").file("a/../../secret/new", b"x")),
        ("absolute file", Tar::new().file("/tmp/sealpod-escape", b"x")),
        ("absolute symlink, then through it", Tar::new().symlink("a", "/tmp").file("a/sealpod-escape", b"x")),
        ("relative symlink, then through it", Tar::new().symlink("a", "../secret").file("a/new", b"x")),
        (
            "deep symlink, then through it",
            Tar::new().dir("d").symlink("d/a", "../../secret").file("d/a/new", b"x"),
        ),
        ("chain of symlinks", Tar::new().symlink("a", "b").symlink("b", "..").file("a/secret/new", b"x")),
        ("directory below an outside symlink", Tar::new().symlink("a", "..").dir("a/new")),
        ("symlink below an outside symlink", Tar::new().symlink("a", "../secret").symlink("a/new", "x")),
        (
            "fifo below an outside symlink",
            Tar::new().symlink("a", "../secret").entry(EntryType::Fifo, "a/p", "", b""),
        ),
        ("whiteout below an outside symlink", Tar::new().symlink("a", "../secret").file("a/.wh.file", b"")),
        ("opaque below an outside symlink", Tar::new().symlink("a", "../secret").file("a/.wh..wh..opq", b"")),
        ("hard link to dotdot", Tar::new().hard_link("a", "../secret/file")),
        ("hard link to absolute", Tar::new().hard_link("a", "/etc/passwd")),
        ("hard link through a symlink", Tar::new().symlink("a", "../secret").hard_link("b", "a/file")),
        ("hard link to the root", Tar::new().hard_link("b", "./")),
        ("hard link to a directory", Tar::new().dir("d").hard_link("b", "d")),
        ("hard link to itself", Tar::new().file("b", b"x").hard_link("b", "b")),
        ("hard link to nothing", Tar::new().hard_link("b", "missing")),
        ("whiteout of dotdot", Tar::new().dir("a").file("a/.wh...", b"")),
        ("whiteout of dot", Tar::new().file(".wh..", b"")),
        ("whiteout of nothing", Tar::new().file(".wh.", b"")),
        ("whiteout of a whiteout", Tar::new().file(".wh..wh.plnk", b"")),
        ("pax path", Tar::new().pax("path", b"../secret/new").file("harmless", b"x")),
        ("pax linkpath", Tar::new().pax("linkpath", b"../secret/file").hard_link("harmless", "x")),
        (
            "long name",
            Tar::new().entry(EntryType::GNULongName, "l", "", b"../secret/new\0").file("harmless", b"x"),
        ),
        ("directory becomes a symlink", Tar::new().dir("a").symlink("a", "../secret").file("a/new", b"x")),
        ("directory becomes a file", Tar::new().dir("a").file("a", b"x")),
        ("root becomes a symlink", Tar::new().symlink("./", "../secret")),
        ("character device", Tar::new().entry(EntryType::Char, "null", "", b"")),
        ("block device", Tar::new().entry(EntryType::Block, "sda", "", b"")),
        ("overlay redirect", Tar::new().pax("SCHILY.xattr.trusted.overlay.redirect", b"/x").dir("a")),
        ("overlay redirect for users", Tar::new().pax("SCHILY.xattr.user.overlay.redirect", b"/x").dir("a")),
        ("access control list", Tar::new().pax("SCHILY.xattr.system.posix_acl_access", b"x").file("a", b"")),
        ("sparse file without a map", Tar::new().pax("GNU.sparse.major", b"1").file("a", b"")),
        ("sparse file of another version", sparse_records("2", "0", "4").file("a", b"")),
        ("sparse file whose map is not there", sparse_records("1", "0", "4").file("a", b"data")),
        ("sparse file whose segments lie outside", sparse_map("4", "0,8").file("a", b"12345678")),
        ("sparse file whose segments overlap", sparse_map("90", "0,4,2,4").file("a", b"12345678")),
        ("sparse file with more data than segments", sparse_map("90", "0,4").file("a", b"12345678")),
        ("sparse file with fewer", sparse_map("90", "0,4,8,5").file("a", b"12345678")),
        ("sparse file larger than any", sparse_map("18446744073709551615", "0,4").file("a", b"1234")),
        ("sparse directory", sparse_map("0", "").dir("a")),
        (
            "sparse name that leads out",
            sparse_map("4", "0,4").pax("GNU.sparse.name", b"../x").file("a", b"1234"),
        ),
        ("sparse file in two forms", sparse_map("4", "0,4").entry(EntryType::GNUSparse, "a", "", b"")),
        (
            "one attribute, two values",
            Tar::new().pax("SCHILY.xattr.user.a", b"x").pax("LIBARCHIVE.xattr.user.a", b"eQ").file("a", b""),
        ),
        ("headers for nothing", Tar::new().file("a", b"").pax("mtime", b"1")),
        ("size that lies", Tar::new().pax("size", b"4096").file("a", b"x")),
        (
            "global header that renames",
            Tar::new().entry(EntryType::XGlobalHeader, "g", "", b"12 path=abc\n").file("a", b""),
        ),
        ("owner out of range", Tar::new().pax("uid", b"4294967295").file("a", b"")),
        ("symlink without a target", Tar::new().symlink("a", "")),
        ("unknown type", Tar::new().entry(EntryType::new(b'Z'), "a", "", b"")),
        ("name too long", Tar::new().pax("path", &[b'a'; 256]).file("a", b"")),
        ("path too long", Tar::new().pax("path", &b"a/".repeat(2100)).file("a", b"")),
        ("NUL in a path", Tar::new().pax("path", b"a\0b").file("a", b"")),
        ("data in a directory", Tar::new().entry(EntryType::Directory, "a", "", b"data")),
        ("file as a parent", Tar::new().file("a", b"x").file("a/b", b"x")),
    ];
    for (name, tar) in cases {
        let place = Place::new();
        let error = place.unpack(tar).expect_err(name);
        assert!(!error.is_empty() && !error.contains('\n'), "{name}: {error}");
        place.assert_untouched();
        assert!(!Path::new("/tmp/sealpod-escape").exists(), "{name}");
    }
}

#[test]
fn a_symlink_is_replaced_and_not_written_through() {
    let place = Place::new();
    place.unpack(Tar::new().symlink("a", "../secret/file").file("a", b"own")).unwrap();
    assert_eq!(fs::read(place.layer().join("a")).unwrap(), b"own");
    place.assert_untouched();
}

#[test]
fn a_cached_parent_is_forgotten_with_its_link() {
    let place = Place::new();
    let tar = Tar::new().dir("real").symlink("a", "real").file("a/x", b"1").dir("a").file("a/y", b"2");
    place.unpack(tar).unwrap();
    assert!(place.layer().join("real/x").is_file());
    assert!(fs::symlink_metadata(place.layer().join("a")).unwrap().is_dir());
    assert!(place.layer().join("a/y").is_file() && !place.layer().join("real/y").exists());
}

#[test]
fn whiteouts_take_overlay_form() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let tar = Tar::new()
        .file(".wh.gone", b"")
        .dir("hidden")
        .file("hidden/.wh..wh..opq", b"")
        .file("hidden/own", b"x")
        .file(".wh.again", b"")
        .dir("again")
        .dir("later")
        .file(".wh.later", b"");
    place.unpack(tar).unwrap();
    let gone = fs::symlink_metadata(place.layer().join("gone")).unwrap();
    assert!(gone.file_type().is_char_device());
    assert_eq!(gone.rdev(), 0);
    for opaque in ["hidden", "again", "later"] {
        let mut value = [0; 8];
        let length =
            rustix::fs::getxattr(place.layer().join(opaque), OVERLAY_OPAQUE, &mut value).expect(opaque);
        assert_eq!(&value[..length], b"y", "{opaque}");
    }
    assert!(place.layer().join("hidden/own").is_file());
}

#[test]
fn setuid_survives_the_owner() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let mut header = Header::new_gnu();
    header.set_size(0);
    header.set_mode(0o4755);
    header.set_uid(7);
    header.set_gid(7);
    header.set_mtime(0);
    header.set_path("su").unwrap();
    header.set_cksum();
    let mut tar = Tar::new();
    tar.0.append(&header, &b""[..]).unwrap();
    place.unpack(tar).unwrap();
    let su = fs::metadata(place.layer().join("su")).unwrap();
    assert_eq!((su.permissions().mode() & 0o7777, su.uid()), (0o4755, 7));
}

#[test]
fn too_many_entries_are_refused() {
    let place = Place::new();
    let mut unpacker = Unpacker::new(&place.layer()).unwrap();
    let tar = Tar::new().file("a", b"").file("b", b"").file("c", b"").bytes();
    let error = archive::read(&tar[..], 2, |member, data| unpacker.member(member, data)).unwrap_err();
    assert_eq!(error, "more than 2 entries");
}

/// A stream that is refused, whatever is done with its members.
#[track_caller]
fn refused(stream: &[u8], because: &str) {
    let place = Place::new();
    let mut unpacker = Unpacker::new(&place.layer()).unwrap();
    let error = archive::read(stream, 1000, |member, data| unpacker.member(member, data)).unwrap_err();
    assert!(error.contains(because), "{error}");
}

#[test]
fn a_stream_ends_at_a_block_and_after_its_data() {
    let tar = Tar::new().file("a", &[7; 700]).bytes();
    refused(&tar[..300], "ended in a block");
    refused(&tar[..1000], "bytes early");
    refused(&tar[..512 + 700 + 10], "ended in a block");
    let mut after = tar[..512 + 1024].to_vec();
    after.extend_from_slice(&[0; 512]);
    after.extend_from_slice(&tar);
    refused(&after, "goes on after a block of zeros");
    let mut header = tar.clone();
    header[0] = b'b';
    refused(&header, "checksum");
    // An end marker may be missing.
    let place = Place::new();
    let mut unpacker = Unpacker::new(&place.layer()).unwrap();
    archive::read(&tar[..512 + 1024], 10, |member, data| unpacker.member(member, data)).unwrap();
}

#[test]
fn sizes_above_eight_gibibytes_come_in_base_256_or_in_pax() {
    let size = 9u64 << 30;
    let large = |tar: Tar, stated: u64| {
        let mut header = Header::new_gnu();
        header.set_path("large").unwrap();
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(stated);
        header.set_cksum();
        // Without the end marker.
        let mut stream = tar.bytes();
        stream.truncate(stream.len() - 1024);
        stream.extend_from_slice(header.as_bytes());
        stream
    };
    let seen = |stream: Vec<u8>| {
        let mut seen = None;
        let error = archive::read(&stream[..], 10, |member, _| {
            seen = Some(member.kind.clone());
            Ok(())
        });
        assert!(error.unwrap_err().contains("ended 9663676416 bytes early"));
        seen
    };
    assert_eq!(seen(large(Tar::new(), size)), Some(Kind::File(size)));
    let pax = || Tar::new().pax("size", size.to_string().as_bytes());
    assert_eq!(seen(large(pax(), 0)), Some(Kind::File(size)));
    // Where the header could have said it, the two must agree.
    let stream = large(Tar::new().pax("size", b"1000"), 4);
    let error = archive::read(&stream[..], 10, |_, _| Ok(())).unwrap_err();
    assert!(error.contains("the pax size differs"), "{error}");
}

#[test]
fn what_is_remembered_of_a_layer_is_bounded() {
    let place = Place::new();
    let mut unpacker = Unpacker::new(&place.layer()).unwrap();
    let member = Member {
        path: [b"a/".repeat(100), b"b".repeat(200)].concat(),
        kind: Kind::Directory,
        mode: 0o755,
        uid: 0,
        gid: 0,
        mtime: (0, 0),
        xattrs: Vec::new(),
    };
    let visits =
        (0..MAX_REMEMBERED / 400).find_map(|n| unpacker.member(&member, &mut &b""[..]).err().map(|e| (n, e)));
    let (visits, error) = visits.unwrap();
    assert!(visits > 1000 && error.contains("directories are longer"), "{visits}: {error}");
}

#[test]
fn a_large_long_name_is_refused_unread() {
    let place = Place::new();
    let tar = Tar::new().entry(EntryType::GNULongName, "l", "", &vec![b'a'; (1 << 20) + 1]).file("a", b"");
    assert!(place.unpack(tar).unwrap_err().contains("at most 1048576"));
}

//! The same inputs give the same bytes; what the two manifests put into a guest.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use initrd::{BuildError, Entry, Inputs, Manifest, build};
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::Command;

const PRODUCTION: &str = include_str!("../production.toml");
const TEST: &str = include_str!("../test.toml");

fn inputs(directory: &Path, names: &[&str]) -> Inputs {
    names
        .iter()
        .map(|name| {
            let path = directory.join(name);
            fs::write(&path, format!("bytes of {name}").repeat(1000)).unwrap();
            ((*name).to_owned(), path)
        })
        .collect()
}

#[test]
fn two_builds_in_different_directories_are_equal() {
    let program = env!("CARGO_BIN_EXE_initrd");
    let mut archives = Vec::new();
    for _ in 0..2 {
        let directory = tempfile::tempdir().unwrap();
        let inputs = inputs(directory.path(), &["agent", "emulated-sp", "ca-certificates"]);
        let mut command = Command::new(program);
        command.current_dir(directory.path()).arg("--out").arg("initrd.gz");
        command.arg("--manifest").arg(concat!(env!("CARGO_MANIFEST_DIR"), "/test.toml"));
        // The order on the command line must not matter either.
        let mut given: Vec<_> = inputs.into_iter().collect();
        if archives.is_empty() {
            given.reverse();
        }
        for (name, path) in given {
            command.arg("--input").arg(format!("{name}={}", path.display()));
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        archives.push(fs::read(directory.path().join("initrd.gz")).unwrap());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 4, "nothing is left beside the archive");
    }
    assert_eq!(archives[0], archives[1]);
}

#[test]
fn the_order_of_a_manifests_tables_does_not_matter() {
    let directory = tempfile::tempdir().unwrap();
    let inputs = inputs(directory.path(), &["agent", "ca-certificates"]);
    let mut tables: Vec<&str> = PRODUCTION.split("\n\n").skip(1).collect();
    tables.reverse();
    let there = build(&Manifest::parse(PRODUCTION).unwrap(), &inputs).unwrap();
    let back = build(&Manifest::parse(&tables.join("\n\n")).unwrap(), &inputs).unwrap();
    assert!(there == back);
}

#[test]
fn one_changed_input_byte_changes_the_archive() {
    let directory = tempfile::tempdir().unwrap();
    let inputs = inputs(directory.path(), &["agent", "ca-certificates"]);
    let manifest = Manifest::parse(PRODUCTION).unwrap();
    let before = build(&manifest, &inputs).unwrap();
    let mut bytes = fs::read(&inputs["agent"]).unwrap();
    bytes[0] ^= 1;
    fs::write(&inputs["agent"], bytes).unwrap();
    assert!(before != build(&manifest, &inputs).unwrap());
}

#[test]
fn every_member_has_zero_times_and_owners() {
    let directory = tempfile::tempdir().unwrap();
    let inputs = inputs(directory.path(), &["agent", "ca-certificates"]);
    let archive = build(&Manifest::parse(PRODUCTION).unwrap(), &inputs).unwrap();
    assert_eq!(archive[4..8], [0; 4], "gzip mtime");
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(&archive[..]).read_to_end(&mut plain).unwrap();
    let mut rest = &plain[..];
    let mut inode = 0;
    loop {
        let field = |at: usize| {
            let text = std::str::from_utf8(&rest[6 + at * 8..14 + at * 8]).unwrap();
            usize::from_str_radix(text, 16).unwrap()
        };
        let (name, size) = (field(11), field(6));
        assert_eq!((field(2), field(3), field(5)), (0, 0, 0), "uid, gid, mtime");
        if &rest[110..110 + name] == b"TRAILER!!!\0" {
            break;
        }
        inode += 1;
        assert_eq!(field(0), inode);
        rest = &rest[(110 + name).next_multiple_of(4) + size.next_multiple_of(4)..];
    }
    assert_eq!(inode, Manifest::parse(PRODUCTION).unwrap().entries().count());
}

#[test]
fn in_production_only_the_agent_can_run() {
    let manifest = Manifest::parse(PRODUCTION).unwrap();
    let executable: Vec<String> = manifest
        .entries()
        .filter(|(_, entry)| matches!(entry, Entry::File { mode, .. } if mode & 0o111 != 0))
        .map(|(path, _)| path)
        .collect();
    assert_eq!(executable, ["/init"]);
    assert_eq!(manifest.inputs(), ["agent", "ca-certificates"]);
}

#[test]
fn the_test_initrd_differs_from_production_by_the_emulation_helper_only() {
    let entries = |text| {
        Manifest::parse(text)
            .unwrap()
            .entries()
            .map(|(path, entry)| (path, entry.clone()))
            .collect::<Vec<_>>()
    };
    let (production, test) = (entries(PRODUCTION), entries(TEST));
    let extra: Vec<_> =
        test.iter().filter(|entry| !production.contains(entry)).map(|(path, _)| path.as_str()).collect();
    let missing: Vec<_> =
        production.iter().filter(|entry| !test.contains(entry)).map(|(path, _)| path.as_str()).collect();
    assert_eq!((extra, missing), (vec!["/init", "/sealpod-agent"], vec!["/init"]));
}

#[test]
fn missing_misspelt_and_unreadable_inputs_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let manifest = Manifest::parse(PRODUCTION).unwrap();
    let mut given = inputs(directory.path(), &["agent"]);
    let error = build(&manifest, &given).unwrap_err();
    assert!(matches!(&error, BuildError::InputMissing(name) if name == "ca-certificates"), "{error}");
    given.insert("ca-certificate".to_owned(), directory.path().join("x"));
    let error = build(&manifest, &given).unwrap_err();
    assert!(matches!(&error, BuildError::InputUnused(name, _) if name == "ca-certificate"), "{error}");
    given.remove("ca-certificate");
    given.insert("ca-certificates".to_owned(), directory.path().join("absent"));
    let error = build(&manifest, &given).unwrap_err();
    assert!(matches!(error, BuildError::Read { .. }), "{error}");
}

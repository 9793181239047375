//! The file system as e2fsprogs sees it: needs e2fsck; skipped with a word otherwise.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::fs::File;
use std::process::Command;

const E2FSCK: &str = "/sbin/e2fsck";

fn checked(bytes: u64) {
    if !std::path::Path::new(E2FSCK).exists() {
        eprintln!("skipped: needs e2fsck (package e2fsprogs)");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image");
    let file = File::create(&path).unwrap();
    if file.set_len(bytes).is_err() {
        eprintln!("skipped: a file of {bytes} bytes is too large for this machine's file system");
        return;
    }
    agent_scratch::ext4::format(&file, bytes, &[0x5a; 32]).unwrap();
    let output = Command::new(E2FSCK).args(["-f", "-n"]).arg(&path).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    println!("{} {text}", output.status);
}

#[test]
fn small() {
    checked(8 << 20);
}

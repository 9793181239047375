//! `sealpod collateral`: from a service on loopback into a cache, a bundle, and another cache.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};
use std::time::SystemTime;

use collateral::{Key, Line};
use sealpod_emulator::snp::certificates::Endorsement;
use sealpod_emulator::snp::crl::Revocations;
use sealpod_emulator::snp::{Authorities, Chip, KeyKind, Product, Tcb};
use x509_cert::der::pem::LineEnding;
use x509_cert::der::{Encode, EncodePem};

const TCB: &str = "bootloader=3,tee=0,snp=8,microcode=115";

/// A service that answers each path that it has, one connection after the other.
fn service(has: Vec<(Key, Vec<u8>)>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                request.extend(byte);
            }
            let request = String::from_utf8(request).unwrap();
            let path = request.split(' ').nth(1).unwrap();
            let body = has.iter().find(|(key, _)| key.kds_path().as_deref() == Some(path));
            let (status, body) = body.map_or((404, &[][..]), |(_, body)| (200, body));
            let head = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n\r\n", body.len());
            stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
        }
    });
    url
}

fn sealpod(dir: &Path, cache: &str, command: &str, words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sealpod"))
        .arg("--identity")
        .arg(dir.join("identity"))
        .args(["collateral", command, "--cache"])
        .arg(dir.join(cache))
        .arg("--emulated-root")
        .arg(dir.join("ark.pem"))
        .args(words)
        .output()
        .unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

#[test]
fn fetched_exported_imported_and_shown() {
    let dir = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let all = Authorities::generate(Product::Milan, 2048, now).unwrap();
    let chip = Chip::new(Product::Milan, [1; 48]);
    let tcb = Tcb { bootloader: 3, tee: 0, snp: 8, microcode: 115, fmc: 0 };
    let vcek = all.ask.endorse(&chip, &Endorsement::new(KeyKind::Vcek, tcb, now)).unwrap();
    let pem = [&all.ask_certificate, &all.ark_certificate].map(|one| one.to_pem(LineEnding::LF).unwrap());
    std::fs::write(dir.path().join("ark.pem"), &pem[1]).unwrap();
    let milan = tee_evidence::snp::Product::Milan;
    let id = hex::encode(chip.id());
    let url = service(vec![
        (Key::Chain(milan, Line::Vcek), pem.concat().into_bytes()),
        (Key::Crl(milan, Line::Vcek), all.crl(&Revocations::none(now)).unwrap()),
        (collateral::vcek_of("Milan", &id, TCB).unwrap(), vcek.to_der().unwrap()),
    ]);

    let chip = ["--product", "milan", "--chip", &id, "--tcb", TCB, "--kds", &url, "--allow-plain-http"];
    let fetched = sealpod(dir.path(), "a", "fetch", &chip);
    assert!(fetched.status.success(), "{}", text(&fetched));
    let shown = sealpod(dir.path(), "a", "show", &[]);
    assert!(
        text(&shown).contains("VCEK of Milan chip") && text(&shown).contains("; fresh;"),
        "{}",
        text(&shown)
    );
    let bundle = dir.path().join("collateral.tar");
    let bundle = bundle.to_str().unwrap();
    assert!(sealpod(dir.path(), "a", "export", &["--output", bundle]).status.success());
    let imported = sealpod(dir.path(), "b", "import", &[bundle]);
    assert!(text(&imported).contains("3 new, 0 known, 0 refused"), "{}", text(&imported));
    assert_eq!(sealpod(dir.path(), "b", "show", &[]).stdout, shown.stdout);

    // What the service doesn't have, plain HTTP without a word, and words that name nothing.
    let other = TCB.replace("snp=8", "snp=9");
    let missing = ["--product", "milan", "--chip", &id, "--tcb", &other, "--kds", &url, "--allow-plain-http"];
    for (words, expected) in [
        (&missing[..], "1 of 3 pieces could not be fetched"),
        (&chip[..8], "without TLS"),
        (&[][..], "say for which chip"),
        (&["--product", "rome"][..], "no product"),
        (&["--cpu0-id", "00"][..], "128 hexadecimal digits"),
    ] {
        let refused = sealpod(dir.path(), "c", "fetch", words);
        assert!(!refused.status.success() && text(&refused).contains(expected), "{}", text(&refused));
    }
    // Without the root's name nothing of it is taken.
    let strict = Command::new(env!("CARGO_BIN_EXE_sealpod"))
        .args(["collateral", "import", "--cache"])
        .arg(dir.path().join("d"))
        .arg(bundle)
        .output()
        .unwrap();
    assert!(!strict.status.success() && text(&strict).contains("not accepted here"), "{}", text(&strict));
}

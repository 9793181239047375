//! Bodies of the fuzz targets of `attestation/relay`: what QEMU's monitor says, and QEMU's command line.

#![allow(dead_code)] // Each target uses one of them.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::Path;

use sealpod_relay::qmp::wire::{self, MAX_LINE, Message};
use sealpod_relay::qmp::{Capabilities, Launch, Measurement};
use sealpod_relay::sev::command_line::{CommandLine, Object};

/// Lines of the monitor: any bytes. What is read as an answer is bounded, and fit for the broker's request.
pub(crate) fn qmp_answers(data: &[u8]) {
    for line in data.split(|byte| *byte == b'\n') {
        let value = match wire::parse(line) {
            Ok(Message::Return { value, .. }) => value,
            Ok(Message::Error { class, desc, .. }) => {
                assert!(class.len() + desc.len() <= 4 * 320);
                assert!(!class.chars().chain(desc.chars()).any(char::is_control));
                continue;
            }
            Ok(_) | Err(_) => continue,
        };
        assert!(line.len() <= MAX_LINE + 16);
        if let Ok(platform) = Capabilities::from_value(&value) {
            assert!(!platform.pdh.is_empty() && platform.cert_chain.len() <= 24 * 1024);
            assert!(platform.check().is_ok());
        }
        if let Ok(measurement) = Measurement::from_value(&value) {
            assert_eq!(measurement.as_str().len(), 64);
        }
        if Launch::from_value(&value).is_ok() {
            assert_eq!(value["state"], "launch-secret");
        }
    }
}

/// QEMU's words, one a line. What is launched has one SEV object, which is ours, and is paused.
pub(crate) fn command_line(data: &[u8]) {
    let words = data.split(|byte| *byte == b'\n').map(|word| OsString::from_vec(word.to_vec()));
    // Fewer than the most: ours are added.
    let Ok(Some(line)) = CommandLine::parse(words.take(4000).collect()) else { return };
    let object = Object {
        cbitpos: 51,
        reduced_phys_bits: 1,
        policy: 5,
        godh: Path::new("/g,"),
        session: Path::new("/s"),
        monitor: Path::new("/m"),
    };
    let words = line.launch(&object);
    let ours = words.windows(2).filter(|pair| {
        pair[0] == "-object" && pair[1].to_string_lossy().starts_with("sev-guest,id=sealpod0,")
    });
    assert_eq!(ours.count(), 1);
    assert!(words.iter().any(|word| word == "-S"));
    // Read again, the line is the same but for what the wrapper takes out.
    let again = CommandLine::parse(words.clone()).unwrap().unwrap();
    assert_eq!(again.drives, line.drives);
    assert!(again.stopped && again.daemonize == line.daemonize && again.policy == Some(5));
}

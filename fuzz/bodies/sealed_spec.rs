//! Bodies of the fuzz targets of `formats/sealed-spec`: they must not panic, and what a parser accepts
//! it must give back unchanged.

#![allow(dead_code)] // Each target uses one of them.

use sealed_spec::initdata::{Initdata, annotation, device};
use sealed_spec::log::{Content, Line, LogInfo, LogKey, LogStream, Opener, Place, Sealer};
use sealed_spec::{SealedDocument, SpecKey, fields};

/// A sealed document from a ConfigMap: any text.
pub(crate) fn sealed_document(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(document) = SealedDocument::parse(text) else { return };
    assert_eq!(document.as_str(), text, "a second spelling was accepted");
    let Ok(key) = SpecKey::from_bytes(&[7; 32]) else { return };
    if let Ok(spec) = document.open(&key) {
        assert!(spec.validate().is_ok(), "an invalid specification was opened");
    }
}

/// Initdata as TOML: any bytes.
pub(crate) fn initdata_toml(data: &[u8]) {
    let Ok(initdata) = Initdata::parse(data) else { return };
    let text = initdata.to_toml();
    assert!(text.is_ok(), "what was read can't be written");
    let Ok(text) = text else { return };
    assert!(Initdata::parse(text.as_bytes()).is_ok_and(|again| again == initdata));
}

/// The initdata block device and the annotation: any bytes.
pub(crate) fn initdata_device(data: &[u8]) {
    if let Ok(document) = device::decode(data) {
        let again = device::encode(&document);
        assert!(again.is_ok(), "what was read can't be framed");
        let Ok(again) = again else { return };
        assert!(device::decode(&again).is_ok_and(|once_more| once_more == document));
    }
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = annotation::decode(text);
    }
}

/// A manifest as the owner's tool reads it: any JSON value. No sealed text may show up outside.
pub(crate) fn manifest_split(data: &[u8]) {
    let Ok(value) = serde_json::from_slice(data) else { return };
    let Ok(split) = fields::split(value) else { return };
    assert!(split.pod.validate().is_ok(), "an invalid pod was accepted");
    let publication = fields::Publication {
        annotation: "",
        config_map: Some("c"),
        runtime_class: None,
        placeholder_image: None,
    };
    split.publish(&publication);
}

/// Lines of a log that the host hands to the owner's opener: any bytes, after some lines of a real stream of which the
/// first bytes choose what is left out or comes twice. No text shows up that was not sealed, and none twice.
pub(crate) fn sealed_log(data: &[u8]) {
    let Ok(key) = LogKey::from_bytes(&[7; 32]) else { return };
    let info = LogInfo {
        spec: String::new(),
        container: "c".to_owned(),
        instance: "i".to_owned(),
        stream: LogStream::Stdout,
    };
    let mut honest = Vec::new();
    let Ok(mut sealer) = Sealer::new(&key.recipient(), &info, &mut honest) else { return };
    for line in ["one\n", "two\n", "three\n"] {
        assert!(sealer.push(line.as_bytes(), &mut honest).is_ok(), "not sealed");
    }
    assert!(sealer.finish(&mut honest).is_ok(), "not ended");

    let honest: Vec<&[u8]> = honest.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
    let (choices, hostile) = data.split_at(data.len().min(8));
    let mut lines: Vec<Vec<u8>> = Vec::new();
    for choice in choices {
        let mut line = honest[usize::from(*choice) % honest.len()].to_vec();
        if choice & 0x80 != 0 {
            let at = usize::from(choice & 0x7f) * line.len() / 128;
            line[at] ^= 1;
        }
        lines.push(line);
    }
    lines.extend(hostile.split(|byte| *byte == b'\n').map(<[u8]>::to_vec));

    let mut opener = Opener::new(key);
    let mut seen = Vec::new();
    for line in &lines {
        let Line::Sealed(opened) = opener.line(line) else { continue };
        if let Content::Text(text) = opened.content {
            assert!([b"one\n".as_slice(), b"two\n", b"three\n"].contains(&text.as_slice()), "forged");
            let fresh = !seen.contains(&opened.number);
            assert_eq!(fresh, opened.place != Place::Again, "chunk {}", opened.number);
            seen.push(opened.number);
        }
    }
    assert!(opener.streams().len() <= 1, "a stream that nobody sealed");
}

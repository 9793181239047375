//! A file out of a blob, in every way in which an ultravisor, or whoever plays one, may hand it out.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use protocols::pef::signed_message;
use serde_json::json;

use super::*;

const BLOB: &str = "00112233445566778899aabbccddeeff";

/// Hands out one file, in steps of so many bytes.
struct Fake {
    content: Vec<u8>,
    step: usize,
    /// Answers with this instead, from that call on.
    instead: Option<(usize, Option<i64>)>,
    calls: usize,
    names: Vec<[u8; 64]>,
    offsets: Vec<u64>,
}

impl Fake {
    fn new(content: impl Into<Vec<u8>>) -> Self {
        let content = content.into();
        Self { content, step: 64, instead: None, calls: 0, names: vec![], offsets: vec![] }
    }
}

impl Ultravisor for Fake {
    fn get_file(&mut self, name: &[u8; 64], offset: u64) -> Option<Chunk> {
        self.names.push(*name);
        self.offsets.push(offset);
        self.calls += 1;
        let rest = self.content.get(offset as usize..).unwrap_or_default();
        let rest = &rest[..rest.len().min(self.step)];
        let mut chunk = Chunk { length: rest.len() as i64, data: [0xee; 64] };
        chunk.data[..rest.len()].copy_from_slice(rest);
        if let Some((from, length)) = self.instead
            && self.calls >= from
        {
            chunk.length = length?;
        }
        Some(chunk)
    }
}

fn secret() -> Value {
    json!({
        "version": 1,
        "name": "sealpod",
        "blob": BLOB,
        "init_data": format!("sha256:{}", "01".repeat(32)),
        "sealed_spec": format!("sha256:{}", "02".repeat(32)),
        "key": STANDARD.encode([7; 32]),
    })
}

fn take(content: impl Into<Vec<u8>>) -> Result<Option<Pef>, EsmError> {
    Pef::take(&mut Fake::new(content))
}

/// The refusal of a secret with one member changed; it never quotes the key.
fn refused(member: &str, value: Value) -> EsmError {
    let mut secret = secret();
    secret[member] = value;
    let error = take(secret.to_string()).err().unwrap();
    let line = TeeError::from(take(secret.to_string()).err().unwrap()).refusal().to_string();
    assert!(!line.contains(&STANDARD.encode([7; 32])) && line.contains("LAUNCH_SECRET"), "{line}");
    error
}

#[test]
fn a_file_is_read_front_to_back_whatever_the_steps() {
    for step in [1, 7, 63, 64] {
        let mut fake = Fake { step, ..Fake::new(secret().to_string()) };
        let pef = Pef::take(&mut fake).unwrap().unwrap();
        assert_eq!((pef.kind(), pef.init_data_digest().unwrap()), (TeeKind::Pef, [1; 32]));
        assert_eq!(pef.sealed_spec(), Some(&[2; 32]));
        assert!(pef.spec_key().is_none());
        assert!(fake.offsets.is_sorted() && fake.offsets[0] == 0, "an ultravisor doesn't go back");
        assert!(fake.names.iter().all(|name| name.starts_with(b"sealpod\0") && name[8..] == [0; 56]));
    }
}

#[test]
fn evidence_is_the_blobs_signature_over_session_spec_and_blob() {
    let pef = take(secret().to_string()).unwrap().unwrap();
    let binding = Binding { report_data: &[3; 64], sealed_spec: &[2; 32] };
    let evidence = pef.evidence(&binding).unwrap();
    assert_eq!(evidence["blob"], BLOB);
    let signature = STANDARD.decode(evidence["signature"].as_str().unwrap()).unwrap();
    let message = signed_message(&[3; 64], &[2; 32], BLOB);
    let key = ring::signature::Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
    assert_eq!(signature, key.sign(&message).as_ref());
    let other = Binding { report_data: &[3; 64], sealed_spec: &[4; 32] };
    assert!(matches!(pef.evidence(&other), Err(TeeError::Esm(EsmError::OtherSpec))));
}

#[test]
fn nobody_who_answers_is_no_tee() {
    let mut fake = Fake { instead: Some((1, None)), ..Fake::new("") };
    assert!(Pef::take(&mut fake).unwrap().is_none());
    let mut fake = Fake { instead: Some((2, None)), ..Fake::new(secret().to_string()) };
    assert!(matches!(Pef::take(&mut fake), Err(EsmError::NoAnswer)), "one that stops answering is refused");
}

#[test]
fn refusals_of_the_ultravisor_are_refusals() {
    for call in [1, 2] {
        let mut fake = Fake { instead: Some((call, Some(-4))), ..Fake::new(secret().to_string()) };
        assert!(matches!(Pef::take(&mut fake), Err(EsmError::Refused(-4))), "call {call}");
    }
    let mut fake = Fake { instead: Some((1, Some(i64::MIN))), ..Fake::new("") };
    assert!(matches!(Pef::take(&mut fake), Err(EsmError::Refused(i64::MIN))));
}

#[test]
fn chunks_of_more_than_64_bytes_are_refused() {
    for length in [65, 128, i64::from(u32::MAX), i64::MAX] {
        let mut fake = Fake { instead: Some((2, Some(length))), ..Fake::new(secret().to_string()) };
        assert!(matches!(Pef::take(&mut fake), Err(EsmError::Chunk(found)) if found == length));
    }
}

#[test]
fn empty_endless_and_cut_files_are_refused() {
    assert!(matches!(take(""), Err(EsmError::Empty)));
    let fits = format!("{}{}", secret(), " ".repeat(MAX_ESM_FILE - secret().to_string().len()));
    assert!(take(fits.clone()).is_ok());
    assert!(matches!(take(fits + " "), Err(EsmError::Long)));
    let mut endless = Fake { instead: Some((1, Some(64))), ..Fake::new("") };
    assert!(matches!(Pef::take(&mut endless), Err(EsmError::Long)));
    assert_eq!(endless.calls, MAX_ESM_FILE / 64 + 1);
    let text = secret().to_string();
    for end in [1, 64, text.len() - 1] {
        assert!(matches!(take(&text.as_bytes()[..end]), Err(EsmError::Json { .. })), "{end}");
    }
}

#[test]
fn another_files_contents_under_this_name_are_refused() {
    assert!(matches!(refused("name", json!("backup")), EsmError::Name));
    assert!(matches!(refused("name", json!("")), EsmError::Name));
}

#[test]
fn other_versions_fields_and_forms_are_refused() {
    assert!(matches!(refused("version", json!(2)), EsmError::Version(2)));
    assert!(matches!(refused("version", json!(0)), EsmError::Version(0)));
    assert!(matches!(refused("more", json!(1)), EsmError::Json { .. }));
    for blob in ["", &BLOB[1..], &BLOB.to_uppercase(), "../../../../../../../../etc/shadow.."] {
        assert!(matches!(refused("blob", json!(blob)), EsmError::Field("blob id")), "{blob}");
    }
    for digest in ["", "sha256:", "01", &format!("sha256:{}", "0G".repeat(32))] {
        assert!(matches!(refused("init_data", json!(digest)), EsmError::Field("initdata digest")));
        assert!(matches!(refused("sealed_spec", json!(digest)), EsmError::Field("sealed spec digest")));
    }
    for key in ["", &STANDARD.encode([7; 31]), &STANDARD.encode([7; 33]), "!"] {
        assert!(matches!(refused("key", json!(key)), EsmError::Field("key")), "{key}");
    }
    for cut in ["version", "name", "blob", "init_data", "sealed_spec", "key"] {
        let mut secret = secret();
        secret.as_object_mut().unwrap().remove(cut);
        assert!(matches!(take(secret.to_string()), Err(EsmError::Json { .. })), "{cut}");
    }
    assert!(matches!(take([0xff; 80]), Err(EsmError::Json { .. })));
}

//! Bodies of the fuzz targets of `formats/image-policy`: policies, and signatures as a registry has them.

#![allow(dead_code)] // Each target uses one of them.

use std::sync::LazyLock;

use image_policy::{Policy, Reference, SignatureInput, verify};

/// Made for these tests, with GnuPG and OpenSSL.
pub(crate) const RING: &str = concat!(
    "mDMEZ3SFgBYJKwYBBAHaRw8BAQdA/ryc179IAegxAZ0PfrD+y1HsqZLuObqzqQnuzpqNWIS0DGZ1enpAZXhhbXBsZYiQBBMWCAA4FiEE4OcZtVL2",
    "/DYv7J8ijMJLPUB3mlMFAmd0hYACGwMFCwkIBwIGFQoJCAsCBBYCAwECHgECF4AACgkQjMJLPUB3mlNh+gD8C6DUIxyTu3V+iMeJKbmqFirXPbwT",
    "cJdK8ggfKyOH3SYBAM/sxIIxSVXvry5wpf30h6tjmK8G0A3tBmieFRvL34AC",
);
const KEY: &str = concat!(
    "LS0tLS1CRUdJTiBQVUJMSUMgS0VZLS0tLS0KTUZrd0V3WUhLb1pJemowQ0FRWUlLb1pJemowREFRY0RRZ0FFM29mUDRkRTRqK1RZZXRrbzNsaktY",
    "elZFekxLVgpEVVBDSmlOOVgxa3M4Y3hUMDlYbnE3SGdoZmpiNDZ4N2FEMVhoQ3pKVFlkUFFWaFcvbzdERVQwZitnPT0KLS0tLS1FTkQgUFVCTElD",
    "IEtFWS0tLS0tCg==",
);
pub(crate) const IMAGE: &str = "r.example/a:1";
/// The manifest that the good signature is for.
pub(crate) const DIGEST: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";
/// A day after the key was made.
const NOW: u64 = 1_735_862_400;

pub(crate) fn policy_text() -> String {
    format!(
        r#"{{"default":[{{"type":"sigstoreSigned","keyData":"{KEY}","signedIdentity":{{"type":"matchRepository"}}}}],
        "transports":{{"docker":{{"r.example":[{{"type":"signedBy","keyType":"GPGKeys","keyData":"{RING}"}}]}}}}}}"#
    )
}

static POLICY: LazyLock<Policy> =
    LazyLock::new(|| Policy::parse(policy_text().as_bytes()).expect("the policy above"));

/// A policy file. What is read gives every image some requirements.
pub(crate) fn policy(data: &[u8]) {
    let Ok(policy) = Policy::parse(data) else { return };
    let reference = Reference::parse(IMAGE).expect("a reference");
    let requirements = policy.requirements_for(&reference);
    let permitted = verify(&requirements, &reference, DIGEST, &[], NOW).is_ok();
    assert!(!(permitted && (requirements.asks_for_signatures() || requirements.rejects())));
}

/// A keyring in a policy, under a good signature.
pub(crate) fn keyring(data: &[u8], signature: &[u8]) {
    let value = serde_json::json!({
        "default": [{"type": "signedBy", "keyType": "GPGKeys", "keyData": base64(data)}]
    });
    if let Ok(policy) = Policy::from_value(value) {
        let reference = Reference::parse(IMAGE).expect("a reference");
        let input = [SignatureInput::Simple(signature.to_vec())];
        let _ = verify(&policy.requirements_for(&reference), &reference, DIGEST, &input, NOW);
    }
}

/// A signature: an OpenPGP message, and as cosign's payload. Whether the first was accepted.
pub(crate) fn signature(data: &[u8]) -> bool {
    let reference = Reference::parse(IMAGE).expect("a reference");
    let simple = [SignatureInput::Simple(data.to_vec())];
    let accepted = verify(&POLICY.requirements_for(&reference), &reference, DIGEST, &simple, NOW).is_ok();
    let elsewhere = Reference::parse("other.example/a:1").expect("a reference");
    let text = String::from_utf8_lossy(data).into_owned();
    let cosign = [SignatureInput::Cosign { payload: data.to_vec(), signature: text }];
    assert!(verify(&POLICY.requirements_for(&elsewhere), &elsewhere, DIGEST, &cosign, NOW).is_err());
    accepted
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let group =
            (0..3).fold(0_usize, |group, at| group << 8 | usize::from(chunk.get(at).copied().unwrap_or(0)));
        for at in 0..4 {
            let letter = char::from(ALPHABET[group >> (18 - 6 * at) & 63]);
            text.push(if at <= chunk.len() { letter } else { '=' });
        }
    }
    text
}

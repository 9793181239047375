//! Images that may run, and beside each those that may not for one reason.

use serde_json::{Value, json};

use super::*;
use crate::Policy;
use crate::testing::{Cosign, NOW, Signer, Wanted, payload as document};

const DIGEST: &str = "sha256:1111111111111111111111111111111111111111111111111111111111111111";
const OTHER: &str = "sha256:2222222222222222222222222222222222222222222222222222222222222222";
const IMAGE: &str = "r.example/team/app:1";
const REPOSITORY: &str = "r.example/team/app";

fn check(list: &Value, image: &str, signatures: &[SignatureInput]) -> Result<Permitted, Refusal> {
    let policy = Policy::from_value(json!({"default": list})).unwrap();
    let reference = Reference::parse(image).unwrap();
    verify(&policy.requirements_for(&reference), &reference, DIGEST, signatures, NOW)
}

fn reason(list: &Value, signatures: &[SignatureInput]) -> SignatureError {
    match check(list, IMAGE, signatures) {
        Err(Refusal::NoneAccepted { mut reasons, .. }) => reasons.remove(0),
        other => panic!("{other:?}"),
    }
}

fn sigstore(key: &Cosign) -> Value {
    json!({"type": "sigstoreSigned", "keyData": key.data(), "signedIdentity": {"type": "matchRepository"}})
}

fn signed_by(signer: &Signer) -> Value {
    json!({"type": "signedBy", "keyType": "GPGKeys", "keyData": STANDARD.encode(signer.ring())})
}

fn simple(signer: &Signer, digest: &str, reference: &str) -> SignatureInput {
    let text = document(payload::SIMPLE, digest, reference);
    SignatureInput::Simple(signer.message(text.as_bytes(), &Wanted::new(0)))
}

#[test]
fn what_needs_no_signature() {
    let accept = json!([{"type": "insecureAcceptAnything"}]);
    assert_eq!(check(&accept, IMAGE, &[]).unwrap().digest(), DIGEST);
    let reject = json!([{"type": "insecureAcceptAnything"}, {"type": "reject"}]);
    assert!(matches!(check(&reject, IMAGE, &[]), Err(Refusal::Rejected(_))));
    let policy = Policy::from_value(json!({"default": accept})).unwrap();
    let reference = Reference::parse(IMAGE).unwrap();
    let requirements = policy.requirements_for(&reference);
    for digest in ["", "sha256:1111", &DIGEST.replace('1', "A"), &DIGEST.replace("sha256", "sha512")] {
        let refused = verify(&requirements, &reference, digest, &[], NOW);
        assert!(matches!(refused, Err(Refusal::Digest(_))), "{digest}");
    }
}

#[test]
fn cosign_signatures() {
    let key = Cosign::new();
    let list = json!([sigstore(&key)]);
    let good = key.sign(&document(payload::COSIGN, DIGEST, REPOSITORY));
    assert_eq!(check(&list, IMAGE, std::slice::from_ref(&good)).unwrap().digest(), DIGEST);
    let null = document(payload::COSIGN, DIGEST, REPOSITORY).replace("\"optional\":{}", "\"optional\":null");
    assert!(check(&list, IMAGE, &[key.sign(&null)]).is_ok());

    let unsigned = check(&list, IMAGE, &[]).unwrap_err();
    assert!(matches!(unsigned, Refusal::Unsigned { others: 0, .. }), "{unsigned}");
    let other = Cosign::new().sign(&document(payload::COSIGN, DIGEST, REPOSITORY));
    assert_eq!(reason(&list, std::slice::from_ref(&other)), SignatureError::OtherKey { issuer: None });
    // A bad one beside it does no harm.
    assert!(check(&list, IMAGE, &[other, good.clone()]).is_ok());

    let digest = key.sign(&document(payload::COSIGN, OTHER, REPOSITORY));
    assert_eq!(reason(&list, &[digest]), SignatureError::OtherDigest { signed: OTHER.into() });
    let repository = key.sign(&document(payload::COSIGN, DIGEST, "r.example/team/other"));
    assert!(matches!(reason(&list, &[repository]), SignatureError::OtherReference { .. }));
    let kind = key.sign(&document(payload::SIMPLE, DIGEST, REPOSITORY));
    assert!(matches!(reason(&list, &[kind]), SignatureError::Payload(_)));
    let twice = document(payload::COSIGN, DIGEST, REPOSITORY);
    let twice = twice.replace(
        "\"identity\"",
        &format!("\"image\":{{\"docker-manifest-digest\":\"{OTHER}\"}},\"identity\""),
    );
    let error = reason(&list, &[key.sign(&twice)]);
    assert!(matches!(&error, SignatureError::Payload(text) if text.contains("there twice")), "{error}");

    let SignatureInput::Cosign { payload, signature } = good else { panic!() };
    let changed = |payload: Vec<u8>, signature: &str| SignatureInput::Cosign {
        payload,
        signature: signature.to_owned(),
    };
    let mut tampered = payload.clone();
    tampered.push(b' ');
    assert!(matches!(reason(&list, &[changed(tampered, &signature)]), SignatureError::OtherKey { .. }));
    let mut bytes = STANDARD.decode(&signature).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    let flipped = changed(payload.clone(), &STANDARD.encode(bytes));
    assert!(matches!(reason(&list, &[flipped]), SignatureError::OtherKey { .. }));
    for signature in ["", "%", "AAAA"] {
        assert!(check(&list, IMAGE, &[changed(payload.clone(), signature)]).is_err(), "{signature:?}");
    }
    let large = changed(vec![b' '; MAX_SIGNATURE + 1], &signature);
    assert!(matches!(reason(&list, &[large]), SignatureError::Malformed(_)));
}

#[test]
fn a_cosign_signature_names_no_tag() {
    let key = Cosign::new();
    let list = json!([{"type": "sigstoreSigned", "keyData": key.data()}]);
    let error = reason(&list, &[key.sign(&document(payload::COSIGN, DIGEST, REPOSITORY))]);
    assert!(error.to_string().contains("matchRepository"), "{error}");
    assert!(check(&list, IMAGE, &[key.sign(&document(payload::COSIGN, DIGEST, IMAGE))]).is_ok());
    assert!(
        check(&list, IMAGE, &[key.sign(&document(payload::COSIGN, DIGEST, "r.example/team/app:2"))]).is_err()
    );
}

#[test]
fn any_of_several_keys() {
    let (one, two) = (Cosign::new(), Cosign::new());
    let list = json!([{"type": "sigstoreSigned", "keyDatas": [one.data(), two.data()]}]);
    for key in [&one, &two] {
        assert!(check(&list, IMAGE, &[key.sign(&document(payload::COSIGN, DIGEST, IMAGE))]).is_ok());
    }
    assert!(check(&list, IMAGE, &[Cosign::new().sign(&document(payload::COSIGN, DIGEST, IMAGE))]).is_err());
}

#[test]
fn simple_signatures() {
    let signer = Signer::new(1);
    let list = json!([signed_by(&signer)]);
    let good = simple(&signer, DIGEST, IMAGE);
    assert_eq!(check(&list, IMAGE, std::slice::from_ref(&good)).unwrap().digest(), DIGEST);

    assert!(matches!(check(&list, IMAGE, &[]), Err(Refusal::Unsigned { .. })));
    let other = simple(&Signer::new(2), DIGEST, IMAGE);
    assert!(matches!(reason(&list, &[other]), SignatureError::OtherKey { .. }));
    let digest = simple(&signer, OTHER, IMAGE);
    assert_eq!(reason(&list, &[digest]), SignatureError::OtherDigest { signed: OTHER.into() });
    for name in ["r.example/team/app:2", "r.example/team/other:1", REPOSITORY, "", "r.example/team/APP:1"] {
        let error = reason(&list, &[simple(&signer, DIGEST, name)]);
        assert!(matches!(error, SignatureError::OtherReference { .. }), "{name}: {error}");
    }
    let SignatureInput::Simple(mut bytes) = good.clone() else { panic!() };
    let at = bytes.windows(4).position(|window| window == b"1111").unwrap();
    bytes[at] = b'2';
    assert_eq!(reason(&list, &[SignatureInput::Simple(bytes)]), SignatureError::Tampered);
    let text = document(payload::COSIGN, DIGEST, IMAGE);
    let kind = SignatureInput::Simple(signer.message(text.as_bytes(), &Wanted::new(0)));
    assert!(matches!(reason(&list, &[kind]), SignatureError::Payload(_)));
    let soon = u32::try_from(NOW).unwrap() - 10;
    let text = document(payload::SIMPLE, DIGEST, IMAGE);
    let expired = signer.message(text.as_bytes(), &Wanted::new(0).at(soon).with(3, &10_u32.to_be_bytes()));
    assert_eq!(reason(&list, &[SignatureInput::Simple(expired)]), SignatureError::Expired);

    // By digest, any tag of the repository will do, but no other digest.
    let by_digest = format!("{REPOSITORY}@{DIGEST}");
    assert!(check(&list, &by_digest, &[simple(&signer, DIGEST, "r.example/team/app:9")]).is_ok());
    assert!(check(&list, &by_digest, &[simple(&signer, OTHER, "r.example/team/app:9")]).is_err());
}

#[test]
fn signatures_of_another_kind_dont_count() {
    let (key, signer) = (Cosign::new(), Signer::new(1));
    let cosign = key.sign(&document(payload::COSIGN, DIGEST, REPOSITORY));
    let simple = simple(&signer, DIGEST, IMAGE);
    let refused = check(&json!([sigstore(&key)]), IMAGE, std::slice::from_ref(&simple)).unwrap_err();
    assert!(matches!(refused, Refusal::Unsigned { others: 1, .. }), "{refused}");
    let refused = check(&json!([signed_by(&signer)]), IMAGE, std::slice::from_ref(&cosign)).unwrap_err();
    assert!(matches!(refused, Refusal::Unsigned { others: 1, .. }), "{refused}");

    // Every requirement has to hold.
    let both = json!([sigstore(&key), signed_by(&signer)]);
    assert!(check(&both, IMAGE, &[cosign.clone(), simple.clone()]).is_ok());
    assert!(check(&both, IMAGE, &[cosign]).is_err());
    assert!(check(&both, IMAGE, &[simple]).is_err());
}

#[test]
fn too_many_signatures_and_keys_that_arent_here() {
    let key = Cosign::new();
    let good = key.sign(&document(payload::COSIGN, DIGEST, REPOSITORY));
    let many = vec![good.clone(); MAX_SIGNATURES + 1];
    let refused = check(&json!([sigstore(&key)]), IMAGE, &many);
    assert!(matches!(refused, Err(Refusal::TooMany { .. })));
    for files in [
        json!({"type": "sigstoreSigned", "keyPath": "/key"}),
        json!({"type": "signedBy", "keyType": "GPGKeys", "keyPaths": ["/key"]}),
    ] {
        let refused = check(&json!([files]), IMAGE, std::slice::from_ref(&good));
        assert!(matches!(refused, Err(Refusal::KeyFiles(_))));
    }
}

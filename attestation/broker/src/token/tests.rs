//! Tokens: what they say, and each way in which one is refused.

use verifier::{SampleClaims, TeeKind, Trust};

use super::*;

const NOW: SystemTime = SystemTime::UNIX_EPOCH;
const LIFETIME: Duration = Duration::from_secs(300);

fn names(issuer: &str) -> Names {
    Names { issuer: issuer.to_owned(), audiences: vec!["third".to_owned()] }
}

fn key(issuer: &str) -> TokenKey {
    TokenKey::parse(&TokenKey::generate().unwrap(), names(issuer)).unwrap()
}

fn verdict() -> Verdict {
    Verdict {
        tee: TeeKind::Sample,
        trust: Trust::Nobody,
        claims: verifier::Claims::Sample(SampleClaims { svn: "7".into() }),
        init_data: [0; 32],
        report_data: None,
        checks: Vec::new(),
    }
}

fn id() -> SessionId {
    SessionId::parse("00112233445566778899aabbccddeeff").unwrap()
}

fn jwk() -> Jwk {
    protocols::rcar::EphemeralKey::generate().unwrap().public_jwk()
}

fn token(key: &TokenKey, tee: TeeKind, trust: Trust) -> String {
    let (jwk, verdict) = (jwk(), Verdict { tee, trust, ..verdict() });
    let claims = Claims {
        tee: "snp",
        verdict: &verdict,
        report_data: &[1, 2],
        nonce: "bm9uY2U=",
        tee_pubkey: &jwk,
        init_data: Some(&[3; 32]),
        init_data_claims: json!({ "sealed_spec": "sha256:00" }),
    };
    key.issue(id(), &claims, NOW, LIFETIME).unwrap()
}

fn payload(token: &str) -> Value {
    let part = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

#[test]
fn our_token_names_its_session_until_it_expires() {
    let key = key("https://broker.example");
    let token = token(&key, TeeKind::Snp, Trust::Amd);
    assert_eq!(key.verify(&token, NOW + LIFETIME - Duration::from_secs(1)), Ok(id()));
    assert_eq!(key.verify(&token, NOW + LIFETIME), Err(TokenError::Expired));
}

#[test]
fn emulated_evidence_is_contraindicated() {
    let key = key("i");
    let genuine = payload(&token(&key, TeeKind::Snp, Trust::Amd))["submods"]["cpu0"].clone();
    assert_eq!(genuine["ear.status"], "none");
    assert_eq!(genuine["ear.veraison.annotated-evidence"]["snp"]["svn"], "7");
    assert_eq!(genuine["ear.veraison.annotated-evidence"]["init_data"], "03".repeat(32));
    let root = Trust::Emulated { common_name: "EMULATED".into(), fingerprint: [0; 32] };
    for (tee, trust) in [
        (TeeKind::SnpEmulated, root.clone()),
        (TeeKind::Snp, root.clone()),
        (TeeKind::PefEmulated, root),
        (TeeKind::Sample, Trust::Nobody),
    ] {
        let emulated = payload(&token(&key, tee, trust))["submods"]["cpu0"].clone();
        assert_eq!(emulated["ear.status"], "contraindicated");
        assert_eq!(emulated["ear.trustworthiness-vector"]["hardware"], 97);
    }
}

/// Any owner can enrol a machine of their own making.
#[test]
fn what_an_owner_enrolled_is_no_hardware_for_others() {
    let token = token(&key("i"), TeeKind::Pef, Trust::Enrolled { machines: 1 });
    let vector = payload(&token)["submods"]["cpu0"]["ear.trustworthiness-vector"].clone();
    assert_eq!((&vector["hardware"], &vector["instance-identity"]), (&json!(0), &json!(0)));
}

#[test]
fn hardware_with_known_weaknesses_is_a_warning() {
    let token = token(&key("i"), TeeKind::SevEs, Trust::Amd);
    let cpu = payload(&token)["submods"]["cpu0"].clone();
    assert_eq!(
        (&cpu["ear.status"], &cpu["ear.trustworthiness-vector"]["hardware"]),
        (&json!("warning"), &json!(32))
    );
}

#[test]
fn another_brokers_token_is_refused() {
    let token = token(&key("i"), TeeKind::Snp, Trust::Amd);
    assert_eq!(key("i").verify(&token, NOW), Err(TokenError::Foreign));
}

#[test]
fn another_issuer_is_refused() {
    let text = TokenKey::generate().unwrap();
    let token = token(&TokenKey::parse(&text, names("a")).unwrap(), TeeKind::Snp, Trust::Amd);
    assert_eq!(TokenKey::parse(&text, names("b")).unwrap().verify(&token, NOW), Err(TokenError::Foreign));
}

#[test]
fn a_header_that_chooses_is_refused() {
    let key = key("i");
    let token = token(&key, TeeKind::Snp, Trust::Amd);
    let rest = token.split_once('.').unwrap().1;
    for header in [
        json!({ "alg": "none", "typ": "JWT" }),
        json!({ "alg": "HS256", "typ": "JWT" }),
        json!({ "alg": "ES256", "typ": "JWT", "jwk": jwk() }),
        json!({ "typ": "JWT", "alg": "ES256" }),
    ] {
        let forged = format!("{}.{rest}", BASE64_URL_SAFE_NO_PAD.encode(header.to_string()));
        assert_eq!(key.verify(&forged, NOW), Err(TokenError::Foreign), "{header}");
    }
    let (signed, _) = token.rsplit_once('.').unwrap();
    assert_eq!(key.verify(&format!("{signed}."), NOW), Err(TokenError::Foreign));
}

#[test]
fn a_changed_payload_is_refused() {
    let key = key("i");
    let token = token(&key, TeeKind::Snp, Trust::Amd);
    let mut parts: Vec<String> = token.split('.').map(str::to_owned).collect();
    let mut changed = payload(&token);
    changed["exp"] = json!(u64::MAX);
    parts[1] = BASE64_URL_SAFE_NO_PAD.encode(changed.to_string());
    assert_eq!(key.verify(&parts.join("."), NOW), Err(TokenError::Foreign));
}

#[test]
fn what_is_no_token_is_refused() {
    let key = key("i");
    for text in ["", ".", "..", "a.b.c", &"a".repeat(MAX_BYTES + 1)] {
        assert_eq!(key.verify(text, NOW), Err(TokenError::Foreign));
    }
}

/// A token with another payload, signed by the right key.
fn signed(key: &TokenKey, payload: &Value) -> String {
    let signed = format!("{}.{}", key.header, BASE64_URL_SAFE_NO_PAD.encode(payload.to_string()));
    let signature = key.key.sign(&key.random, signed.as_bytes()).unwrap();
    format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
}

#[test]
fn a_claim_that_is_missing_or_wrong_is_refused() {
    let key = key("i");
    let good = payload(&token(&key, TeeKind::Snp, Trust::Amd));
    assert_eq!(key.verify(&signed(&key, &good), NOW), Ok(id()));
    for missing in ["iss", "aud", "exp", "nbf", "jti"] {
        let mut payload = good.clone();
        payload.as_object_mut().unwrap().remove(missing);
        assert_eq!(key.verify(&signed(&key, &payload), NOW), Err(TokenError::Foreign), "{missing}");
    }
    for (name, value, error) in [
        ("iss", json!("j"), TokenError::Foreign),
        ("aud", json!(["third"]), TokenError::Audience),
        ("aud", json!([]), TokenError::Audience),
        ("exp", json!(0), TokenError::Expired),
        ("exp", json!(-1), TokenError::Foreign),
        ("exp", json!(1e300), TokenError::Foreign),
        ("nbf", json!(1), TokenError::Early),
        ("jti", json!("x"), TokenError::Foreign),
    ] {
        let mut payload = good.clone();
        payload[name] = value;
        assert_eq!(key.verify(&signed(&key, &payload), NOW), Err(error), "{name}");
    }
}

#[test]
fn a_third_party_verifies_with_the_published_keys() {
    let key = key("i");
    let token = token(&key, TeeKind::Snp, Trust::Amd);
    let jwk = &key.jwks().unwrap()["keys"][0];
    assert_eq!((&jwk["use"], &jwk["alg"]), (&json!("sig"), &json!("ES256")));
    let header: Value =
        serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap()).unwrap())
            .unwrap();
    assert_eq!(header["kid"], jwk["kid"]);
    let coordinate = |name: &str| BASE64_URL_SAFE_NO_PAD.decode(jwk[name].as_str().unwrap()).unwrap();
    let point = [vec![4], coordinate("x"), coordinate("y")].concat();
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).unwrap();
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(signed.as_bytes(), &signature).unwrap();
    assert_eq!(payload(&token)["aud"], json!(["i", "third"]));
}

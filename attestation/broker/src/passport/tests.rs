//! Passports: the good one, and each with one thing wrong. Claims are changed and signed again by the issuer's
//! own key, so that nothing but the claim is wrong.

use std::time::Duration;

use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};
use tee_evidence::snp::{GuestPolicy, PlatformInfo};
use verifier::snp::{PlatformBits, PolicyBits};

use super::keys::coordinates;
use super::*;

const ISSUER: &str = "https://other.example";
const AUDIENCE: &str = "https://broker.example";

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_300_140)
}

struct Signer {
    key: EcdsaKeyPair,
    random: SystemRandom,
}

impl Signer {
    fn new() -> Self {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let key =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).unwrap();
        Self { key, random }
    }

    fn jwk(&self) -> Value {
        let (x, y) = coordinates(self.key.public_key().as_ref()).unwrap();
        let part = |bytes| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        json!({ "kty": "EC", "crv": "P-256", "x": part(x), "y": part(y), "kid": "k1", "use": "sig", "alg": "ES256" })
    }

    fn sign(&self, header: &Value, payload: &Value) -> String {
        let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(header), part(payload));
        let signature = self.key.sign(&self.random, signed.as_bytes()).unwrap();
        format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
    }
}

fn passports(jwks: &Value, tee: &[&str]) -> Result<Passports, PassportError> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), jwks.to_string()).unwrap();
    Passports::load(&[config::Passport {
        issuer: ISSUER.into(),
        audience: AUDIENCE.into(),
        keys: file.path().to_owned(),
        tee: tee.iter().map(|&kind| kind.to_owned()).collect(),
    }])
}

fn header() -> Value {
    json!({ "alg": "ES256", "typ": "JWT", "kid": "k1" })
}

fn tcb() -> Value {
    json!({ "fmc": null, "bootloader": 4, "tee": 0, "snp": 24, "microcode": 219 })
}

/// What another Sealpod broker says of a genuine guest.
fn payload() -> Value {
    let issued = clock::unix(now());
    let digest = "11".repeat(32);
    let firmware = json!({ "major": 1, "minor": 55, "build": 29 });
    let passed = |check: &str| json!({ "check": check, "outcome": "passed", "value": "" });
    let verdict = json!({
        "tee": "snp", "trust": "amd", "product": "Milan", "line": "milan", "cpuid": null, "report_version": 2,
        "signing_key": "vcek", "csp_id": null, "chip_id": "07".repeat(64), "measurement": "a5".repeat(48),
        "host_data": digest, "report_id": "00".repeat(32),
        "tcb": { "reported": tcb(), "committed": tcb(), "current": tcb(), "launch": tcb() },
        "firmware": firmware, "committed_firmware": firmware,
        "policy": serde_json::to_value(PolicyBits::from(GuestPolicy(0x3_0000))).unwrap(),
        "platform_info": 0,
        "platform": serde_json::to_value(PlatformBits::from(PlatformInfo(0))).unwrap(),
        "alias_check": false, "mitigations": null, "vmpl": 0, "guest_svn": 0,
        "family_id": "00".repeat(16), "image_id": "00".repeat(16), "id_key_digest": "00".repeat(48),
        "author_key_digest": null, "init_data": digest, "report_data": "22".repeat(64),
        "checks": [passed("signature"), passed("report_data"), passed("host_data")],
    });
    json!({
        "iss": ISSUER, "aud": [ISSUER, AUDIENCE], "exp": issued + 300, "iat": issued, "nbf": issued,
        "eat_profile": PROFILE, "jti": "x",
        "submods": { "cpu0": {
            "ear.status": "none",
            "ear.trustworthiness-vector": { "hardware": 2, "executables": 0 },
            "ear.veraison.annotated-evidence": {
                "snp": verdict,
                "init_data": digest,
                "init_data_claims": {
                    "sealed_spec": format!("sha256:{}", "33".repeat(32)),
                    "key_id": "kbs:///shop/sealed-spec/web.r1.00000000",
                },
                "runtime_data_claims": {
                    "nonce": "",
                    "tee-pubkey": protocols::rcar::EphemeralKey::generate().unwrap().public_jwk(),
                },
            },
        } },
    })
}

fn admit(change: impl FnOnce(&mut Value)) -> Result<Attested, Refused> {
    let signer = Signer::new();
    let mut payload = payload();
    change(&mut payload);
    passports(&json!({ "keys": [signer.jwk()] }), &["snp", "snp-emulated"])
        .unwrap()
        .admit(&signer.sign(&header(), &payload), now())
}

/// Whether it is refused, with these words.
fn refused(words: &str, change: impl FnOnce(&mut Value)) {
    let refused = admit(change).err().unwrap();
    let text = refused.refusal.to_string();
    assert!(text.contains(words), "{words}: {text}");
}

const VERDICT: &str = "/submods/cpu0/ear.veraison.annotated-evidence/snp";

fn set(pointer: &str, value: Value) -> impl FnOnce(&mut Value) {
    move |payload| *payload.pointer_mut(pointer).unwrap() = value
}

fn remove(pointer: &str, name: &str) -> impl FnOnce(&mut Value) {
    move |payload| {
        payload.pointer_mut(pointer).unwrap().as_object_mut().unwrap().remove(name).unwrap();
    }
}

#[test]
fn a_passport_stands_for_evidence() {
    let attested = admit(|_| {}).unwrap();
    let verdict = attested.appraised().verdict();
    assert_eq!(verdict.tee, TeeKind::Snp);
    assert_eq!(verdict.trust.to_string(), format!("passport of {ISSUER}: amd"));
    assert_eq!(attested.init_data().unwrap(), format!("sha256:{}", "11".repeat(32)));
    assert_eq!(attested.sealed().unwrap().key_id.to_string(), "kbs:///shop/sealed-spec/web.r1.00000000");
    assert!(
        verdict
            .checks
            .iter()
            .any(|check| check.check == "signature" && check.outcome.name() == "not_checked")
    );
}

#[test]
fn another_key_and_a_changed_byte_are_refused() {
    let (signer, other) = (Signer::new(), Signer::new());
    let trusted = passports(&json!({ "keys": [signer.jwk()] }), &["snp"]).unwrap();
    assert!(trusted.admit(&signer.sign(&header(), &payload()), now()).is_ok());
    let refusal = |token: &str| trusted.admit(token, now()).err().unwrap().refusal.to_string();
    assert!(refusal(&other.sign(&header(), &payload())).contains("signature is wrong"));
    let token = signer.sign(&header(), &payload());
    let (head, rest) = token.split_once('.').unwrap();
    let changed = format!("{head}.{}", rest.replacen('A', "B", 1));
    assert!(trusted.admit(&changed, now()).is_err());
    for text in ["", "a", "a.b", "..", &"a".repeat(MAX_BYTES + 1)] {
        assert!(trusted.admit(text, now()).is_err());
    }
}

#[test]
fn a_header_that_chooses_is_refused() {
    let signer = Signer::new();
    let trusted = passports(&json!({ "keys": [signer.jwk()] }), &["snp"]).unwrap();
    for header in [
        json!({ "alg": "none", "typ": "JWT", "kid": "k1" }),
        json!({ "alg": "HS256", "typ": "JWT", "kid": "k1" }),
        json!({ "alg": "ES256", "typ": "JWT", "kid": "k1", "jwk": signer.jwk() }),
        json!({ "alg": "ES256", "typ": "JWT", "kid": "k1", "jku": "https://x" }),
        json!({ "alg": "ES256", "typ": "JWT", "kid": "k1", "crit": ["exp"] }),
        json!({ "alg": "ES256", "typ": "JWT" }),
        json!({ "alg": "ES256", "typ": "JWT", "kid": "k2" }),
        json!({ "alg": "ES256", "typ": "other", "kid": "k1" }),
    ] {
        assert!(trusted.admit(&signer.sign(&header, &payload()), now()).is_err(), "{header}");
    }
}

#[test]
fn missing_and_wrong_claims_are_refused() {
    for name in ["iss", "aud", "exp", "iat", "eat_profile", "submods"] {
        assert!(admit(remove("", name)).is_err(), "{name}");
    }
    refused("issuer is not trusted", set("/iss", json!("https://evil.example")));
    refused("another audience", set("/aud", json!([ISSUER])));
    refused("another audience", set("/aud", json!("https://broker.example.evil")));
    refused("has expired", set("/exp", json!(clock::unix(now()))));
    refused("not valid yet", set("/iat", json!(clock::unix(now()) + SKEW + 1)));
    refused("not valid yet", set("/nbf", json!(clock::unix(now()) + SKEW + 1)));
    refused("longer than a day", set("/exp", json!(clock::unix(now()) + LONGEST + 1)));
    refused("eat_profile", set("/eat_profile", json!("tag:other")));
    for (pointer, value) in [("/exp", json!(-1)), ("/exp", json!(1e30)), ("/iat", json!("0"))] {
        assert!(admit(set(pointer, value)).is_err(), "{pointer}");
    }
}

#[test]
fn integers_out_of_range_are_refused_and_not_cut_off() {
    for number in [258, 128, -129, i64::MAX] {
        refused("claims are not", set("/submods/cpu0/ear.status", json!(number)));
        refused("claims are not", set("/submods/cpu0/ear.trustworthiness-vector/hardware", json!(number)));
    }
    refused("claims are not", set("/submods/cpu0/ear.status", json!("fine")));
    refused("claims are not", set("/submods/cpu0/ear.trustworthiness-vector/hardware", json!(2.5)));
    assert!(admit(set("/submods/cpu0/ear.status", json!(2))).is_ok());
}

#[test]
fn contraindicated_evidence_is_only_ever_emulated() {
    for value in [json!("contraindicated"), json!(96), json!(-97)] {
        refused("contraindicates", set("/submods/cpu0/ear.status", value));
    }
    refused("contraindicates", set("/submods/cpu0/ear.trustworthiness-vector/hardware", json!(97)));
    let emulated = admit(|payload| {
        payload["submods"]["cpu0"]["ear.status"] = json!("contraindicated");
        *payload.pointer_mut(VERDICT).unwrap() = {
            let mut verdict = payload.pointer(VERDICT).unwrap().clone();
            verdict["tee"] = json!("snp-emulated");
            verdict["trust"] = json!("emulated (ARK-EMULATED, 00)");
            verdict
        };
    })
    .unwrap();
    // And so it matches no policy that doesn't name that.
    assert_eq!(emulated.appraised().verdict().tee, TeeKind::SnpEmulated);
    refused("is not taken", set(&format!("{VERDICT}/trust"), json!("emulated (x)")));
    refused("is not taken", set(&format!("{VERDICT}/tee"), json!("snp-emulated")));
}

#[test]
fn kinds_that_the_operator_does_not_name_are_refused() {
    let signer = Signer::new();
    let trusted = passports(&json!({ "keys": [signer.jwk()] }), &["snp-emulated"]).unwrap();
    let refused = trusted.admit(&signer.sign(&header(), &payload()), now()).err().unwrap();
    assert_eq!(refused.refusal.code, Code::TeeKind);
}

#[test]
fn what_a_passport_does_not_vouch_for_is_refused() {
    for name in ["measurement", "tcb", "policy", "chip_id", "vmpl", "host_data", "checks", "report_data"] {
        assert!(admit(remove(VERDICT, name)).is_err(), "{name}");
    }
    refused("'signature'", set(&format!("{VERDICT}/checks/0/outcome"), json!("not_checked")));
    refused("refused the evidence", |payload| {
        let checks = payload.pointer_mut(&format!("{VERDICT}/checks")).unwrap().as_array_mut().unwrap();
        checks.push(json!({ "check": "tcb_order", "outcome": "failed", "value": "" }));
    });
    refused("contradicts itself", set(&format!("{VERDICT}/policy/debug"), json!(true)));
    refused("contradicts itself", set(&format!("{VERDICT}/alias_check"), json!(true)));
    refused("contradicts itself", set(&format!("{VERDICT}/init_data"), json!("44".repeat(32))));
    refused(
        "initdata",
        set("/submods/cpu0/ear.veraison.annotated-evidence/init_data", json!("44".repeat(32))),
    );
    refused("no SNP report", |payload| {
        let evidence = payload.pointer_mut("/submods/cpu0/ear.veraison.annotated-evidence").unwrap();
        let verdict = evidence.as_object_mut().unwrap().remove("snp").unwrap();
        evidence["pef"] = verdict;
    });
    let attested =
        admit(remove("/submods/cpu0/ear.veraison.annotated-evidence", "init_data_claims")).unwrap();
    assert!(attested.sealed().is_err());
}

#[test]
fn a_second_attester_is_refused() {
    refused("claims are not", |payload| {
        let cpu = payload["submods"]["cpu0"].clone();
        payload["submods"]["cpu1"] = cpu;
    });
}

#[test]
fn key_files_are_strict() {
    let signer = Signer::new();
    for change in [
        json!({ "kty": "RSA" }),
        json!({ "crv": "P-384" }),
        json!({ "use": "enc" }),
        json!({ "alg": "ES384" }),
        json!({ "x": "AA" }),
    ] {
        let mut jwk = signer.jwk();
        for (name, value) in change.as_object().unwrap() {
            jwk[name] = value.clone();
        }
        assert!(passports(&json!({ "keys": [jwk] }), &["snp"]).is_err(), "{change}");
    }
    assert!(passports(&json!({ "keys": [] }), &["snp"]).is_err());
    assert!(passports(&json!([]), &["snp"]).is_err());
}

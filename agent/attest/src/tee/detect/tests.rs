//! What counts as a TEE, and that there is one.

use std::fs;

use protocols::sev::SECRET_GUID;
use serde_json::json;

use super::*;

struct Guest {
    _place: tempfile::TempDir,
    places: Places,
}

fn guest() -> Guest {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    let snp =
        snp::Places { device: at("sev-guest"), tsm: at("report"), vmpl: at("vmpl"), signs: vec![at("sign")] };
    let places = Places { snp, secrets: at("coco"), pef: pef::Places { hint: at("svm") } };
    Guest { _place: place, places }
}

impl Guest {
    fn inject(&self, content: &str) {
        fs::create_dir(&self.places.secrets).unwrap();
        fs::write(self.places.secrets.join(SECRET_GUID), content).unwrap();
    }

    fn refused(&self) -> Refusal {
        find(&self.places).err().unwrap()
    }

    fn wiped(&self) -> bool {
        fs::read_dir(&self.places.secrets).unwrap().next().is_none()
    }
}

fn secret() -> String {
    let digest = format!("sha256:{}", "01".repeat(32));
    let key = json!({ "connection": { "id": "ab".repeat(16), "key": "A".repeat(43) + "=" } });
    json!({ "version": 1, "init_data": digest, "sealed_spec": digest, "key": key }).to_string()
}

#[test]
fn without_any_there_is_no_tee() {
    let refusal = guest().refused();
    assert_eq!(refusal.code, Code::NoTee);
    assert!(refusal.detail.contains("sev-guest") && refusal.detail.contains("coco"), "{refusal}");
    // Machines that build this have none; on one that has, the other branch runs.
    let places = Places::guest();
    if !places.snp.device.exists() && !places.snp.tsm.exists() && !places.secrets.exists() {
        assert_eq!(detect().err().unwrap().code, Code::NoTee);
    }
}

#[test]
fn an_injected_secret_makes_a_sev_guest() {
    let guest = guest();
    guest.inject(&secret());
    assert_eq!(find(&guest.places).unwrap().kind(), protocols::rcar::TeeKind::Sev);
    assert!(guest.wiped());
    // It was for one start of the agent.
    assert_eq!(guest.refused().code, Code::NoTee);
}

#[test]
fn a_secret_that_cannot_be_used_is_an_error_and_wiped() {
    let guest = guest();
    guest.inject("{}");
    assert_eq!(guest.refused().code, Code::LaunchSecret);
    assert!(guest.wiped());
}

#[test]
fn a_secret_beside_snp_is_refused_and_wiped() {
    // A regular file opens as the device does.
    let guest = guest();
    fs::write(&guest.places.snp.device, b"").unwrap();
    assert_eq!(find(&guest.places).unwrap().kind(), protocols::rcar::TeeKind::Snp);
    guest.inject(&secret());
    let refusal = guest.refused();
    assert_eq!(refusal.code, Code::TeeAmbiguous);
    assert!(refusal.detail.contains("sev and snp"), "{refusal}");
    assert!(guest.wiped());
}

#[test]
fn a_secret_does_not_stand_in_for_snp_that_fails() {
    for broken in ["device", "sign", "directories"] {
        let guest = guest();
        match broken {
            "device" => fs::create_dir(&guest.places.snp.device).unwrap(),
            "sign" => fs::write(&guest.places.snp.signs[0], b"").unwrap(),
            _ => fs::create_dir(&guest.places.snp.tsm).unwrap(),
        }
        guest.inject(&secret());
        assert!(matches!(guest.refused().code, Code::NoTee | Code::Evidence), "{broken}");
        assert!(guest.wiped(), "{broken}");
    }
}

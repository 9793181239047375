//! Certificates: the good chain, and each way in which one is not good.

use tee_evidence::sev::{Algorithm, Authority, Certificate, Point, Signature, Usage};

use super::platform::{ARK, ARK_ID, ASK, ASK_ID, FOREIGN, authority, ecdsa, point, rsa_sign, signing_key};
use super::*;
use crate::{Check, Outcome, Trust};

fn refused(hardware: &Hardware, collateral: &Collateral) -> Denial {
    check(hardware, &anchors(&Hardware::new()), collateral).unwrap_err()
}

fn chain_refused(hardware: &Hardware, what: &str) {
    let denial = refused(hardware, &Collateral::default());
    assert_eq!(denial.check, Check::CertificateChain, "{denial}");
    assert!(denial.detail.contains(what), "{denial}");
}

#[test]
fn a_good_chain_is_accepted_and_says_what_was_checked() {
    let hardware = Hardware::new();
    let checked = check(&hardware, &anchors(&hardware), &Collateral::default()).unwrap();
    assert!(matches!(checked.trust, Trust::Emulated { .. }));
    let made: Vec<_> = checked.checks.iter().map(|record| (record.check, record.outcome)).collect();
    let passed = CHAIN.iter().map(|check| (*check, Outcome::Passed));
    assert_eq!(made, passed.chain([("revocation", Outcome::NotChecked)]).collect::<Vec<_>>());
}

#[test]
fn production_anchors_refuse_an_emulated_platform() {
    let hardware = Hardware::new();
    let collateral = Collateral { authorities: vec![hardware.authorities()], cek: None };
    let denial = check(&hardware, &Anchors::amd(), &collateral).unwrap_err();
    assert_eq!(denial.check, Check::CertificateChain);
    assert!(denial.detail.contains("not one of AMD's"), "{denial}");
}

#[test]
fn an_exported_cek_needs_amds_copy_of_itself() {
    let mut hardware = Hardware::new();
    let signed = std::mem::take(&mut hardware.cek);
    hardware.cek = hardware.cek_unsigned();
    let with = |cek: Option<Vec<u8>>| Collateral { authorities: Vec::new(), cek };
    assert!(check(&hardware, &anchors(&hardware), &with(Some(signed.clone()))).is_ok());
    let other = Hardware::new().cek;
    for (cek, what) in [
        (None, "without AMD's signature"),
        (Some(other), "another chip"),
        (Some(hardware.cek.clone()), "no signature of AMD's"),
        (Some(hardware.pek.clone()), "another chip"),
        (Some(signed[..2083].to_vec()), "cached CEK certificate"),
    ] {
        let denial = refused(&hardware, &with(cek));
        assert_eq!(denial.check, Check::Collateral, "{denial}");
        assert!(denial.detail.contains(what), "{denial}");
    }
}

#[test]
fn a_key_that_is_no_point_on_the_curve_is_refused() {
    let good = Hardware::new();
    let off = |key: Point| {
        let mut key = key;
        key.y[47] ^= 1;
        key
    };
    let zero = Point { x: [0; 48], y: [0; 48] };
    for bad in [off(point(&good.pdh_key.public_key())), zero, Point { x: [0xff; 48], y: [0xff; 48] }] {
        let mut hardware = Hardware::new();
        hardware.pdh = hardware.certificate(Usage::Pdh, bad, &[Usage::Pek]);
        chain_refused(&hardware, "PDH is no point");
        let mut hardware = Hardware::new();
        hardware.pek = hardware.certificate(Usage::Pek, bad, &[Usage::Oca, Usage::Cek]);
        chain_refused(&hardware, "PEK is no point");
        let mut hardware = Hardware::new();
        hardware.oca = hardware.certificate(Usage::Oca, bad, &[Usage::Oca]);
        chain_refused(&hardware, "OCA is no point");
    }
}

#[test]
fn a_key_on_p256_is_refused() {
    let mut hardware = Hardware::new();
    hardware.pdh[16] = 1;
    let denial = Platform::parse(&hardware.pdh, &hardware.chain()).unwrap_err();
    assert_eq!(denial.check, Check::Evidence);
    assert!(denial.detail.contains("CVE-2019-9836"), "{denial}");
}

#[test]
fn a_chain_that_only_the_owner_vouches_for_is_refused() {
    let mut hardware = Hardware::new();
    let key = point(&hardware.pek_key.verifying_key().into());
    hardware.pek = hardware.certificate(Usage::Pek, key, &[Usage::Oca]);
    chain_refused(&hardware, "PEK has no signature by its CEK");
}

#[test]
fn each_missing_signature_is_refused() {
    let mut hardware = Hardware::new();
    let key = point(&hardware.pek_key.verifying_key().into());
    hardware.pek = hardware.certificate(Usage::Pek, key, &[Usage::Cek]);
    chain_refused(&hardware, "PEK has no signature by its OCA");
    let mut hardware = Hardware::new();
    let key = point(&hardware.oca_key.verifying_key().into());
    hardware.oca = hardware.certificate(Usage::Oca, key, &[]);
    chain_refused(&hardware, "OCA has no signature by its OCA");
    let mut hardware = Hardware::new();
    let key = point(&hardware.pdh_key.public_key());
    hardware.pdh = hardware.certificate(Usage::Pdh, key, &[]);
    chain_refused(&hardware, "PDH has no signature by its PEK");
}

#[test]
fn each_signature_of_another_key_is_refused() {
    let stranger = signing_key();
    for (usage, by) in [
        (Usage::Pek, Usage::Cek),
        (Usage::Pek, Usage::Oca),
        (Usage::Oca, Usage::Oca),
        (Usage::Pdh, Usage::Pek),
    ] {
        let mut hardware = Hardware::new();
        let place = match usage {
            Usage::Pek => &mut hardware.pek,
            Usage::Oca => &mut hardware.oca,
            _ => &mut hardware.pdh,
        };
        let good = Certificate::parse(place).unwrap();
        let forged = ecdsa(&stranger, by, Algorithm::EcdsaSha256, good.body());
        let other = [Usage::Oca, Usage::Cek].into_iter().find(|other| *other != by && usage == Usage::Pek);
        let other = other.and_then(|other| good.signature(other).cloned());
        let unsigned = tee_evidence::sev::Unsigned {
            api: good.api(),
            usage,
            algorithm: good.algorithm(),
            key: *good.key(),
        };
        *place = Certificate::assemble(&unsigned, &[Some(forged), other]).to_vec();
        chain_refused(&hardware, &format!("{usage} is not signed by its {by}"));
    }
}

/// The right signatures, each under the other's name.
#[test]
fn signatures_count_under_their_own_name_only() {
    let mut hardware = Hardware::new();
    let (first, second) = (1044, 1564);
    for at in 0..4 {
        hardware.pek.swap(first + at, second + at);
    }
    chain_refused(&hardware, "PEK is not signed by its");
}

#[test]
fn a_signature_with_filled_padding_is_refused() {
    let mut hardware = Hardware::new();
    hardware.pdh[1052 + 71] = 1;
    chain_refused(&hardware, "PDH is not signed");
}

#[test]
fn each_changed_byte_of_a_certificate_is_refused() {
    let good = Hardware::new();
    let anchors = anchors(&good);
    for which in 0..4 {
        for at in [4, 5, 20, 60, 92, 130, 1044, 1048, 1052, 1100, 1124, 1170, 1190] {
            let mut hardware = Hardware { ..clone(&good) };
            let certificate = match which {
                0 => &mut hardware.pdh,
                1 => &mut hardware.pek,
                2 => &mut hardware.oca,
                _ => &mut hardware.cek,
            };
            certificate[at] ^= 2;
            assert!(check(&hardware, &anchors, &Collateral::default()).is_err(), "{which} {at}");
        }
    }
}

fn clone(hardware: &Hardware) -> Hardware {
    Hardware {
        cek_key: hardware.cek_key.clone(),
        oca_key: hardware.oca_key.clone(),
        pek_key: hardware.pek_key.clone(),
        pdh_key: hardware.pdh_key.clone(),
        ark: hardware.ark.clone(),
        ask: hardware.ask.clone(),
        cek: hardware.cek.clone(),
        oca: hardware.oca.clone(),
        pek: hardware.pek.clone(),
        pdh: hardware.pdh.clone(),
        ..*hardware
    }
}

#[test]
fn a_cek_of_a_foreign_authority_is_refused() {
    let mut hardware = Hardware::new();
    hardware.cek = hardware.cek_signed_by(FOREIGN);
    chain_refused(&hardware, "signed by none of the");
}

/// Under a root with the right key id and a key of its own.
#[test]
fn a_foreign_root_with_a_trusted_ones_name_is_refused() {
    let trusted = Hardware::new();
    let mut hardware = Hardware::new();
    hardware.ask = authority(Usage::Ask, FOREIGN, (&[7; 16], &[8; 16]), FOREIGN);
    hardware.ark = authority(Usage::Ark, FOREIGN, (&[8; 16], &[8; 16]), FOREIGN);
    hardware.cek = hardware.cek_signed_by(FOREIGN);
    let collateral = Collateral { authorities: vec![hardware.authorities()], cek: None };
    let denial = check(&hardware, &anchors(&trusted), &collateral).unwrap_err();
    assert_eq!(denial.check, Check::CertificateChain);
    assert!(denial.detail.contains("not one of AMD's"), "{denial}");

    // AMD's key id changes nothing: the pin is of the key.
    let naples = hex::decode("1bb987c359494606b174945601c9ea5b").unwrap().try_into().unwrap();
    let hardware = Hardware::under(&naples);
    let collateral = Collateral { authorities: vec![hardware.authorities()], cek: None };
    let denial = check(&hardware, &Anchors::amd(), &collateral).unwrap_err();
    assert!(denial.detail.contains("not one of AMD's"), "{denial}");
    let pinned = Anchors::pinned(SevProduct::Naples, &Authority::parse(&hardware.ark).unwrap());
    let checked = check(&hardware, &pinned, &collateral).unwrap();
    assert_eq!((checked.trust, checked.product), (Trust::Amd, SevProduct::Naples));
}

#[test]
fn an_authority_that_the_root_did_not_sign_is_refused() {
    let hardware = Hardware::under(&[9; 16]);
    let pinned = Anchors::pinned(SevProduct::Rome, &Authority::parse(&hardware.ark).unwrap());
    let forged = authority(Usage::Ask, ASK, (&ASK_ID, &[9; 16]), FOREIGN);
    let collateral = Collateral { authorities: vec![forged, hardware.ark.clone()], cek: None };
    let denial = check(&hardware, &pinned, &collateral).unwrap_err();
    assert_eq!(denial.check, Check::CertificateChain);
    assert!(denial.detail.contains("not signed by the root"), "{denial}");
    let collateral = Collateral { authorities: vec![hardware.ask.clone()], cek: None };
    let denial = check(&hardware, &pinned, &collateral).unwrap_err();
    assert_eq!(denial.check, Check::Collateral, "{denial}");
    let junk = vec![vec![0xff; 100], hardware.authorities()];
    assert!(check(&hardware, &pinned, &Collateral { authorities: junk, cek: None }).is_ok());
}

#[test]
fn only_a_marked_root_that_signs_itself_is_taken_as_emulated() {
    let hardware = Hardware::new();
    assert_eq!(Anchors::amd().with_emulated(&hardware.authorities()).unwrap().emulated().count(), 1);
    let unmarked = authority(Usage::Ark, ARK, (&[1; 16], &[1; 16]), ARK);
    assert!(matches!(Anchors::amd().with_emulated(&unmarked), Err(AnchorError::NotMarked)));
    let forged = authority(Usage::Ark, ARK, (&ARK_ID, &ARK_ID), FOREIGN);
    assert!(matches!(Anchors::amd().with_emulated(&forged), Err(AnchorError::NoRoot)));
    let named = authority(Usage::Ark, ARK, (&ARK_ID, &[1; 16]), ARK);
    assert!(matches!(Anchors::amd().with_emulated(&named), Err(AnchorError::NoRoot)));
    assert!(matches!(Anchors::amd().with_emulated(&hardware.ask), Err(AnchorError::NoRoot)));
    let twice = [hardware.ark.as_slice(), &hardware.ark].concat();
    assert!(matches!(Anchors::amd().with_emulated(&twice), Err(AnchorError::NoRoot)));
    assert!(matches!(Anchors::amd().with_emulated(b"junk"), Err(AnchorError::Read(_))));
}

/// The hash that a slot names goes with the size of ASK's key.
#[test]
fn a_signature_under_another_algorithms_name_is_refused() {
    let mut hardware = Hardware::new();
    let good = Certificate::parse(&hardware.cek).unwrap();
    let unsigned = hardware.unsigned(Usage::Cek, *good.key());
    let signature = Signature::from_rsa(Usage::Ask, Algorithm::RsaSha384, &rsa_sign(ASK, &unsigned.body()));
    hardware.cek = Certificate::assemble(&unsigned, &[signature, None]).to_vec();
    chain_refused(&hardware, "signed by none of the");
}

#[test]
fn another_certificate_in_the_place_of_the_pdh_is_refused() {
    let hardware = Hardware::new();
    let denial = Platform::parse(&hardware.pek, &hardware.chain()).unwrap_err();
    assert_eq!(denial.check, Check::Evidence);
    let denial = Platform::parse(&hardware.pdh, &hardware.chain()[..4168]).unwrap_err();
    assert_eq!(denial.check, Check::Evidence);
    assert_eq!(denial.checks.len(), CHAIN.len(), "what was not reached is said");
}

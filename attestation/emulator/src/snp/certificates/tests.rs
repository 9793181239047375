//! The chain and what each certificate says.

use super::*;
use crate::snp::chip::SECRET;
use rsa::pss::VerifyingKey;
use rsa::signature::Verifier;
use std::sync::OnceLock;
use x509_cert::der::Decode;

/// Half of AMD's key length, so that the tests stay fast; one pair for all tests.
pub(crate) fn authorities() -> &'static Authorities {
    static ONE: OnceLock<Authorities> = OnceLock::new();
    ONE.get_or_init(|| Authorities::generate(Product::Milan, 2048, SystemTime::now()).unwrap())
}

fn vcek(chip: &Chip, tcb: Tcb) -> Certificate {
    let endorsement = Endorsement::new(KeyKind::Vcek, tcb, SystemTime::now());
    authorities().ask.endorse(chip, &endorsement).unwrap()
}

fn signed_by(certificate: &Certificate, issuer: &Authority) -> bool {
    let key = VerifyingKey::<Sha384>::new(AsRef::<RsaPrivateKey>::as_ref(&issuer.key).to_public_key());
    let signature = Signature::try_from(certificate.signature().raw_bytes()).unwrap();
    key.verify(&certificate.tbs_certificate().to_der().unwrap(), &signature).is_ok()
}

fn value(certificate: &Certificate, oid: &str) -> Option<Vec<u8>> {
    let oid = ObjectIdentifier::new(oid).unwrap();
    let extensions = certificate.tbs_certificate().extensions()?;
    extensions
        .iter()
        .find(|extension| extension.extn_id == oid)
        .map(|found| found.extn_value.as_bytes().to_vec())
}

#[test]
fn the_chain_is_signed_by_root_and_signing_key() {
    let all = authorities();
    let chip = Chip::new(Product::Milan, [1; SECRET]);
    let vcek = vcek(&chip, Tcb::default());
    assert!(signed_by(&all.ark_certificate, &all.ark));
    assert!(signed_by(&all.ask_certificate, &all.ark));
    assert!(signed_by(&vcek, &all.ask));
    assert!(!signed_by(&vcek, &all.ark));
    assert_eq!(vcek.tbs_certificate().issuer(), all.ask_certificate.tbs_certificate().subject());
    assert_eq!(
        all.ask_certificate.tbs_certificate().issuer(),
        all.ark_certificate.tbs_certificate().subject()
    );
}

#[test]
fn every_certificate_says_that_it_is_emulated() {
    let all = authorities();
    let chip = Chip::new(Product::Milan, [1; SECRET]);
    let vcek = vcek(&chip, Tcb::default());
    for certificate in [&all.ark_certificate, &all.ask_certificate, &vcek] {
        let tbs = certificate.tbs_certificate();
        assert!(tbs.subject().to_string().contains("EMULATED"), "{}", tbs.subject());
        let mark = tbs.extensions().unwrap().iter().find(|extension| extension.extn_id == EMULATED).unwrap();
        assert!(mark.critical);
    }
}

#[test]
fn a_vcek_carries_amds_extensions() {
    let chip = Chip::new(Product::Milan, [1; SECRET]);
    let tcb = Tcb { bootloader: 4, tee: 1, snp: 24, microcode: 219, fmc: 0 };
    let vcek = vcek(&chip, tcb);
    let vcek = Certificate::from_der(&vcek.to_der().unwrap()).unwrap();
    let value = |suffix: &str| value(&vcek, &format!("1.3.6.1.4.1.3704.1.{suffix}"));
    assert_eq!(value("2").unwrap(), b"\x16\x08Milan-B0");
    assert_eq!(value("3.1").unwrap(), [2, 1, 4]);
    assert_eq!(value("3.2").unwrap(), [2, 1, 1]);
    assert_eq!(value("3.3").unwrap(), [2, 1, 24]);
    assert_eq!(value("3.8").unwrap(), [2, 2, 0, 219], "values above 127 take two bytes");
    assert_eq!(value("3.9"), None);
    assert_eq!(value("4").unwrap(), chip.id());
    assert_eq!(vcek.tbs_certificate().serial_number().as_bytes(), [0]);
}

#[test]
fn a_vlek_names_a_cloud_provider_and_no_chip() {
    let all = authorities();
    let chip = Chip::new(Product::Milan, [1; SECRET]);
    let endorsement = Endorsement::new(KeyKind::Vlek, Tcb::default(), SystemTime::now());
    let vlek = all.asvk.endorse(&chip, &endorsement).unwrap();
    let value = |suffix: &str| value(&vlek, &format!("1.3.6.1.4.1.3704.1.{suffix}"));
    assert_eq!(value("2").unwrap(), b"\x16\x05Milan");
    assert_eq!(value("4"), None);
    assert_eq!(value("5").unwrap(), b"\x16\x0eemulated-cloud");
    assert!(signed_by(&vlek, &all.asvk) && !signed_by(&vlek, &all.ask));
    assert!(signed_by(&all.asvk_certificate, &all.ark));
    assert!(vlek.tbs_certificate().subject().to_string().contains("SEV-VLEK"));
}

#[test]
fn extensions_can_be_left_out_or_say_something_else() {
    let chip = Chip::new(Product::Milan, [1; SECRET]);
    let endorsement = Endorsement {
        without: vec!["3.2".into()],
        with: vec![("4".into(), vec![7; 64]), ("5".into(), vec![0x16, 1, b'x'])],
        ..Endorsement::new(KeyKind::Vcek, Tcb::default(), SystemTime::now())
    };
    let vcek = authorities().ask.endorse(&chip, &endorsement).unwrap();
    let value = |suffix: &str| value(&vcek, &format!("1.3.6.1.4.1.3704.1.{suffix}"));
    assert_eq!((value("3.2"), value("4").unwrap()), (None, vec![7; 64]));
    assert_eq!(value("5").unwrap(), [0x16, 1, b'x']);
}

#[test]
fn a_turin_vcek_has_its_own_shape() {
    let chip = Chip::new(Product::Turin, [1; SECRET]);
    let vcek = vcek(&chip, Tcb { fmc: 9, ..Tcb::default() });
    assert_eq!(value(&vcek, "1.3.6.1.4.1.3704.1.3.9").unwrap(), [2, 1, 9]);
    assert_eq!(value(&vcek, "1.3.6.1.4.1.3704.1.4").unwrap(), chip.id()[..8]);
}

#[test]
fn a_stored_signing_key_signs_the_same() {
    let all = authorities();
    let again = Authority::from_pem(&all.ask.to_pem().unwrap(), "SEV-EMULATED Milan".into()).unwrap();
    let chip = Chip::new(Product::Milan, [1; SECRET]);
    let endorsement = Endorsement::new(KeyKind::Vcek, Tcb::default(), SystemTime::now());
    let vcek = again.endorse(&chip, &endorsement).unwrap();
    assert!(signed_by(&vcek, &all.ask));
    assert!(Authority::from_pem("-----BEGIN PRIVATE KEY-----\n", String::new()).is_err());
}

//! Certificates of real platforms, and one made here with one field wrong at a time.

use std::path::{Path, PathBuf};

use super::*;
use crate::sev::{Authority, CertChain, ChainError};

const KEY: Point = Point { x: [0xa1; 48], y: [0xb2; 48] };

fn pek() -> [u8; Certificate::LEN] {
    let unsigned = Unsigned { api: (1, 51), usage: Usage::Pek, algorithm: Algorithm::EcdsaSha256, key: KEY };
    let signature = |by, byte| Some(Signature::from_ecdsa(by, Algorithm::EcdsaSha256, &[byte; 96]));
    Certificate::assemble(&unsigned, &[signature(Usage::Oca, 1), signature(Usage::Cek, 2)])
}

fn changed(at: usize, value: u32) -> Result<Certificate, CertificateError> {
    let mut bytes = pek();
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    Certificate::parse(&bytes)
}

#[test]
fn what_is_put_together_reads_back() {
    let certificate = Certificate::parse(&pek()).unwrap();
    assert_eq!((certificate.usage(), certificate.api()), (Usage::Pek, (1, 51)));
    assert_eq!((certificate.algorithm(), *certificate.key()), (Algorithm::EcdsaSha256, KEY));
    assert_eq!(certificate.signature(Usage::Cek).unwrap().ecdsa(), Some([2; 96]));
    assert_eq!(certificate.signature(Usage::Oca).unwrap().ecdsa(), Some([1; 96]));
    assert!(certificate.signature(Usage::Ask).is_none());
    assert_eq!(certificate.bytes(), &pek());
    assert_eq!(Point::from_sec1(&KEY.to_sec1()), Some(KEY));
}

#[test]
fn each_wrong_field_is_refused() {
    assert_eq!(changed(0, 2), Err(CertificateError::Version(2)));
    assert!(matches!(changed(4, 0x0001_0000), Err(CertificateError::Read(ReadError::Reserved { .. }))));
    for usage in [0, 0x13, 0x1000, 0x1005] {
        assert_eq!(changed(8, usage), Err(CertificateError::Usage(usage)));
    }
    for algorithm in [0, 1, 3, 0x101, 0x103, 4] {
        assert!(matches!(changed(12, algorithm), Err(CertificateError::KeyAlgorithm { .. })), "{algorithm}");
    }
    for curve in [0, 1, 3] {
        assert_eq!(changed(16, curve), Err(CertificateError::Curve { usage: Usage::Pek, curve }));
    }
    for padding in [20 + 48, 20 + 68, 92 + 48, 164, 1040] {
        assert!(
            matches!(changed(padding, 1), Err(CertificateError::Read(ReadError::Reserved { .. }))),
            "{padding}"
        );
    }
    for (at, value) in [(1044, 0x77), (1048, 0x77), (1048, 3), (1564, 0x77), (1044, 0x1000)] {
        assert!(matches!(changed(at, value), Err(CertificateError::Slot { .. })), "{at} {value:#x}");
    }
    let twice = CertificateError::TwoSignatures { usage: Usage::Pek, by: Usage::Oca };
    assert_eq!(changed(1564, 0x1001), Err(twice));
}

#[test]
fn cut_and_trailing_bytes_are_refused() {
    for len in (0..Certificate::LEN).step_by(97) {
        assert!(Certificate::parse(&pek()[..len]).is_err());
    }
    assert!(Certificate::parse(&[&pek()[..], &[0]].concat()).is_err());
}

#[test]
fn a_slot_of_zeros_is_no_signature() {
    let mut bytes = pek();
    bytes[1052..1564].fill(0);
    let certificate = Certificate::parse(&bytes).unwrap();
    assert!(certificate.signature(Usage::Oca).is_none());
    assert!(certificate.signature(Usage::Cek).is_some());
}

#[test]
fn a_signature_is_written_in_one_way() {
    for at in [48, 71, 72 + 48, 144, 511] {
        let mut bytes = pek();
        bytes[1052 + at] = 1;
        assert_eq!(Certificate::parse(&bytes).unwrap().signature(Usage::Oca).unwrap().ecdsa(), None, "{at}");
    }
    let rsa = Signature::from_rsa(Usage::Ask, Algorithm::RsaSha256, &[7; 256]).unwrap();
    assert_eq!((rsa.rsa(256), rsa.rsa(255), rsa.rsa(513)), (Some(vec![7; 256]), None, None));
    assert!(Signature::from_rsa(Usage::Ask, Algorithm::RsaSha256, &[7; 513]).is_none());
}

fn vectors() -> Option<PathBuf> {
    let root = std::env::var_os("SEALPOD_VECTORS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/vectors"), PathBuf::from)
        .join("sev-legacy");
    if !root.is_dir() {
        println!("skipped: no vectors");
        return None;
    }
    Some(root)
}

#[test]
fn real_platforms_certificates_read_and_write_back() {
    let Some(root) = vectors() else { return };
    for platform in ["naples", "rome"] {
        let read = |name: &str| std::fs::read(root.join(platform).join(format!("{name}.cert"))).unwrap();
        let bytes = [read("pek"), read("oca"), read("cek")].concat();
        let chain = CertChain::parse(&bytes).unwrap();
        assert_eq!(chain.to_bytes(), bytes);
        let turned = [read("cek"), read("pek"), read("oca")].concat();
        assert_eq!(CertChain::parse(&turned).unwrap(), chain);
        let twice = [read("cek"), read("pek"), read("pek")].concat();
        assert_eq!(CertChain::parse(&twice), Err(ChainError::Missing(Usage::Oca)));
        let pdh = Certificate::parse(&read("pdh")).unwrap();
        let mut all = vec![pdh.clone(), chain.pek, chain.oca, chain.cek.clone()];
        for certificate in all.drain(..) {
            let unsigned = Unsigned {
                api: certificate.api(),
                usage: certificate.usage(),
                algorithm: certificate.algorithm(),
                key: *certificate.key(),
            };
            assert_eq!(Certificate::assemble(&unsigned, &certificate.signatures), *certificate.bytes());
        }
        assert_eq!(pdh.algorithm(), Algorithm::EcdhSha256);
        let len = if platform == "naples" { 256 } else { 512 };
        assert!(chain.cek.signature(Usage::Ask).unwrap().rsa(len).is_some());
    }
}

#[test]
fn amds_certificates_read() {
    let Some(root) = vectors() else { return };
    for product in ["naples", "rome", "milan", "genoa", "turin"] {
        let read = |name: &str| std::fs::read(root.join("builtin-ark-ask").join(product).join(name)).unwrap();
        let bundle = Authority::parse_bundle(&[read("ask.cert"), read("ark.cert")].concat()).unwrap();
        let [ask, ark] = bundle.as_slice() else { panic!("{}", bundle.len()) };
        assert_eq!((ask.usage(), ark.usage()), (Usage::Ask, Usage::Ark));
        assert_eq!((ask.certifying_id(), ark.certifying_id()), (ark.key_id(), ark.key_id()));
        assert!(ask.signature().is_some() && ark.signature().is_some());
    }
    let published = std::fs::read(root.join("naples/ark.cert.bad")).unwrap();
    let ark = Authority::parse(&published).unwrap();
    let whole = std::fs::read(root.join("builtin-ark-ask/naples/ark.cert")).unwrap();
    assert_eq!((ark.body(), ark.signature()), (Authority::parse(&whole).unwrap().body(), None));
}

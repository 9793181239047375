//! Chains in which one thing is wrong.

use ring::signature::KeyPair;
use tee_evidence::snp::{CertEntry, CertKind, Product, SigningKey};

use super::synthetic::{
    ARK, ASK, Cert, DAY, FOREIGN, NOW, OID_BASIC_CONSTRAINTS, OID_KEY_USAGE, P384, SHA384_PSS, Whose, World,
    ec_spki, name, rsa_spki, tlv,
};
use super::{refused, refused_in};
use crate::snp::{AnchorError, Anchors, EMULATED_OID};
use crate::{Check, Trust};

type Break<'a> = &'a dyn Fn(&mut Cert);
type Pick = fn(&mut World) -> &mut Cert;
const EACH: [(&str, Pick); 3] =
    [("ARK", |world| &mut world.ark), ("ASK", |world| &mut world.ask), ("VCEK", |world| &mut world.vek)];

fn emulated_oid() -> String {
    EMULATED_OID.to_string()
}

#[test]
fn a_foreign_root_with_amds_names_is_refused() {
    refused(Check::CertificateChain, "foreign root", |world| {
        world.pin();
        world.ark.spki = rsa_spki(FOREIGN);
        world.ark.signed_by = FOREIGN;
        world.ask.signed_by = FOREIGN;
    });
    let world = World::milan();
    let mut real = World::milan();
    real.anchors = Some(Anchors::amd());
    assert_eq!(real.grant().unwrap_err().check, Check::CertificateChain);
    assert!(world.grant().is_ok());
}

#[test]
fn signatures_of_others_are_refused() {
    refused(Check::CertificateChain, "ASK by another key", |world| world.ask.signed_by = FOREIGN);
    refused(Check::CertificateChain, "VCEK by another key", |world| world.vek.signed_by = FOREIGN);
    refused(Check::CertificateChain, "VCEK by the root itself", |world| world.vek.signed_by = ARK);
    refused(Check::CertificateChain, "another key in the ASK", |world| world.ask.spki = rsa_spki(FOREIGN));
    refused(Check::CertificateChain, "ASK by itself", |world| world.ask.signed_by = ASK);
}

#[test]
fn other_issuers_are_refused() {
    refused(Check::CertificateChain, "ASK's issuer", |world| world.ask.issuer = name("ARK-Genoa"));
    refused(Check::CertificateChain, "VCEK's issuer", |world| world.vek.issuer = name("SEV-Genoa"));
    refused(Check::CertificateChain, "VCEK's issuer is the root", |world| {
        world.vek.issuer = name("ARK-Milan");
    });
    refused(Check::CertificateChain, "ASK's name", |world| {
        world.ask.subject = name("SEV-Genoa");
        world.vek.issuer = name("SEV-Genoa");
    });
    refused(Check::CertificateChain, "VCEK's name", |world| world.vek.subject = name("SEV-VLEK"));
    refused(Check::CertificateChain, "VCEK without a name", |world| world.vek.subject = tlv(0x30, &[]));
}

#[test]
fn another_products_root_is_refused() {
    // With version 2 there is no CPUID to tell.
    let world = World::new(Whose::Amd, Product::Milan, SigningKey::Vcek, 2);
    refused_in(world, Check::CertificateChain, "root of Genoa", |world| world.product = Product::Genoa);
}

#[test]
fn certificates_out_of_their_dates_are_refused() {
    for (which, pick) in EACH {
        refused(Check::CertificateChain, which, |world| pick(world).to = NOW - 1);
        refused(Check::CertificateChain, which, |world| pick(world).from = NOW + 1);
        for edge in [|cert: &mut Cert| cert.to = NOW, |cert: &mut Cert| cert.from = NOW] {
            let mut world = World::milan();
            edge(pick(&mut world));
            world.grant().unwrap_or_else(|denial| panic!("{which}: {denial}"));
        }
    }
    let vlek = World::new(Whose::Amd, Product::Milan, SigningKey::Vlek, 3);
    refused_in(vlek, Check::CertificateChain, "expired VLEK", |world| world.vek.to = NOW - DAY);
    refused(Check::CertificateChain, "clock at 1970", |world| world.now = 0);
}

#[test]
fn missing_and_repeated_certificates_are_refused() {
    let mut world = World::milan();
    let chain = world.chain();
    world.anchors = Some(Anchors::pinned(Product::Milan, &chain[0].data));
    let report = world.signed();
    world.appraise(report.as_bytes(), &chain).unwrap();
    for n in 0..3 {
        let mut missing = chain.clone();
        missing.remove(n);
        assert_eq!(world.appraise(report.as_bytes(), &missing).unwrap_err().check, Check::Collateral);
        let mut twice = chain.clone();
        twice.push(chain[n].clone());
        assert_eq!(world.appraise(report.as_bytes(), &twice).unwrap_err().check, Check::Evidence);
    }
    assert_eq!(world.appraise(report.as_bytes(), &[]).unwrap_err().check, Check::Collateral);
    let more = [&chain[..], &[CertEntry { kind: CertKind::Crl, data: vec![1] }]].concat();
    world.appraise(report.as_bytes(), &more).unwrap();
    let mut swapped = chain.clone();
    (swapped[0].kind, swapped[1].kind) = (swapped[1].kind, swapped[0].kind);
    assert_eq!(world.appraise(report.as_bytes(), &swapped).unwrap_err().check, Check::CertificateChain);
}

#[test]
fn only_authorities_sign_certificates() {
    let not_ca = vec![0x30, 0];
    for (which, pick) in &EACH[..2] {
        let broken: [(&str, Break<'_>); 4] = [
            ("no basic constraints", &|cert| cert.remove(OID_BASIC_CONSTRAINTS)),
            ("no authority", &|cert| cert.set(OID_BASIC_CONSTRAINTS, true, not_ca.clone())),
            ("no key usage", &|cert| cert.remove(OID_KEY_USAGE)),
            ("may not sign", &|cert| cert.set(OID_KEY_USAGE, true, vec![3, 2, 1, 2])),
        ];
        for (what, break_it) in broken {
            refused(Check::CertificateChain, &format!("{which}: {what}"), |world| break_it(pick(world)));
        }
    }
    refused(Check::CertificateChain, "VCEK is an authority", |world| {
        world.vek.set(OID_BASIC_CONSTRAINTS, true, vec![0x30, 3, 1, 1, 0xff]);
    });
    let mut world = World::milan();
    world.vek.set(OID_BASIC_CONSTRAINTS, true, not_ca);
    world.grant().unwrap();
}

#[test]
fn other_algorithms_are_refused() {
    let sha384 = hex::decode(SHA384_PSS).unwrap();
    let salt_32 = hex::decode(SHA384_PSS.replace("a203020130", "a203020120")).unwrap();
    let sha256 = hex::decode(SHA384_PSS.replace("0304020205", "0304020105")).unwrap();
    let mgf_sha256 = {
        let (first, last) = SHA384_PSS.rsplit_once("0304020205").unwrap();
        hex::decode(format!("{first}0304020105{last}")).unwrap()
    };
    let pkcs1 = hex::decode("300d06092a864886f70d01010c0500").unwrap();
    let no_parameters = hex::decode("300b06092a864886f70d01010a").unwrap();
    for (what, algorithm) in [
        ("salt of 32", salt_32),
        ("SHA-256", sha256),
        ("MGF1 with SHA-256", mgf_sha256),
        ("PKCS #1 1.5", pkcs1),
        ("no parameters", no_parameters),
    ] {
        for (which, pick) in EACH {
            refused(Check::Evidence, &format!("{which}: {what}"), |world| {
                pick(world).inner_algorithm.clone_from(&algorithm);
                pick(world).outer_algorithm.clone_from(&algorithm);
            });
            refused(Check::Evidence, &format!("{which}: {what}, outside only"), |world| {
                pick(world).outer_algorithm.clone_from(&algorithm);
            });
        }
    }
    // As AMD's roots have it: the default trailer field is written out.
    let mut world = World::milan();
    let mut trailer = [&sha384[..], &[0xa3, 3, 2, 1, 1]].concat();
    trailer[1] += 5;
    trailer[14] += 5;
    world.ask.inner_algorithm.clone_from(&trailer);
    world.ask.outer_algorithm.clone_from(&trailer);
    world.grant().unwrap();
}

#[test]
fn odd_certificates_are_refused() {
    for (which, pick) in EACH {
        refused(Check::Evidence, &format!("{which}: version 1"), |world| pick(world).version = 0);
        refused(Check::Evidence, &format!("{which}: unknown critical extension"), |world| {
            pick(world).set("1.3.6.1.4.1.99999.1", true, vec![5, 0]);
        });
        refused(Check::Evidence, &format!("{which}: extension twice"), |world| {
            let cert = pick(world);
            let first = cert.extensions[0].clone();
            cert.extensions.push(first);
        });
    }
    let mut world = World::milan();
    world.vek.set("1.3.6.1.4.1.99999.1", false, vec![5, 0]);
    world.grant().unwrap();
    world.pin();
    let report = world.signed();
    for n in 0..3 {
        for data in [Vec::new(), vec![0x30], vec![0; 16385], b"-----BEGIN CERTIFICATE-----\nMII".to_vec()] {
            let mut chain = world.chain();
            chain[n].data = data;
            assert_eq!(world.appraise(report.as_bytes(), &chain).unwrap_err().check, Check::Evidence);
        }
        let mut chain = world.chain();
        chain[n].data.push(0);
        assert_eq!(world.appraise(report.as_bytes(), &chain).unwrap_err().check, Check::Evidence);
    }
}

#[test]
fn keys_that_are_not_p384_are_refused() {
    let world = World::milan();
    let point = world.signer.public_key().as_ref().to_vec();
    for (check, what, spki) in [
        (Check::CertificateChain, "RSA", rsa_spki(FOREIGN)),
        (Check::CertificateChain, "P-256", ec_spki("1.2.840.10045.3.1.7", &point[..65])),
        (Check::CertificateChain, "P-384's point under another curve", ec_spki("1.3.132.0.35", &point)),
    ] {
        refused(check, what, |world| world.vek.spki = spki);
    }
    // The right curve's name, but no point on it: no signature can be verified.
    let mut off = point.clone();
    off[96] ^= 1;
    for point in [off, vec![0], vec![4; 97], point[..49].to_vec(), Vec::new()] {
        let mut world = World::milan();
        world.vek.spki = ec_spki(P384, &point);
        assert_eq!(world.grant().unwrap_err().check, Check::Signature);
    }
    refused(Check::CertificateChain, "ASK with an EC key", |world| {
        world.ask.spki = ec_spki(P384, &[4; 97]);
    });
}

#[test]
fn nothing_emulated_passes_under_amds_roots() {
    for (which, pick) in EACH {
        for critical in [true, false] {
            refused(Check::CertificateChain, &format!("{which} with the OID"), |world| {
                pick(world).set(&emulated_oid(), critical, vec![5, 0]);
            });
        }
    }
    refused(Check::CertificateChain, "name", |world| world.vek.subject = name("SEV-VCEK EMULATED"));
    let world = World::emulated();
    let mut production = World::emulated();
    production.anchors = Some(Anchors::amd());
    assert_eq!(production.grant().unwrap_err().check, Check::CertificateChain);
    assert!(matches!(world.grant().unwrap().verdict().trust, Trust::Emulated { .. }));
}

#[test]
fn what_is_under_an_emulated_root_says_so() {
    for (which, pick) in &EACH[1..] {
        refused_in(World::emulated(), Check::CertificateChain, which, |world| {
            pick(world).remove(&emulated_oid());
        });
        refused_in(World::emulated(), Check::CertificateChain, which, |world| {
            pick(world).set(&emulated_oid(), false, vec![5, 0]);
        });
    }
    refused_in(World::emulated(), Check::CertificateChain, "VCEK's name", |world| {
        world.vek.subject = name("SEV-VCEK");
    });
    refused_in(World::emulated(), Check::CertificateChain, "ASK's name", |world| {
        world.ask.subject = name("SEV-Milan");
        world.vek.issuer = name("SEV-Milan");
    });
    refused_in(World::emulated(), Check::CertificateChain, "a VLEK's name", |world| {
        world.vek.subject = name("SEV-VLEK EMULATED");
    });
}

#[test]
fn another_emulators_root_is_refused() {
    refused_in(World::emulated(), Check::CertificateChain, "another root", |world| {
        world.pin();
        world.ark.to += 1;
    });
}

#[test]
fn emulated_roots_must_be_marked_and_self_signed() {
    let good = World::emulated().ark;
    let anchors = Anchors::amd().with_emulated(&good.issue()).unwrap();
    assert_eq!(anchors.emulated().count(), 1);
    assert_eq!(Anchors::amd().emulated().count(), 0);
    let broken: [(&str, bool, Break<'_>); 6] = [
        ("no OID", true, &|cert| cert.remove(&emulated_oid())),
        ("OID not critical", true, &|cert| cert.set(&emulated_oid(), false, vec![5, 0])),
        ("plain name", true, &|cert| {
            cert.subject = name("ARK-Milan");
            cert.issuer = name("ARK-Milan");
        }),
        ("signed by another key", false, &|cert| cert.signed_by = FOREIGN),
        ("issued by another name", false, &|cert| cert.issuer = name("ARK-EMULATED")),
        ("no authority", false, &|cert| cert.remove(OID_BASIC_CONSTRAINTS)),
    ];
    for (what, unmarked, break_it) in broken {
        let mut cert = good.clone();
        break_it(&mut cert);
        let error = Anchors::amd().with_emulated(&cert.issue()).unwrap_err();
        assert_eq!(matches!(error, AnchorError::NotMarked(_)), unmarked, "{what}: {error}");
    }
    assert!(Anchors::amd().with_emulated(&World::milan().ark.issue()).is_err());
    assert!(Anchors::amd().with_emulated(b"").is_err());
}

/// Remembered signatures spare work, not checks.
#[test]
fn a_chain_that_was_accepted_is_checked_again() {
    let mut world = World::milan();
    let (report, chain) = (world.signed(), world.chain());
    world.anchors = Some(Anchors::pinned(Product::Milan, &chain[0].data));
    let check = |world: &World, chain: &[CertEntry]| world.appraise(report.as_bytes(), chain).err();
    assert_eq!(check(&world, &chain), None);
    assert_eq!(check(&world, &chain), None);
    for n in 0..3 {
        let mut changed = chain.clone();
        let last = changed[n].data.len() - 1;
        changed[n].data[last] ^= 1;
        assert_eq!(check(&world, &changed).unwrap().check, Check::CertificateChain);
    }
    world.now = NOW + 2 * DAY;
    assert_eq!(check(&world, &chain).unwrap().check, Check::CertificateChain);
    world.now = NOW;
    let other = World::milan();
    assert_eq!(check(&world, &other.chain()).unwrap().check, Check::CertificateChain);
    world.anchors = Some(Anchors::amd());
    assert_eq!(check(&world, &chain).unwrap().check, Check::CertificateChain);
}

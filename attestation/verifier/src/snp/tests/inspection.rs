//! Evidence that people look at offline: of somebody else's session, with files in any order and form.

use tee_evidence::snp::{CertKind, CertificateTable, Product, SigningKey};

use super::synthetic::{Whose, World, at};
use crate::snp::Evidence;
use crate::snp::pile::{self, PileError};
use crate::{Check, Outcome};

#[test]
fn what_is_not_known_is_not_checked_and_said() {
    let mut world = World::emulated();
    // One root for all issues of the chain.
    let chain = world.chain();
    world.anchors = Some(crate::snp::Anchors::amd().with_emulated(&chain[0].data).unwrap());
    let inspect = |report_data, host_data| {
        Evidence::parse(world.signed().as_bytes(), &chain)
            .unwrap()
            .check_signature(world.anchors.as_ref().unwrap(), world.revocation, at(world.now))
            .unwrap()
            .inspect(report_data, host_data)
    };
    let nothing = inspect(None, None).unwrap();
    let outcome = |name| nothing.verdict().checks.iter().find(|record| record.check == name).unwrap().outcome;
    assert_eq!(outcome("report_data"), Outcome::NotChecked);
    assert_eq!(outcome("host_data"), Outcome::NotChecked);
    assert_eq!(outcome("signature"), Outcome::Passed);
    nothing.compare(&world.reference).unwrap();
    let mut stricter = world.reference.clone();
    stricter.launch_digests.clear();
    assert_eq!(nothing.compare(&stricter).unwrap_err().check, Check::LaunchDigest);

    inspect(Some(&[3; 64]), Some(&[5; 32])).unwrap();
    assert_eq!(inspect(Some(&[4; 64]), None).unwrap_err().check, Check::Binding);
    assert_eq!(inspect(None, Some(&[4; 32])).unwrap_err().check, Check::HostData);
}

#[test]
fn a_chain_is_found_in_a_pile() {
    let mut pile = Vec::new();
    let mut worlds = Vec::new();
    for product in [Product::Genoa, Product::Milan, Product::Turin] {
        for key in [SigningKey::Vcek, SigningKey::Vlek] {
            let world = World::new(Whose::Amd, product, key, 3);
            let chain = world.chain();
            // An own root each, so that the pile holds a good deal of what doesn't belong together.
            pile.extend(chain.clone());
            worlds.push((world, chain));
        }
    }
    for (world, chain) in &worlds {
        let report = world.signed();
        let picked = pile::pick(&report, &pile);
        assert_eq!(picked.iter().filter(|entry| entry.kind != CertKind::Crl).count(), 3);
        let vek = |entry: &&tee_evidence::snp::CertEntry| entry.kind == world.vek_kind;
        assert_eq!(picked.iter().find(vek), chain.iter().find(vek));
        let anchors = {
            let ark = picked.iter().find(|entry| entry.kind == CertKind::Ark).unwrap();
            crate::snp::Anchors::pinned(world.product, &ark.data)
        };
        Evidence::parse(report.as_bytes(), &picked)
            .unwrap()
            .check_signature(&anchors, world.revocation, at(world.now))
            .unwrap();
    }
    assert_eq!(pile::pick(&worlds[0].0.signed(), &[]), []);
}

#[test]
fn files_are_told_apart_by_what_they_hold() {
    let world = World::milan();
    let chain = world.chain();
    for entry in &chain {
        assert_eq!(pile::read(&entry.data).unwrap(), std::slice::from_ref(entry));
    }
    let table = CertificateTable::encode(&chain).unwrap();
    assert_eq!(pile::read(&table).unwrap(), chain);
    // A table that calls things by another's name changes nothing.
    let mut misnamed = chain.clone();
    (misnamed[0].kind, misnamed[2].kind) = (misnamed[2].kind, misnamed[0].kind);
    assert_eq!(pile::read(&CertificateTable::encode(&misnamed).unwrap()).unwrap(), chain);

    let pem: String = chain
        .iter()
        .map(|entry| {
            let label = if entry.kind == CertKind::Crl { "X509 CRL" } else { "CERTIFICATE" };
            let body =
                x509_cert::der::pem::encode_string(label, x509_cert::der::pem::LineEnding::LF, &entry.data);
            format!("words before\n{}", body.unwrap())
        })
        .collect();
    let kinds = |entries: Vec<tee_evidence::snp::CertEntry>| -> Vec<_> {
        entries.into_iter().map(|entry| entry.kind).collect()
    };
    let wanted: Vec<_> = chain.iter().map(|entry| entry.kind).collect();
    let entries = pile::read(pem.as_bytes()).unwrap();
    Evidence::parse(world.signed().as_bytes(), &entries).unwrap();
    assert_eq!(kinds(entries), wanted);
    assert_eq!(kinds(pile::read(pem.trim_end().as_bytes()).unwrap()), wanted);
}

#[test]
fn other_files_are_refused() {
    let long = vec![0x30; pile::MAX_BYTES + 1];
    assert_eq!(pile::read(&long), Err(PileError::Size));
    let many = "-----BEGIN X-----\n-----END X-----\n".repeat(65);
    assert_eq!(pile::read(many.as_bytes()), Err(PileError::Size));
    for bytes in [
        &b"words"[..],
        &[0x30, 0],
        b"-----BEGIN CERTIFICATE-----\nMII",
        b"-----BEGIN X-----\n-----END X-----",
    ] {
        assert!(matches!(pile::read(bytes), Err(PileError::Unknown(_))), "{bytes:?}");
    }
    assert_eq!(pile::read(&[]).unwrap(), []);
}

//! Revocation lists that are missing, not the root's, not in force, or that name a certificate of the chain.

use tee_evidence::snp::{CertEntry, CertKind, Product, SigningKey};

use super::synthetic::{
    ARK_SERIAL, ASK, ASK_SERIAL, DAY, FOREIGN, List, NOW, OID_KEY_USAGE, SHA384_PSS, Whose, World, extension,
    name,
};
use super::{refused, refused_in};
use crate::snp::Revocation;
use crate::{Check, Outcome};

type Break<'a> = &'a dyn Fn(&mut List);

#[test]
fn a_list_must_be_there_and_in_force_and_the_roots() {
    refused(Check::Collateral, "no list", |world| world.lists.clear());
    let other_salt = hex::decode(SHA384_PSS.replace("a203020130", "a203020120")).unwrap();
    let broken: [(&str, Break<'_>); 9] = [
        ("stale", &|list| list.to = Some(NOW - 1)),
        ("no end", &|list| list.to = None),
        ("not yet in force", &|list| list.from = NOW + 1),
        ("signed by another key", &|list| list.signed_by = FOREIGN),
        ("signed by the ASK", &|list| list.signed_by = ASK),
        ("of another issuer", &|list| list.issuer = name("ARK-Genoa")),
        ("of the ASK's name", &|list| list.issuer = name("SEV-Milan")),
        ("another algorithm", &|list| list.algorithm.clone_from(&other_salt)),
        ("about some certificates only", &|list| {
            list.extensions = extension("2.5.29.28", true, &[0x30, 3, 0x82, 1, 0xff]);
        }),
    ];
    for (what, break_it) in broken {
        for key in [SigningKey::Vcek, SigningKey::Vlek] {
            let world = World::new(Whose::Amd, Product::Milan, key, 3);
            refused_in(world, Check::Collateral, what, |world| break_it(&mut world.lists[0]));
        }
        refused_in(World::emulated(), Check::Collateral, what, |world| break_it(&mut world.lists[0]));
    }
    for edge in [|list: &mut List| list.to = Some(NOW), |list: &mut List| list.from = NOW] {
        let mut world = World::milan();
        edge(&mut world.lists[0]);
        world.grant().unwrap();
    }
    refused(Check::Collateral, "root that may not sign lists", |world| {
        world.ark.set(OID_KEY_USAGE, true, vec![3, 2, 2, 4]);
    });
}

#[test]
fn revoked_keys_are_refused() {
    for key in [SigningKey::Vcek, SigningKey::Vlek] {
        for serial in [ASK_SERIAL, ARK_SERIAL] {
            let world = World::new(Whose::Amd, Product::Turin, key, 5);
            refused_in(world, Check::CertificateChain, "revoked", |world| {
                world.lists[0].revoked = vec![vec![2, 1, 9], serial.into()];
            });
        }
    }
    let revoked = |world: &mut World| world.lists[0].revoked = vec![ASK_SERIAL.into()];
    refused(Check::CertificateChain, "revoked, with a reason", |world| {
        revoked(world);
        world.lists[0].entry_extensions = extension("2.5.29.21", false, &[10, 1, 1]);
    });
    refused(Check::CertificateChain, "by a list that is too old", |world| {
        let fresh = world.lists[0].clone();
        revoked(world);
        world.lists[0].to = Some(NOW - 1);
        world.lists.push(fresh);
    });
    refused(Check::CertificateChain, "by the older of two lists", |world| {
        world.lists.push(world.lists[0].clone());
        revoked(world);
        world.lists[0].from -= DAY;
    });
    let mut others = World::milan();
    others.lists[0].revoked = vec![vec![2, 1, 0], vec![2, 3, 1, 0, 2], vec![2, 2, 1, 0]];
    others.grant().unwrap();
}

/// Whoever can put a list into the table may add useless ones, but not hide the good one.
#[test]
fn lists_that_cannot_be_used_change_nothing() {
    let world = World::milan();
    let mut foreign = world.lists[0].clone();
    (foreign.signed_by, foreign.revoked) = (FOREIGN, vec![ASK_SERIAL.into()]);
    let mut stale = world.lists[0].clone();
    stale.to = Some(NOW - 1);
    for useless in [foreign.issue(), stale.issue(), vec![], vec![0x30], vec![0; 65537]] {
        for first in [true, false] {
            let mut world = World::milan();
            world.pin();
            let mut chain = world.chain();
            let data = useless.clone();
            chain.insert(if first { 3 } else { 4 }, CertEntry { kind: CertKind::Crl, data });
            let anchor = crate::snp::Anchors::pinned(Product::Milan, &chain[0].data);
            world.anchors = Some(anchor);
            world.appraise(world.signed().as_bytes(), &chain).unwrap();
            chain.remove(if first { 4 } else { 3 });
            let denial = world.appraise(world.signed().as_bytes(), &chain).unwrap_err();
            assert_eq!(denial.check, Check::Collateral, "{denial}");
        }
    }
}

#[test]
fn going_without_a_list_is_said() {
    let mut world = World::milan();
    world.lists.clear();
    world.revocation = Revocation::Waived;
    let grant = world.grant().unwrap();
    let crl = grant.verdict().checks.iter().find(|record| record.check == "crl").unwrap();
    assert_eq!(crl.outcome, Outcome::NotChecked);
    let crl = World::milan().grant().unwrap();
    let crl = crl.verdict().checks.iter().find(|record| record.check == "crl").unwrap();
    assert_eq!(crl.outcome, Outcome::Passed);
}

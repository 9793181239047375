//! Real vectors, then synthetic chains in which one thing at a time is wrong.

mod chain;
mod endorsement;
mod fuzz;
mod inspection;
mod issue;
mod policy;
mod report;
mod revocation;
mod synthetic;
mod vectors;

use synthetic::{Whose, World};
use tee_evidence::snp::{Product, SigningKey};

use crate::{Check, Outcome};

/// Breaks one thing in an unbroken world and expects one check to notice.
#[track_caller]
fn refused_in(mut world: World, check: Check, what: &str, break_it: impl FnOnce(&mut World)) {
    break_it(&mut world);
    match world.grant() {
        Ok(_) => panic!("{what}: granted"),
        Err(denial) => assert_eq!(denial.check, check, "{what}: {denial}"),
    }
}

#[track_caller]
fn refused(check: Check, what: &str, break_it: impl FnOnce(&mut World)) {
    refused_in(World::milan(), check, what, break_it);
}

#[test]
fn unbroken_evidence_is_granted() {
    for whose in [Whose::Amd, Whose::Emulated] {
        for product in Product::ALL {
            for key in [SigningKey::Vcek, SigningKey::Vlek] {
                for version in 2..=5 {
                    let world = World::new(whose, product, key, version);
                    let grant = world.grant().unwrap_or_else(|denial| {
                        panic!("{whose:?} {product:?} {key:?} version {version}: {denial}")
                    });
                    let verdict = grant.verdict().snp().unwrap();
                    assert_eq!((verdict.product, verdict.signing_key), (product, key));
                    assert_eq!(grant.launch_digest_name(), "test");
                }
            }
        }
    }
}

#[test]
fn a_verdict_says_whose_root_and_what_was_not_checked() {
    let amd = World::milan().grant().unwrap();
    assert_eq!(amd.verdict().trust.to_string(), "amd");
    let world = World::emulated();
    let emulated = world.grant().unwrap();
    let json = serde_json::to_value(emulated.verdict()).unwrap();
    assert_eq!(json["tee"], "snp-emulated");
    assert!(json["trust"].as_str().unwrap().starts_with("emulated (ARK-Milan EMULATED, "));
    let checks: Vec<_> =
        emulated.verdict().checks.iter().map(|record| (record.check, record.outcome)).collect();
    let names: Vec<_> = checks.iter().map(|(name, _)| *name).collect();
    assert_eq!(
        names,
        [
            "report_layout",
            "key_info",
            "certificates",
            "product",
            "certificate_chain",
            "crl",
            "signature",
            "endorsement",
            "report_data",
            "host_data",
            "tcb_order",
            "guest_policy_form",
            "asked_by_guest",
            "tee_kind",
            "policy_section",
            "product_allowed",
            "chip",
            "minimum_tcb",
            "guest_policy",
            "vmpl",
            "launch_digest",
        ]
    );
    assert!(checks.iter().all(|(_, outcome)| *outcome == Outcome::Passed));
}

/// A refusal carries the whole table: what passed, what failed, what nobody came to.
#[test]
fn a_refusal_says_what_was_checked_before_it() {
    let mut world = World::milan();
    world.report.vmpl = 1;
    let denial = world.grant().unwrap_err();
    let outcome = |name| denial.checks.iter().find(|record| record.check == name).unwrap().outcome;
    assert_eq!(outcome("signature"), Outcome::Passed);
    assert_eq!(outcome("guest_policy"), Outcome::Passed);
    assert_eq!(outcome("vmpl"), Outcome::Failed);
    assert_eq!(outcome("launch_digest"), Outcome::NotReached);
    let denial = world.appraise(&[0; 3], &world.chain()).unwrap_err();
    assert_eq!(denial.checks[0].outcome, Outcome::Failed);
    assert!(denial.checks[1..].iter().all(|record| record.outcome == Outcome::NotReached));
    assert!(denial.checks.len() > 10);
}

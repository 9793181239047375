//! A measured launch against reference values: what is not said is not allowed.

use super::*;
use crate::Check;

type Change = fn(&mut SevReference);

fn refused(bits: u32, reference: &ReferenceValues) -> Denial {
    measured(bits).0.appraised().grant(reference).unwrap_err()
}

fn with(change: impl FnOnce(&mut SevReference)) -> ReferenceValues {
    let mut values = reference(TeeKind::SevEmulated);
    change(values.sev.as_mut().unwrap());
    values
}

#[test]
fn what_matches_is_granted() {
    let (launch, ..) = measured(0);
    let grant = launch.appraised().grant(&reference(TeeKind::SevEmulated)).unwrap();
    assert_eq!(grant.launch_digest_name(), "guest");
    let (launch, ..) = measured(Policy::ES);
    assert!(launch.appraised().grant(&reference(TeeKind::SevEsEmulated)).is_ok());
}

#[test]
fn a_kind_that_is_not_named_is_refused_and_the_reason_says_why() {
    for (bits, named, what) in [
        (0, TeeKind::Snp, "registers"),
        (0, TeeKind::Sev, "CVE-2021-26311"),
        (0, TeeKind::SevEsEmulated, "registers"),
        (Policy::ES, TeeKind::SevEmulated, "CVE-2020-12967"),
        (Policy::ES, TeeKind::SevEs, "weaker than snp"),
    ] {
        let denial = refused(bits, &reference(named));
        assert_eq!(denial.check, Check::TeeKind);
        assert!(denial.detail.contains(what), "{denial}");
    }
}

#[test]
fn a_policy_without_the_section_is_refused() {
    let values = ReferenceValues { sev: None, ..reference(TeeKind::SevEmulated) };
    let denial = refused(0, &values);
    assert_eq!(denial.check, Check::TeeKind, "{denial}");
}

#[test]
fn firmware_below_the_minimum_is_refused() {
    let cases: [(Change, bool); 6] = [
        (|sev| sev.minimum_build = 7, false),
        (|sev| sev.minimum_api.minor = 52, false),
        (|sev| sev.minimum_api = FirmwareApi { major: 2, minor: 0 }, false),
        (|sev| sev.minimum_build = 5, true),
        (|sev| (sev.minimum_api.minor, sev.minimum_build) = (50, 255), true),
        (|sev| sev.minimum_api = FirmwareApi { major: 0, minor: 255 }, true),
    ];
    for (change, granted) in cases {
        let outcome = measured(0).0.appraised().grant(&with(change));
        assert_eq!(outcome.is_ok(), granted);
        assert!(outcome.err().is_none_or(|denial| denial.check == Check::Tcb));
    }
}

#[test]
fn each_missing_policy_bit_is_refused() {
    for (bit, name) in Policy::NAMES {
        let hardware = Hardware::new();
        let checked = check(&hardware, &anchors(&hardware), &Collateral::default()).unwrap();
        let policy = Policy((STRICT | Policy::ES) & !bit);
        let (session, files) = checked.open_session(policy, INIT_DATA, SPEC, &mut random).unwrap();
        let guest = hardware.launch_start(files.godh.as_slice(), &files.session, policy.0).unwrap();
        let launch = launch(&guest, &guest.measure(&DIGEST));
        let measured = session.measure(&launch, [DIGEST.as_slice()]).unwrap();
        let kinds = vec![TeeKind::SevEmulated, TeeKind::SevEsEmulated];
        let values = with(|sev| sev.required_bits = STRICT | Policy::ES);
        let denial = measured.appraised().grant(&ReferenceValues { tee: kinds, ..values }).unwrap_err();
        assert_eq!(denial.check, Check::GuestPolicy);
        assert!(denial.detail.contains(&format!("lacks {name};")), "{denial}");
    }
}

#[test]
fn denied_products_and_chips_are_refused() {
    let denial = refused(0, &with(|sev| sev.denied_products = vec![SevProduct::Emulated]));
    assert_eq!(denial.check, Check::TeeKind);
    let (launch, ..) = measured(0);
    let Some(chip) = launch.launched.claims.chip.into() else { return };
    let denial = launch.appraised().grant(&with(|sev| sev.denied_chips = vec![chip])).unwrap_err();
    assert_eq!(denial.check, Check::CertificateChain);
}

#[test]
fn another_policys_digest_is_refused() {
    let mut values = reference(TeeKind::SevEmulated);
    values.launch_digests[0].digest = vec![0xd2; 32];
    assert_eq!(refused(0, &values).check, Check::LaunchDigest);
    values.launch_digests.clear();
    assert_eq!(refused(0, &values).check, Check::LaunchDigest);
}

//! Measurements: what fits, and each thing that makes one fit no more.

use super::*;
use crate::Check;

fn refused(session: Session, launch: &Launch, candidates: &[&[u8]]) -> Denial {
    session.measure(launch, candidates.iter().copied()).unwrap_err()
}

#[test]
fn a_launch_under_the_sessions_policy_is_measured() {
    for (bits, tee) in [(0, TeeKind::SevEmulated), (Policy::ES, TeeKind::SevEsEmulated)] {
        let Started { session, guest } = start(bits);
        assert_eq!(session.tee(), tee);
        let launch = launch(&guest, &guest.measure(&DIGEST));
        let others: [&[u8]; 4] = [&[1; 32], &[2; 48], &[], &DIGEST];
        let measured = session.measure(&launch, others).unwrap();
        let verdict = measured.appraised().verdict();
        assert_eq!((verdict.tee, verdict.init_data, verdict.report_data), (tee, INIT_DATA, None));
        assert_eq!(verdict.launch_digest(), Some(DIGEST.as_slice()));
        let json = serde_json::to_value(verdict).unwrap();
        assert_eq!(json["api"], "1.51");
        assert_eq!(json["policy"]["es"], bits != 0);
        assert_eq!(json["measurement"], hex::encode(DIGEST));
        assert_eq!(json["weaknesses"].as_str().unwrap().contains("registers"), bits == 0);
    }
}

#[test]
fn another_policy_than_the_sessions_is_refused() {
    // The measurement is right for what the host says: only the session knows better.
    let Started { session, mut guest } = start(Policy::ES);
    guest.policy &= !Policy::ES;
    let launch = launch(&guest, &guest.measure(&DIGEST));
    let denial = refused(session, &launch, &[&DIGEST]);
    assert_eq!(denial.check, Check::GuestPolicy, "{denial}");
}

#[test]
fn a_platform_does_not_start_a_session_under_another_policy() {
    let hardware = Hardware::new();
    let checked = check(&hardware, &anchors(&hardware), &Collateral::default()).unwrap();
    let policy = Policy::new(STRICT | Policy::ES, FirmwareApi::default());
    let (_, files) = checked.open_session(policy, INIT_DATA, SPEC, &mut random).unwrap();
    let start = |policy| hardware.launch_start(files.godh.as_slice(), &files.session, policy).err();
    assert_eq!(start(policy.0), None);
    assert_eq!(start(policy.0 & !Policy::ES), Some("policy mac"));
    let mut blob = files.session;
    blob[20] ^= 1;
    assert_eq!(hardware.launch_start(files.godh.as_slice(), &blob, policy.0).err(), Some("wrap mac"));
    let other = Hardware::new();
    assert_eq!(other.launch_start(files.godh.as_slice(), &files.session, policy.0).err(), Some("wrap mac"));
}

#[test]
fn what_the_host_says_is_what_was_measured() {
    let changes: [fn(&mut Launch); 5] = [
        |launch| launch.api.major += 1,
        |launch| launch.api.minor += 1,
        |launch| launch.build += 1,
        |launch| launch.measurement.mnonce[0] ^= 1,
        |launch| launch.measurement.measure[31] ^= 1,
    ];
    for change in changes {
        let Started { session, guest } = start(0);
        let mut launch = launch(&guest, &guest.measure(&DIGEST));
        change(&mut launch);
        let denial = refused(session, &launch, &[&DIGEST]);
        assert_eq!(denial.check, Check::LaunchDigest, "{denial}");
    }
}

#[test]
fn another_image_or_another_session_fits_nothing() {
    let Started { session, guest } = start(0);
    let other = launch(&guest, &guest.measure(&[0xd2; 32]));
    assert_eq!(refused(session, &other, &[&DIGEST]).check, Check::LaunchDigest);
    let Started { session, guest } = start(0);
    let another = start(0);
    let measurement = another.guest.measure(&DIGEST);
    let denial = refused(session, &launch(&guest, &measurement), &[&DIGEST]);
    assert_eq!(denial.check, Check::LaunchDigest, "{denial}");
}

#[test]
fn empty_short_and_zero_digests_allow_nothing() {
    for (digest, candidates) in [
        (DIGEST, vec![]),
        (DIGEST, vec![&DIGEST[..31]]),
        ([0; 32], vec![[0; 32].as_slice()]),
        (DIGEST, vec![[DIGEST, DIGEST].concat().leak() as &[u8]]),
    ] {
        let Started { session, guest } = start(0);
        let launch = launch(&guest, &guest.measure(&digest));
        let denial = session.measure(&launch, candidates).unwrap_err();
        assert_eq!(denial.check, Check::LaunchDigest, "{denial}");
    }
}

#[test]
fn a_session_needs_randomness_and_a_policy_with_a_meaning() {
    let hardware = Hardware::new();
    let checked = || check(&hardware, &anchors(&hardware), &Collateral::default()).unwrap();
    let mut none = |_: &mut [u8]| Err(NoRandomness);
    let failed = checked().open_session(Policy(STRICT), INIT_DATA, SPEC, &mut none).unwrap_err();
    assert_eq!(failed, SessionError::Random(NoRandomness));
    let mut zeros = |out: &mut [u8]| {
        out.fill(0);
        Ok(())
    };
    let failed = checked().open_session(Policy(STRICT), INIT_DATA, SPEC, &mut zeros).unwrap_err();
    assert_eq!(failed, SessionError::Random(NoRandomness), "zero is no key");
    let failed = checked().open_session(Policy(0x40), INIT_DATA, SPEC, &mut random).unwrap_err();
    assert_eq!(failed, SessionError::Policy(0x40));
}

#[test]
fn two_sessions_share_nothing() {
    let hardware = Hardware::new();
    let open = || {
        let checked = check(&hardware, &anchors(&hardware), &Collateral::default()).unwrap();
        checked.open_session(Policy(STRICT), INIT_DATA, SPEC, &mut random).unwrap()
    };
    let ((one, first), (other, second)) = (open(), open());
    assert_ne!((*one.tek, *one.tik, one.nonce), (*other.tek, *other.tik, other.nonce));
    assert_ne!(first.godh, second.godh);
    assert!(!format!("{one:?}").contains("tek"));
}

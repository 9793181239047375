//! The secret packet: opened by the platform that was measured, for that launch, and by nothing else.

use tee_evidence::sev::SecretTable;

use super::*;

#[test]
fn the_measured_platform_opens_the_secret() {
    let (launch, guest, measurement) = measured(0);
    let grant = grant(&launch);
    let (secret, launched) = launch.seal(&grant, &entries(), &mut random).unwrap();
    assert!(!secret.data.windows(8).any(|part| part == b"a secret"));
    let table = guest.inject(&secret.header, &secret.data, &measurement).unwrap();
    assert_eq!(SecretTable::parse(&table).unwrap(), entries());
    assert_eq!(*launched.sealed_spec(), SPEC);
}

#[test]
fn a_packet_is_for_one_measure_one_session_and_whole() {
    let (launch, guest, measurement) = measured(0);
    let grant = grant(&launch);
    let (secret, _) = launch.seal(&grant, &entries(), &mut random).unwrap();
    assert_eq!(guest.inject(&secret.header, &secret.data, &guest.measure(&DIGEST)), None, "another MEASURE");
    let (_, other, _) = measured(0);
    assert_eq!(other.inject(&secret.header, &secret.data, &measurement), None, "another session");
    for at in [0, 4, 20, 51] {
        let mut header = secret.header;
        header[at] ^= 1;
        assert_eq!(guest.inject(&header, &secret.data, &measurement), None);
    }
    assert_eq!(guest.inject(&secret.header, &secret.data[16..], &measurement), None);
}

#[test]
fn a_grant_for_another_launch_makes_no_packet() {
    let (launch, ..) = measured(0);
    let (other, ..) = measured(0);
    let grant = grant(&other);
    assert_eq!(launch.seal(&grant, &entries(), &mut random).unwrap_err(), SecretError::OtherLaunch);
}

#[test]
fn what_does_not_fit_or_has_no_randomness_makes_no_packet() {
    let (launch, ..) = measured(0);
    let granted = grant(&launch);
    let big = vec![0; SecretTable::MAX];
    let entries_too_big = [SecretEntry { guid: NAME, data: &big }];
    assert!(matches!(launch.seal(&granted, &entries_too_big, &mut random), Err(SecretError::Table(_))));
    let (launch, ..) = measured(0);
    let granted = grant(&launch);
    let mut none = |_: &mut [u8]| Err(NoRandomness);
    assert!(matches!(launch.seal(&granted, &entries(), &mut none), Err(SecretError::Random(_))));
}

//! Launches on platforms of our own, with one thing wrong at a time, and on real ones as far as their files go.

mod chain;
mod connection;
mod measure;
mod platform;
mod policy;
mod secret;
mod stored;
mod vectors;

use tee_evidence::guid::Guid;
use tee_evidence::sev::{FirmwareApi, Measurement, Policy, SecretEntry};

use self::platform::{Guest, Platform as Hardware};
use super::*;
use crate::{Denial, Grant, LaunchDigest, ReferenceValues, TeeKind};

pub(super) const DIGEST: [u8; 32] = [0xd1; 32];
pub(super) const INIT_DATA: [u8; 32] = [0x1d; 32];
pub(super) const SPEC: [u8; 32] = [0x5c; 32];

pub(super) fn random(out: &mut [u8]) -> Result<(), NoRandomness> {
    getrandom::fill(out).map_err(|_| NoRandomness)
}

/// Trusts the root of [`Hardware::new`].
pub(super) fn anchors(hardware: &Hardware) -> Anchors {
    Anchors::amd().with_emulated(&hardware.authorities()).unwrap()
}

pub(super) fn check(
    hardware: &Hardware,
    anchors: &Anchors,
    collateral: &Collateral,
) -> Result<ChainChecked, Denial> {
    Platform::parse(&hardware.pdh, &hardware.chain())?.check_chain(anchors, collateral)
}

/// A launch as far as LAUNCH_START.
pub(super) struct Started {
    pub(super) session: Session,
    pub(super) guest: Guest,
}

pub(super) fn start_on(hardware: &Hardware, bits: u32) -> Started {
    let policy = Policy::new(STRICT | bits, FirmwareApi { major: 1, minor: 51 });
    let checked = check(hardware, &anchors(hardware), &Collateral::default()).unwrap();
    let (session, files) = checked.open_session(policy, INIT_DATA, SPEC, &mut random).unwrap();
    let guest = hardware.launch_start(files.godh.as_slice(), &files.session, policy.0).unwrap();
    Started { session, guest }
}

pub(super) fn start(bits: u32) -> Started {
    start_on(&Hardware::new(), bits)
}

/// What the host would say of this guest.
pub(super) fn launch(guest: &Guest, measurement: &[u8; 48]) -> Launch {
    Launch {
        api: FirmwareApi { major: guest.api.0, minor: guest.api.1 },
        build: guest.build,
        policy: Policy(guest.policy),
        measurement: Measurement::parse(measurement).unwrap(),
    }
}

pub(super) fn measured(bits: u32) -> (Measured, Guest, [u8; 48]) {
    let Started { session, guest } = start(bits);
    let measurement = guest.measure(&DIGEST);
    let measured = session.measure(&launch(&guest, &measurement), [DIGEST.as_slice()]).unwrap();
    (measured, guest, measurement)
}

/// A policy that [`measured`] matches.
pub(super) fn reference(tee: TeeKind) -> ReferenceValues {
    ReferenceValues {
        tee: vec![tee],
        launch_digests: vec![LaunchDigest { name: "guest".into(), digest: DIGEST.to_vec() }],
        sev: Some(SevReference {
            minimum_api: FirmwareApi { major: 1, minor: 51 },
            minimum_build: 6,
            required_bits: STRICT,
            ..SevReference::default()
        }),
        ..ReferenceValues::default()
    }
}

pub(super) const NAME: Guid = Guid::new(0xa42dd9c0_5257_4689_8fe2_390a1cbb18c4);

pub(super) fn grant(measured: &Measured) -> Grant {
    measured.appraised().grant(&reference(TeeKind::SevEmulated)).unwrap()
}

pub(super) fn entries() -> [SecretEntry<'static>; 1] {
    [SecretEntry { guid: NAME, data: b"a secret" }]
}

//! SEV and SEV-ES: a whole launch between the emulated platform and the guest owner's code, and what is refused
//! where the platform or its host lies.

use std::sync::OnceLock;

use sealpod_emulator::firmware::{Firmware, generate};
use sealpod_emulator::measure::{HashTable, LegacyLaunch};
use sealpod_emulator::sev::platform::Published;
use sealpod_emulator::sev::{self as emulated, Fault, Guest, Status, secrets};
use sealpod_emulator::snp::{Chip, Product};
use tee_evidence::guid::Guid;
use tee_evidence::sev::SecretEntry;
use verifier::sev::{
    Anchors, ChainChecked, Collateral, FirmwareApi, Launch, Measured, Measurement, NoRandomness, Platform,
    Policy, STRICT, Session,
};
use verifier::{Check, Denial, Grant, LaunchDigest, ReferenceValues, SevReference, TeeKind};

const INIT_DATA: [u8; 32] = [1; 32];
const SPEC: [u8; 32] = [2; 32];
const NAME: Guid = Guid::new(0xa42dd9c0_5257_4689_8fe2_390a1cbb18c4);
const ES: u32 = Policy::ES;

fn chip() -> Chip {
    Chip::new(Product::Milan, [3; 48])
}

/// Half of AMD's key length, so that the test stays fast.
fn published() -> Published {
    static PUBLISHED: OnceLock<Published> = OnceLock::new();
    PUBLISHED.get_or_init(|| Published::issue(&chip(), 2048).unwrap()).clone()
}

fn platform(faults: &[&str]) -> emulated::Platform {
    let faults: Vec<Fault> = faults.iter().map(|fault| fault.parse().unwrap()).collect();
    let mut platform = emulated::Platform::new(&chip(), published());
    emulated::faults::apply(&mut platform, &faults);
    platform
}

fn anchors() -> Anchors {
    Anchors::amd().with_emulated(&published().ask_ark).unwrap()
}

fn random(out: &mut [u8]) -> Result<(), NoRandomness> {
    getrandom::fill(out).map_err(|_| NoRandomness)
}

fn check(platform: &emulated::Platform, collateral: &Collateral) -> Result<ChainChecked, Denial> {
    Platform::parse(&platform.pdh, &platform.chain)?.check_chain(&anchors(), collateral)
}

/// What is booted: two processors, unless somebody adds one.
struct Boot {
    initrd: &'static [u8],
    vcpus: u32,
}

const HONEST: Boot = Boot { initrd: b"initrd", vcpus: 2 };

impl Boot {
    fn load(&self, guest: &mut Guest) {
        let firmware = Firmware::parse(generate()).unwrap();
        let hashes = HashTable::of_bytes(b"kernel", self.initrd, "quiet");
        let cpu = "EPYC-Milan".parse().unwrap();
        let launch = LegacyLaunch { firmware: &firmware, hashes: Some(&hashes), vcpus: self.vcpus, cpu };
        for data in launch.data().unwrap() {
            guest.update_data(&data).unwrap();
        }
        if guest.is_es() {
            for page in launch.processors().unwrap() {
                guest.update_processor(&page).unwrap();
            }
        }
    }
}

/// The digest that the owner allows.
fn digest(bits: u32) -> [u8; 32] {
    let kernel = launch_digest::Kernel { kernel: b"kernel", initrd: b"initrd", cmdline: "quiet" };
    let launch = launch_digest::Launch {
        firmware: &generate(),
        kernel: Some(kernel),
        vcpus: 2,
        cpu: "EPYC-Milan".parse().unwrap(),
        guest_features: 0,
    };
    if bits & ES != 0 { launch_digest::sev_es(&launch) } else { launch_digest::sev(&launch) }.unwrap()
}

struct Launched {
    session: Session,
    guest: Guest,
    measurement: [u8; 48],
}

fn launch(platform: &emulated::Platform, bits: u32, boot: &Boot, faults: &[Fault]) -> Launched {
    let policy = Policy::new(STRICT | bits, FirmwareApi { major: 1, minor: 51 });
    let checked = check(platform, &Collateral::default()).unwrap();
    let (session, files) = checked.open_session(policy, INIT_DATA, SPEC, &mut random).unwrap();
    let mut guest = Guest::start(platform, policy.0, files.godh.as_slice(), &files.session, faults).unwrap();
    boot.load(&mut guest);
    let measurement = guest.measure([9; 16]).unwrap();
    Launched { session, guest, measurement }
}

/// What the monitor says.
fn said(platform: &emulated::Platform, policy: u32, measurement: &[u8; 48]) -> Launch {
    Launch {
        api: FirmwareApi { major: platform.api.0, minor: platform.api.1 },
        build: platform.build,
        policy: Policy(policy),
        measurement: Measurement::parse(measurement).unwrap(),
    }
}

fn measured(
    platform: &emulated::Platform,
    launched: Launched,
    bits: u32,
) -> Result<(Measured, Guest), Denial> {
    let Launched { session, guest, measurement } = launched;
    let said = said(platform, guest.policy(), &measurement);
    Ok((session.measure(&said, [digest(bits).as_slice()])?, guest))
}

fn grant(measured: &Measured, bits: u32) -> Result<Grant, Denial> {
    measured.appraised().grant(&ReferenceValues {
        tee: vec![if bits & ES != 0 { TeeKind::SevEsEmulated } else { TeeKind::SevEmulated }],
        launch_digests: vec![LaunchDigest { name: "guest".into(), digest: digest(bits).to_vec() }],
        sev: Some(SevReference {
            minimum_api: FirmwareApi { major: 1, minor: 51 },
            required_bits: STRICT,
            ..SevReference::default()
        }),
        ..ReferenceValues::default()
    })
}

#[test]
fn a_launch_is_measured_granted_and_gets_its_secret() {
    for bits in [0, ES] {
        let platform = platform(&[]);
        let launched = launch(&platform, bits, &HONEST, &[]);
        let (measured, mut guest) = measured(&platform, launched, bits).unwrap();
        let grant = grant(&measured, bits).unwrap();
        let entries = [SecretEntry { guid: NAME, data: b"{\"a\":\"secret\"}" }];
        let (secret, _) = measured.seal(&grant, &entries, &mut random).unwrap();
        guest.inject(&secret.header, &secret.data).unwrap();
        let area = guest.finish().unwrap().unwrap();
        let found = secrets::parse(&area).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].guid, "a42dd9c0-5257-4689-8fe2-390a1cbb18c4");
        assert_eq!(found[0].data, b"{\"a\":\"secret\"}");
    }
}

#[test]
fn platforms_whose_keys_nobody_vouches_for_are_refused() {
    for (fault, expected) in [
        ("pdh-off-curve", Check::CertificateChain),
        ("pdh-identity", Check::CertificateChain),
        ("pdh-p256", Check::Evidence),
        ("unsigned-pdh", Check::CertificateChain),
        ("unsigned-pek", Check::CertificateChain),
        ("unsigned-oca", Check::CertificateChain),
        ("oca-only", Check::CertificateChain),
        ("unsigned-cek", Check::Collateral),
    ] {
        let denial = check(&platform(&[fault]), &Collateral::default()).unwrap_err();
        assert_eq!(denial.check, expected, "{fault}: {denial}");
    }
    let cek = Collateral { cek: Some(published().cek.to_vec()), ..Collateral::default() };
    assert!(check(&platform(&["unsigned-cek"]), &cek).is_ok(), "AMD's service has the signed one");
    let other = Published::issue(&Chip::new(Product::Milan, [4; 48]), 2048).unwrap();
    let cek = Collateral { cek: Some(other.cek.to_vec()), ..Collateral::default() };
    let denial = check(&platform(&["unsigned-cek"]), &cek).unwrap_err();
    assert_eq!(denial.check, Check::Collateral, "{denial}");
}

#[test]
fn without_its_root_configured_an_emulated_platform_is_refused() {
    let platform = platform(&[]);
    let other = Published::issue(&chip(), 2048).unwrap();
    let foreign = Anchors::amd().with_emulated(&other.ask_ark).unwrap();
    let hint = Collateral { authorities: vec![published().ask_ark], ..Collateral::default() };
    for anchors in [Anchors::amd(), foreign] {
        for collateral in [&Collateral::default(), &hint] {
            let parsed = Platform::parse(&platform.pdh, &platform.chain).unwrap();
            let denial = parsed.check_chain(&anchors, collateral).unwrap_err();
            assert_eq!(denial.check, Check::CertificateChain, "{denial}");
        }
    }
}

#[test]
fn what_was_not_allowed_is_not_measured() {
    let platform = platform(&[]);
    let refused = |bits, boot: &Boot| {
        let launched = launch(&platform, bits, boot, &[]);
        let denial = measured(&platform, launched, bits).unwrap_err();
        assert_eq!(denial.check, Check::LaunchDigest, "{denial}");
    };
    refused(0, &Boot { initrd: b"initre", ..HONEST });
    refused(ES, &Boot { initrd: b"initre", ..HONEST });
    refused(ES, &Boot { vcpus: 3, ..HONEST });
    let more = launch(&platform, 0, &Boot { vcpus: 3, ..HONEST }, &[]);
    assert!(measured(&platform, more, 0).is_ok(), "without ES, processors are not measured");

    let mut launched = launch(&platform, ES, &HONEST, &[]);
    launched.measurement[0] ^= 1;
    assert_eq!(measured(&platform, launched, ES).unwrap_err().check, Check::LaunchDigest);
    let mut launched = launch(&platform, ES, &HONEST, &[]);
    launched.measurement = launch(&platform, ES, &HONEST, &[]).measurement;
    assert_eq!(measured(&platform, launched, ES).unwrap_err().check, Check::LaunchDigest, "a replay");
}

#[test]
fn a_launch_without_es_is_not_one_with_it() {
    let platform = platform(&[]);
    let weaker = Policy::new(STRICT, FirmwareApi { major: 1, minor: 51 }).0;
    let launched = launch(&platform, ES, &HONEST, &[Fault::Policy(weaker)]);
    let denial = measured(&platform, launched, ES).unwrap_err();
    assert_eq!(denial.check, Check::GuestPolicy, "{denial}");

    let Launched { session, measurement, .. } = launch(&platform, ES, &HONEST, &[Fault::Policy(weaker)]);
    let lie = said(&platform, weaker | ES, &measurement);
    let denial = session.measure(&lie, [digest(ES).as_slice(), digest(0).as_slice()]).unwrap_err();
    assert_eq!(denial.check, Check::LaunchDigest, "the monitor lies about the policy: {denial}");
}

#[test]
fn old_firmware_is_refused_and_cant_lie_about_its_age() {
    let old = platform(&["api=1.51", "build=3"]);
    let launched = launch(&old, 0, &HONEST, &[]);
    let (measured_old, _) = measured(&old, launched, 0).unwrap();
    assert!(grant(&measured_old, 0).is_ok(), "the minimum itself");
    let reference = ReferenceValues {
        tee: vec![TeeKind::SevEmulated],
        launch_digests: vec![LaunchDigest { name: "guest".into(), digest: digest(0).to_vec() }],
        sev: Some(SevReference {
            minimum_api: FirmwareApi { major: 1, minor: 51 },
            minimum_build: 4,
            required_bits: STRICT,
            ..SevReference::default()
        }),
        ..ReferenceValues::default()
    };
    assert_eq!(measured_old.appraised().grant(&reference).unwrap_err().check, Check::Tcb);

    let Launched { session, guest, measurement } = launch(&old, 0, &HONEST, &[]);
    let lie = Launch { build: 40, ..said(&old, guest.policy(), &measurement) };
    assert_eq!(session.measure(&lie, [digest(0).as_slice()]).unwrap_err().check, Check::LaunchDigest);
}

#[test]
fn a_secret_is_for_one_launch() {
    let platform = platform(&[]);
    let first = launch(&platform, 0, &HONEST, &[]);
    let mut second = launch(&platform, 0, &HONEST, &[]);
    let (measured, _) = measured(&platform, first, 0).unwrap();
    let grant = grant(&measured, 0).unwrap();
    let entries = [SecretEntry { guid: NAME, data: b"secret" }];
    let (secret, _) = measured.seal(&grant, &entries, &mut random).unwrap();
    assert_eq!(second.guest.inject(&secret.header, &secret.data), Err(Status::BadMeasurement));
}

//! The launch commands of SEV and SEV-ES: with a guest owner who keeps to the API, and with hosts that don't.

#![allow(clippy::unwrap_used, reason = "a test")]

mod owner;

use owner::Owner;
use sealpod_emulator::firmware::{Firmware, generate};
use sealpod_emulator::measure::{CpuModel, HashTable, LegacyLaunch};
use sealpod_emulator::sev::guest::State;
use sealpod_emulator::sev::platform::Published;
use sealpod_emulator::sev::{Fault, Guest, Platform, Status, faults};
use sealpod_emulator::snp::{Chip, Product};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

const SEV: u32 = 0x1;
const ES: u32 = 0x5;

fn chip() -> Chip {
    Chip::new(Product::Milan, [3; 48])
}

fn platform() -> Platform {
    static PUBLISHED: OnceLock<Published> = OnceLock::new();
    // Half of AMD's key length, so that the test stays fast.
    Platform::new(&chip(), PUBLISHED.get_or_init(|| Published::issue(&chip(), 2048).unwrap()).clone())
}

fn start(platform: &Platform, owner: &Owner, policy: u32) -> Result<Guest, Status> {
    let session = owner.session(&platform.pdh, policy);
    Guest::start(platform, policy, &owner.godh(), &session, &[])
}

#[test]
fn an_owner_who_keeps_to_the_api_measures_and_injects() {
    let (platform, owner) = (platform(), Owner::new(5));
    let mut guest = start(&platform, &owner, ES).unwrap();
    guest.update_data(b"firmware").unwrap();
    guest.update_processor(b"processor").unwrap();
    let measurement = guest.measure([6; 16]).unwrap();
    let digest = Sha256::digest(b"firmwareprocessor");
    assert_eq!(measurement[..32], owner.measure([1, 55, 29], ES, &digest, &[6; 16]));
    assert_eq!(measurement[32..], [6; 16]);
    let (header, data) = owner.secret(&[0x5a; 64], &measurement[..32]);
    guest.inject(&header, &data).unwrap();
    assert_eq!(guest.finish().unwrap().unwrap()[..], [0x5a; 64]);
    assert_eq!(guest.state(), State::Running);
}

#[test]
fn commands_out_of_order_get_the_firmwares_errors() {
    let (platform, owner) = (platform(), Owner::new(5));
    let mut guest = start(&platform, &owner, SEV).unwrap();
    assert_eq!(guest.inject(&[0; 52], &[0; 16]), Err(Status::InvalidGuestState), "before the measurement");
    assert_eq!(
        guest.update_processor(b"p"),
        Err(Status::InvalidGuestState),
        "SEV has no measured processors"
    );
    let measurement = guest.measure([6; 16]).unwrap();
    assert_eq!(guest.measure([7; 16]), Err(Status::InvalidGuestState), "a second measurement");
    assert_eq!(guest.measurement(), Some(measurement));
    assert_eq!(guest.update_data(b"late"), Err(Status::InvalidGuestState));
    assert!(guest.finish().unwrap().is_none());
    let (header, data) = owner.secret(&[0; 16], &measurement[..32]);
    assert_eq!(guest.inject(&header, &data), Err(Status::InvalidGuestState), "after the start");
    assert_eq!(guest.finish().err(), Some(Status::InvalidGuestState));
}

#[test]
fn sessions_for_others_are_refused() {
    let (platform, owner) = (platform(), Owner::new(5));
    let session = owner.session(&platform.pdh, SEV);
    let refused = |policy, godh: &[u8], session: &[u8]| {
        Guest::start(&platform, policy, godh, session, &[]).err().unwrap()
    };
    assert_eq!(refused(ES, &owner.godh(), &session), Status::BadMeasurement, "another policy");
    assert_eq!(refused(SEV, &Owner::new(6).godh(), &session), Status::BadMeasurement, "another owner");
    let other = Platform::new(&Chip::new(Product::Milan, [4; 48]), platform.published().clone());
    assert_eq!(start(&other, &owner, SEV).map(|_| ()), Ok(()));
    assert_eq!(
        Guest::start(&other, SEV, &owner.godh(), &session, &[]).err(),
        Some(Status::BadMeasurement),
        "another platform"
    );
    for at in 0..128 {
        let mut changed = session.clone();
        changed[at] ^= 1;
        assert_eq!(refused(SEV, &owner.godh(), &changed), Status::BadMeasurement, "byte {at}");
    }
    assert_eq!(refused(SEV, &owner.godh(), &session[..127]), Status::InvalidLength);
    let mut off_curve = owner.godh();
    off_curve[20] ^= 1;
    assert_eq!(refused(SEV, &off_curve, &session), Status::InvalidCertificate, "CVE-2019-9836");
    let mut usage = owner.godh();
    usage[8] ^= 1;
    assert_eq!(refused(SEV, &usage, &session), Status::InvalidCertificate);
    assert_eq!(start(&platform, &owner, 0x40).err(), Some(Status::InvalidParameter), "reserved bits");
    assert_eq!(start(&platform, &owner, 0x3801_0001).err(), Some(Status::PolicyFailure), "API 1.56");
    assert!(start(&platform, &owner, 0x3701_0001).is_ok(), "API 1.55");
}

#[test]
fn secrets_for_another_launch_are_refused() {
    let (platform, owner) = (platform(), Owner::new(5));
    let mut guest = start(&platform, &owner, SEV).unwrap();
    let measurement = guest.measure([6; 16]).unwrap();
    let (header, data) = owner.secret(&[1; 32], &measurement[..32]);
    let (other, _) = owner.secret(&[1; 32], &[0; 32]);
    assert_eq!(guest.inject(&other, &data), Err(Status::BadMeasurement), "for another MEASURE");
    for at in 4..52 {
        let mut changed = header.clone();
        changed[at] ^= 1;
        assert_eq!(guest.inject(&changed, &data), Err(Status::BadMeasurement), "byte {at} of the header");
    }
    let mut compressed = header.clone();
    compressed[0] = 1;
    assert_eq!(guest.inject(&compressed, &data), Err(Status::InvalidParameter));
    let mut changed = data.clone();
    changed[31] ^= 1;
    assert_eq!(guest.inject(&header, &changed), Err(Status::BadMeasurement));
    for length in [0, 17, 16 * 1024 + 16] {
        assert_eq!(guest.inject(&header, &vec![0; length]), Err(Status::InvalidLength));
    }
    assert_eq!(guest.inject(&header, &data), Ok(()));
}

fn slots(certificate: &[u8]) -> [u32; 2] {
    [1044, 1564].map(|at| u32::from_le_bytes(certificate[at..at + 4].try_into().unwrap()))
}

#[test]
fn each_fault_of_the_platform_shows_in_its_certificates() {
    let with = |text: &str| {
        let mut platform = platform();
        faults::apply(&mut platform, &[text.parse().unwrap()]);
        platform
    };
    let honest = platform();
    let (pek, oca, cek) = (&honest.chain[..2084], &honest.chain[2084..4168], &honest.chain[4168..]);
    assert_eq!(slots(&honest.pdh), [0x1002, 0x1000]);
    assert_eq!((slots(pek), slots(oca), slots(cek)), ([0x1001, 0x1004], [0x1001, 0x1000], [0x13, 0x1000]));
    assert_eq!(slots(&with("unsigned-pdh").pdh), [0x1000; 2]);
    assert_eq!(slots(&with("unsigned-pek").chain[..2084]), [0x1000; 2]);
    assert_eq!(slots(&with("unsigned-oca").chain[2084..4168]), [0x1000; 2]);
    assert_eq!(slots(&with("unsigned-cek").chain[4168..]), [0x1000; 2]);
    assert_eq!(slots(&with("oca-only").chain[..2084]), [0x1001, 0x1000]);
    for fault in ["pdh-off-curve", "pdh-p256", "pdh-identity"] {
        let pdh = with(fault).pdh;
        assert_ne!(pdh[16..164], honest.pdh[16..164], "{fault}");
        assert_eq!(slots(&pdh), [0x1002, 0x1000], "{fault}: signed all the same");
    }
    assert_eq!(with("pdh-p256").pdh[16..20], [1, 0, 0, 0]);
    assert_eq!(with("pdh-identity").pdh[20..164], [0; 144]);
    assert_eq!((with("api=0.17").api, with("build=3").build), ((0, 17), 3));
}

#[test]
fn a_firmware_that_skips_the_policy_launches_under_another() {
    let (platform, owner) = (platform(), Owner::new(5));
    let session = owner.session(&platform.pdh, ES);
    let faults = [Fault::Policy(SEV)];
    let mut guest = Guest::start(&platform, ES, &owner.godh(), &session, &faults).unwrap();
    assert_eq!((guest.policy(), guest.is_es()), (SEV, false));
    let measurement = guest.measure([0; 16]).unwrap();
    assert_eq!(measurement[..32], owner.measure([1, 55, 29], SEV, &Sha256::digest([]), &[0; 16]));
}

fn vector(name: &str) -> Option<Vec<u8>> {
    let root = std::env::var_os("SEALPOD_VECTORS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/vectors"), PathBuf::from);
    let bytes = std::fs::read(root.join("sev-legacy/sevctl").join(name)).ok();
    if bytes.is_none() {
        println!("skipped: no vectors");
    }
    bytes
}

/// Measurements that another implementation of the API gives for the same firmware, kernel and keys.
#[test]
fn measurements_equal_published_ones() {
    let Some(firmware) = vector("OVMF.amdsev.fd_trimmed_edk2-ovmf-20220126gitbb1bba3d77-4.el9") else {
        return;
    };
    let mut owner = Owner::new(5);
    owner.tik = vector("measurement/tik1.bin").unwrap().try_into().unwrap();
    let hashes = HashTable::of_bytes(
        &vector("measurement/vmlinuz-fake").unwrap(),
        &vector("measurement/initrd-fake").unwrap(),
        "foo bar baz fake kernel=cmdline",
    );
    let mut platform = platform();
    faults::apply(&mut platform, &["api=1.40".parse().unwrap(), "build=40".parse().unwrap()]);
    let nonce = base64_16("wxP6tRHCFrFQWxsuqZA8QA==");
    let parsed = Firmware::parse(firmware).unwrap();
    let cpu: CpuModel = "EPYC".parse().unwrap();
    for (hashes, expected) in [
        (None, "oMDewIouJSpbpNRHj7Mk3p08H2dPZQdsZMU14qIymBnDE/q1EcIWsVBbGy6pkDxA"),
        (Some(&hashes), "h3auYbWQnVW7EGLWN4Hf9SN0oEYMPU2sK4bLnefWPwvDE/q1EcIWsVBbGy6pkDxA"),
    ] {
        let mut guest = start(&platform, &owner, 3).unwrap();
        let launch = LegacyLaunch { firmware: &parsed, hashes, vcpus: 1, cpu };
        for data in launch.data().unwrap() {
            guest.update_data(&data).unwrap();
        }
        assert_eq!(base64(&guest.measure(nonce).unwrap()), expected);
    }
}

#[test]
fn the_generated_firmware_measures_processors_for_es() {
    let parsed = Firmware::parse(generate()).unwrap();
    let cpu: CpuModel = "EPYC-Milan".parse().unwrap();
    let launch = LegacyLaunch { firmware: &parsed, hashes: None, vcpus: 3, cpu };
    let pages = launch.processors().unwrap();
    assert_eq!((pages.len(), pages[0].len()), (3, 4096));
    assert!(pages[0] != pages[1] && pages[1] == pages[2]);
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

fn base64_16(text: &str) -> [u8; 16] {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.decode(text).unwrap().try_into().unwrap()
}

//! Initdata against HOST_DATA: one thing wrong at a time.

use std::fs;
use std::path::PathBuf;

use sealed_spec::initdata::{self, Via};

use super::*;
use crate::testing::{FakeTee, document};

const CA: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";

/// A guest's disks as files.
struct Disks(tempfile::TempDir);

impl Disks {
    fn new(disks: &[(&str, &[u8])]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["block", "dev"] {
            fs::create_dir(dir.path().join(folder)).unwrap();
        }
        for (name, bytes) in disks {
            fs::create_dir(dir.path().join("block").join(name)).unwrap();
            fs::write(dir.path().join("dev").join(name), bytes).unwrap();
        }
        Self(dir)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn load(&self, host_data: [u8; 32]) -> Result<VerifiedInitdata, Refusal> {
        load_from(&self.path("block"), &self.path("dev"), &FakeTee { host_data, sealed_spec: None })
    }
}

fn text() -> String {
    document("https://broker.example", Via::Relay, CA)
}

fn framed(text: &str) -> (Vec<u8>, [u8; 32]) {
    (device::encode(text.as_bytes()).unwrap(), initdata::digest(text.as_bytes()))
}

fn code(result: Result<VerifiedInitdata, Refusal>) -> (Code, String) {
    let refusal = result.unwrap_err();
    (refusal.code, refusal.detail)
}

#[test]
fn the_one_device_that_the_launch_bound() {
    let (device, digest) = framed(&text());
    let disks = Disks::new(&[("vda", b"short"), ("vdb", &device), ("vdc", &[0; 4096]), ("loop0", &device)]);
    let loaded = disks.load(digest).unwrap();
    assert_eq!(loaded.body(), text());
    assert_eq!(loaded.config().unwrap().broker.url, "https://broker.example");
    assert!(loaded.document().is_none());
}

#[test]
fn initdata_that_the_launch_did_not_bind() {
    let (device, mut digest) = framed(&text());
    let disks = Disks::new(&[("vda", &device)]);
    digest[31] ^= 1;
    assert_eq!(code(disks.load(digest)).0, Code::HostDataMismatch);
    let (code_, detail) = code(disks.load([0; 32]));
    assert_eq!(code_, Code::HostDataMismatch);
    assert!(detail.contains("without HOST_DATA"));
}

#[test]
fn host_data_is_checked_before_the_contents() {
    let (device, digest) = framed("nonsense");
    let disks = Disks::new(&[("vda", &device)]);
    assert_eq!(code(disks.load([1; 32])).0, Code::HostDataMismatch);
    assert_eq!(code(disks.load(digest)).0, Code::InitdataInvalid);
}

#[test]
fn no_device() {
    let (_, digest) = framed(&text());
    for host_data in [digest, [0; 32]] {
        assert_eq!(code(Disks::new(&[("vda", &[0; 1024])]).load(host_data)).0, Code::InitdataMissing);
    }
    let gone = load_from(
        "/nonexistent".as_ref(),
        "/dev".as_ref(),
        &FakeTee { host_data: digest, sealed_spec: None },
    );
    assert_eq!(code(gone).0, Code::InitdataMissing);
}

#[test]
fn two_devices_even_if_equal() {
    let (device, digest) = framed(&text());
    let (code, detail) = code(Disks::new(&[("vda", &device), ("vdb", &device)]).load(digest));
    assert_eq!(code, Code::InitdataInvalid);
    assert!(detail.contains("vda") && detail.contains("vdb"), "{detail}");
}

#[test]
fn an_unreadable_disk_is_named_and_stops_nobody() {
    let (device, digest) = framed(&text());
    let disks = Disks::new(&[("vda", b""), ("vdb", &device)]);
    fs::remove_file(disks.path("dev/vda")).unwrap();
    fs::create_dir(disks.path("dev/vda")).unwrap();
    disks.load(digest).unwrap();
    fs::remove_file(disks.path("dev/vdb")).unwrap();
    let (code, detail) = code(disks.load(digest));
    assert_eq!(code, Code::InitdataMissing);
    assert!(detail.contains("vda") && detail.contains("vdb"), "{detail}");
}

#[test]
fn lying_and_damaged_devices() {
    let (good, digest) = framed(&text());
    let length = |length: u64| {
        let mut device = good.clone();
        device[8..16].copy_from_slice(&length.to_le_bytes());
        device
    };
    let true_length = u64::from_le_bytes(good[8..16].try_into().unwrap());
    let mut flipped = good.clone();
    flipped[40] ^= 0x20;
    let trailing = [good.as_slice(), &[1; 512]].concat();
    let zeros = [good.as_slice(), &[0; 512]].concat();
    let cut = good[..40].to_vec();
    for (device, what) in [
        (length(u64::MAX), "huge length"),
        (length(1 << 40), "length beyond the device"),
        (length(true_length - 1), "short length"),
        (length(0), "no length"),
        (flipped, "damaged"),
        (trailing, "bytes after the end"),
        (zeros, "a sector too many"),
        (cut, "cut"),
    ] {
        assert_eq!(code(Disks::new(&[("vda", &device)]).load(digest)).0, Code::InitdataInvalid, "{what}");
    }
}

#[test]
fn a_bomb_stays_bounded() {
    // 64 MiB of zeros in 64 KiB, with the right frame around it.
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::copy(&mut std::io::repeat(0).take(64 << 20), &mut encoder).unwrap();
    let packed = encoder.finish().unwrap();
    let mut device = b"initdata".to_vec();
    device.extend((packed.len() as u64).to_le_bytes());
    device.extend(packed);
    device.resize(device.len().next_multiple_of(512), 0);
    assert_eq!(code(Disks::new(&[("vda", &device)]).load([1; 32])).0, Code::InitdataInvalid);
}

#[test]
fn a_policy_is_bound_as_a_sealed_spec_is() {
    let document = |algorithm: &str| {
        format!(
            "version = '0.1.0'\nalgorithm = '{algorithm}'\n[data]\n'policy.rego' = 'package agent_policy'\n"
        )
    };
    let (device, digest) = framed(&document("sha256"));
    let loaded = Disks::new(&[("vda", &device)]).load(digest).unwrap();
    assert_eq!(loaded.policy().unwrap().policy, "package agent_policy");
    assert_eq!(loaded.config().unwrap_err().code, Code::Mode);
    // Another digest than the document names is not the launch's.
    let (device, digest) = framed(&document("sha384"));
    assert_eq!(code(Disks::new(&[("vda", &device)]).load(digest)).0, Code::InitdataInvalid);
    let (device, mut digest) = framed(&document("sha256"));
    digest[0] ^= 1;
    assert_eq!(code(Disks::new(&[("vda", &device)]).load(digest)).0, Code::HostDataMismatch);
}

#[test]
fn a_launch_that_names_the_sealed_spec_names_the_initdatas() {
    let (device, host_data) = framed(&text());
    let disks = Disks::new(&[("vda", &device)]);
    let load = |sealed_spec| {
        let tee = FakeTee { host_data, sealed_spec: Some(sealed_spec) };
        load_from(&disks.path("block"), &disks.path("dev"), &tee)
    };
    let named = *sealed_spec::SpecDigest::of(b"spec").as_bytes();
    assert_eq!(load(named).unwrap().sealed_spec(), named);
    assert_eq!(load([7; 32]).unwrap_err().code, Code::LaunchSecret);
}

//! The emulator against the `sev` crate: launch digests, reports and certificates as somebody else reads them.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use sealpod_emulator::firmware::{Firmware, generate};
use sealpod_emulator::measure::{CpuModel, HashTable, Launch};
use sealpod_emulator::snp::certificates::Endorsement;
use sealpod_emulator::snp::chip::SECRET;
use sealpod_emulator::snp::wire::Call;
use sealpod_emulator::snp::{self, Authorities, Chip, Fault, KeyKind, Processor, Product, Tcb};
use sev::certs::snp::{Certificate, Chain, Verifiable, ca};
use sev::firmware::guest::AttestationReport;
use sev::firmware::host::{CertTableEntry, CertType};
use sev::measurement::snp::{SnpMeasurementArgs, snp_calc_launch_digest};
use sev::measurement::vcpu_types::CpuType;
use sev::measurement::vmsa::{GuestFeatures, VMMType};
use sev::parser::ByteParser;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use x509_cert::der::Encode;

const MODELS: [&str; 18] = [
    "EPYC",
    "EPYC-v1",
    "EPYC-v2",
    "EPYC-IBPB",
    "EPYC-v3",
    "EPYC-v4",
    "EPYC-Rome",
    "EPYC-Rome-v1",
    "EPYC-Rome-v2",
    "EPYC-Rome-v3",
    "EPYC-Milan",
    "EPYC-Milan-v1",
    "EPYC-Milan-v2",
    "EPYC-Genoa",
    "EPYC-Genoa-v1",
    "EPYC-Turin",
    "EPYC-Turin-v1",
    "EPYC-Turin-v2",
];

struct Files {
    directory: tempfile::TempDir,
}

impl Files {
    fn new(firmware: &[u8]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("firmware"), firmware).unwrap();
        fs::write(directory.path().join("kernel"), "a kernel").unwrap();
        fs::write(directory.path().join("initrd"), "an initrd").unwrap();
        Self { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Ours and theirs.
    fn digests(&self, vcpus: u32, model: &str, guest_features: u64, command_line: &str) -> (String, String) {
        let firmware = Firmware::parse(fs::read(self.path("firmware")).unwrap()).unwrap();
        let read = |name| fs::read(self.path(name)).unwrap();
        let hashes = HashTable::of_bytes(&read("kernel"), &read("initrd"), command_line);
        let cpu: CpuModel = model.parse().unwrap();
        let ours =
            Launch { firmware: &firmware, hashes: &hashes, vcpus, cpu, guest_features }.digest().unwrap();
        let theirs = snp_calc_launch_digest(SnpMeasurementArgs {
            vcpus,
            vcpu_type: CpuType::try_from(model).unwrap(),
            ovmf_file: self.path("firmware"),
            guest_features: GuestFeatures(guest_features),
            kernel_file: Some(self.path("kernel")),
            initrd_file: Some(self.path("initrd")),
            append: Some(command_line),
            ovmf_hash_str: None,
            vmm_type: Some(VMMType::QEMU),
        });
        (hex::encode(ours), theirs.unwrap().get_hex_ld())
    }
}

#[test]
fn digests_of_the_generated_firmware_equal_the_oracles() {
    let files = Files::new(&generate());
    for (index, model) in MODELS.into_iter().enumerate() {
        let vcpus = 1 + index as u32 % 4;
        let (ours, theirs) = files.digests(vcpus, model, 1, "console=ttyS0 quiet");
        assert_eq!(ours, theirs, "{model} × {vcpus}");
    }
    for (vcpus, features, command_line) in [(1, 0x21, "quiet"), (64, 1, ""), (2, 0, "a=\"b c\"")] {
        let (ours, theirs) = files.digests(vcpus, "EPYC-Milan", features, command_line);
        assert_eq!(ours, theirs, "{vcpus} {features:#x} {command_line:?}");
    }
}

#[test]
fn digests_of_a_real_ovmfs_tables_equal_the_oracles() {
    let vectors = std::env::var_os("SEALPOD_VECTORS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/vectors"), PathBuf::from);
    let Ok(suffix) = fs::read(vectors.join("snp/measurement/ovmf_AmdSev_suffix.bin")) else {
        println!("skipped: no vectors");
        return;
    };
    let files = Files::new(&suffix);
    for model in ["EPYC-v4", "EPYC-Milan", "EPYC-Genoa"] {
        let (ours, theirs) = files.digests(2, model, 1, "console=ttyS0");
        assert_eq!(ours, theirs, "{model}");
    }
}

#[test]
fn one_byte_of_the_initrd_changes_both_digests() {
    let files = Files::new(&generate());
    let before = files.digests(1, "EPYC-Milan", 1, "quiet");
    fs::write(files.path("initrd"), "an initrb").unwrap();
    let after = files.digests(1, "EPYC-Milan", 1, "quiet");
    assert_eq!(after.0, after.1);
    assert_ne!(before.0, after.0);
}

#[test]
fn the_oracle_verifies_certificates_and_report() {
    let now = SystemTime::now();
    // Half of AMD's key length, so that the test stays fast.
    let all = Authorities::generate(Product::Milan, 2048, now).unwrap();
    let tcb = Tcb::default();
    let launch = snp::Launch {
        measurement: [1; 48],
        host_data: [2; 32],
        report_id: [3; 32],
        ..snp::Launch::default()
    };
    let chip = || Chip::new(Product::Milan, [9; SECRET]);
    let report = |faults| {
        let processor = Processor::launch(chip(), launch.clone(), faults, &all, now).unwrap();
        processor.answer(&Call::Report([0; 96])).message[32..].to_vec()
    };
    let vcek = all.ask.endorse(&chip(), &Endorsement::new(KeyKind::Vcek, tcb, now)).unwrap();
    let vcek = vcek.to_der().unwrap();
    let chain = || Chain {
        ca: ca::Chain {
            ark: Certificate::from_der(&all.ark_certificate.to_der().unwrap()).unwrap(),
            ask: Certificate::from_der(&all.ask_certificate.to_der().unwrap()).unwrap(),
        },
        vek: Certificate::from_der(&vcek).unwrap(),
    };
    assert!(chain().verify().is_ok(), "{:?}", chain().verify().err());

    let honest = report(Vec::new());
    let read = AttestationReport::from_bytes(honest[..].try_into().unwrap()).unwrap();
    assert_eq!(read.version, 3);
    assert_eq!(read.measurement, [1; 48]);
    assert_eq!(read.host_data, [2; 32]);
    assert_eq!(
        (read.reported_tcb.bootloader, read.reported_tcb.snp, read.reported_tcb.microcode),
        (4, 24, 219)
    );
    assert_eq!(read.chip_id, chip().id());
    assert!((&chain(), &read).verify().is_ok());

    let processor = Processor::launch(chip(), launch.clone(), Vec::new(), &all, now).unwrap();
    let mut table = processor.answer(&Call::ExtendedReport([0; 96], 4)).certificates;
    let entries = CertTableEntry::vec_bytes_to_cert_table(&mut table).unwrap();
    let kinds: Vec<_> = entries.iter().map(|entry| entry.cert_type.clone()).collect();
    assert_eq!(kinds, [CertType::ARK, CertType::ASK, CertType::VCEK, CertType::CRL]);
    assert_eq!(entries[0].data, all.ark_certificate.to_der().unwrap());

    let forged = report(vec![Fault::signature()]);
    let forged = AttestationReport::from_bytes(forged[..].try_into().unwrap()).unwrap();
    assert!((&chain(), &forged).verify().is_err());
}

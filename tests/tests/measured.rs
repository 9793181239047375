//! The launch digest of the guest that the demo boots: the owner's, the emulated processor's and an independent
//! implementation's are one.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::PathBuf;
use std::process::Command;

use launcher::DEFAULT_APPEND;
use sealpod_tests::installation::Installation;
use sealpod_tests::process::Finished;
use sev::measurement::snp::{SnpMeasurementArgs, snp_calc_launch_digest};
use sev::measurement::vcpu_types::CpuType;
use sev::measurement::vmsa::{GuestFeatures, VMMType};

const VCPUS: u32 = 2;

struct Files {
    installation: Installation,
    directory: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        Self { installation: Installation::find().unwrap(), directory: tempfile::tempdir().unwrap() }
    }

    fn guest(&self, name: &str) -> PathBuf {
        self.installation.guest_file(name)
    }

    fn owners(&self) -> String {
        let (manifest, output) =
            (self.directory.path().join("guest.toml"), self.directory.path().join("m.json"));
        let text = format!(
            "firmware = {:?}\nkernel = {:?}\ninitrd = {:?}\nvcpus = {VCPUS}\ncpu_model = \"EPYC-Milan\"\n\
             [platform]\nkind = \"snp\"\n",
            self.guest("firmware.fd"),
            self.guest("bzImage"),
            self.guest("initrd-production.img"),
        );
        std::fs::write(&manifest, text).unwrap();
        let mut command = Command::new(self.installation.binary("sealpod"));
        command.arg("measure").arg("--guest").arg(&manifest).arg("--output").arg(&output);
        Finished::of(&mut command).unwrap().success("sealpod measure").unwrap();
        let measurement: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&output).unwrap()).unwrap();
        measurement["launch_digest"].as_str().unwrap().to_owned()
    }

    fn emulators(&self) -> String {
        let append = self.directory.path().join("append");
        std::fs::write(&append, DEFAULT_APPEND).unwrap();
        let mut command = Command::new(self.installation.binary("sealpod-emulator"));
        command.arg("measure").arg("--append-file").arg(append).args(["--cpu-model", "EPYC-Milan"]);
        command.arg("--vcpus").arg(VCPUS.to_string());
        for (flag, name) in
            [("--firmware", "firmware.fd"), ("--kernel", "bzImage"), ("--initrd", "initrd-production.img")]
        {
            command.arg(flag).arg(self.guest(name));
        }
        let printed = Finished::of(&mut command).unwrap().success("sealpod-emulator measure").unwrap();
        printed.trim().to_owned()
    }

    fn independent(&self) -> String {
        let digest = snp_calc_launch_digest(SnpMeasurementArgs {
            vcpus: VCPUS,
            vcpu_type: CpuType::EpycMilan,
            ovmf_file: self.guest("firmware.fd"),
            guest_features: GuestFeatures(1),
            kernel_file: Some(self.guest("bzImage")),
            initrd_file: Some(self.guest("initrd-production.img")),
            append: Some(DEFAULT_APPEND),
            ovmf_hash_str: None,
            vmm_type: Some(VMMType::QEMU),
        });
        digest.unwrap().get_hex_ld()
    }
}

#[test]
fn owner_processor_and_an_independent_implementation_agree() {
    let files = Files::new();
    let owners = files.owners();
    assert_eq!(owners.len(), 96);
    assert_eq!(owners, files.emulators());
    assert_eq!(owners, files.independent());
}

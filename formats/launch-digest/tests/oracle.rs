//! Our digests against the `sev` crate's and against published values. The firmware comes from the
//! shared vectors; a synthetic one, made here, stands in where they are absent and for odd layouts.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::io::Write;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use launch_digest::{
    CpuModel, GUEST_FEATURES_DEBUG_SWAP, GUEST_FEATURES_SNP, Kernel, Launch, LaunchError, sev, sev_es, snp,
};
use sev::measurement::ovmf::OVMF;
use sev::measurement::sev_hashes::SevHashes;
use sev::measurement::snp::{SnpMeasurementArgs, snp_calc_launch_digest};
use sev::measurement::vcpu_types::CpuType;
use sev::measurement::vmsa::{GuestFeatures, VMMType, VMSA};
use sha2::{Digest, Sha256};

mod firmware;

fn vectors() -> Option<PathBuf> {
    let root = std::env::var_os("SEALPOD_VECTORS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/vectors"), PathBuf::from);
    if !root.is_dir() {
        println!("skipped: no vectors");
        return None;
    }
    Some(root)
}

fn launch<'a>(
    firmware: &'a [u8],
    kernel: Option<Kernel<'a>>,
    vcpus: u32,
    cpu: &str,
    features: u64,
) -> Launch<'a> {
    Launch { firmware, kernel, vcpus, cpu: cpu.parse().unwrap(), guest_features: features }
}

/// The same through the `sev` crate, which wants files.
fn theirs(launch: &Launch<'_>) -> Option<String> {
    let file = |bytes: &[u8]| {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        file
    };
    let firmware = file(launch.firmware);
    let kernel = launch.kernel.map(|kernel| file(kernel.kernel));
    let initrd = launch.kernel.filter(|k| !k.initrd.is_empty()).map(|kernel| file(kernel.initrd));
    let path = |file: &tempfile::NamedTempFile| file.path().to_path_buf();
    snp_calc_launch_digest(SnpMeasurementArgs {
        vcpus: launch.vcpus,
        vcpu_type: CpuType::try_from(launch.cpu.name()).unwrap(),
        ovmf_file: path(&firmware),
        guest_features: GuestFeatures(launch.guest_features),
        kernel_file: kernel.as_ref().map(path),
        initrd_file: initrd.as_ref().map(path),
        append: launch.kernel.map(|kernel| kernel.cmdline),
        ovmf_hash_str: None,
        vmm_type: None,
    })
    .ok()
    .map(|digest| digest.get_hex_ld())
}

const KERNELS: [Kernel<'static>; 4] = [
    Kernel { kernel: b"kernel", initrd: b"initrd", cmdline: "console=ttyS0 loglevel=7" },
    Kernel { kernel: b"kernel", initrd: b"", cmdline: "" },
    Kernel { kernel: b"", initrd: b"initrd", cmdline: "a" },
    Kernel { kernel: &[7; 9000], initrd: &[8; 5000], cmdline: "panic=-1  two=spaces" },
];

/// SEV and SEV-ES out of the same crate's parts: its own functions for them want OpenSSL.
fn theirs_legacy(launch: &Launch<'_>, es: bool) -> Option<String> {
    let file = |bytes: &[u8]| {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        file
    };
    let firmware = file(launch.firmware);
    let ovmf = OVMF::new(firmware.path().to_path_buf()).ok()?;
    let mut digest = Sha256::new().chain_update(ovmf.data());
    if let Some(kernel) = &launch.kernel {
        let image = file(kernel.kernel);
        let initrd = Some(kernel.initrd).filter(|initrd| !initrd.is_empty()).map(file);
        let initrd = initrd.as_ref().map(|file| file.path().to_path_buf());
        let hashes = SevHashes::new(image.path().to_path_buf(), initrd, Some(kernel.cmdline)).ok()?;
        digest.update(hashes.construct_table().ok()?);
    }
    if es {
        let cpu = CpuType::try_from(launch.cpu.name()).unwrap();
        let eip = ovmf.sev_es_reset_eip().ok()?.into();
        let vmsa = VMSA::new(eip, cpu, VMMType::QEMU, Some(launch.vcpus.into()), GuestFeatures(0));
        vmsa.pages(launch.vcpus as usize).ok()?.iter().for_each(|page| digest.update(page));
    }
    Some(hex::encode(digest.finalize()))
}

fn agree_on(firmware: &[u8]) {
    for kernel in [None].into_iter().chain(KERNELS.map(Some)) {
        for (vcpus, cpu, features) in [
            (1, "EPYC-v4", GUEST_FEATURES_SNP),
            (4, "EPYC-Milan", GUEST_FEATURES_SNP | GUEST_FEATURES_DEBUG_SWAP),
            (2, "EPYC-Genoa-v1", GUEST_FEATURES_SNP),
            (64, "EPYC-Turin", GUEST_FEATURES_SNP),
        ] {
            let launch = launch(firmware, kernel, vcpus, cpu, features);
            assert_eq!(Some(hex::encode(snp(&launch).unwrap())), theirs(&launch), "{cpu} x {vcpus}");
            assert_eq!(Some(hex::encode(sev(&launch).unwrap())), theirs_legacy(&launch, false), "sev");
            assert_eq!(
                Some(hex::encode(sev_es(&launch).unwrap())),
                theirs_legacy(&launch, true),
                "{cpu} x {vcpus}"
            );
        }
    }
}

#[test]
fn snp_digests_of_the_real_firmware_are_the_sev_crates() {
    let Some(root) = vectors() else { return };
    agree_on(&std::fs::read(root.join("snp/measurement/ovmf_AmdSev_suffix.bin")).unwrap());
}

#[test]
fn snp_digests_of_a_synthetic_firmware_are_the_sev_crates() {
    agree_on(&firmware::Builder::default().build());
    agree_on(&firmware::Builder { pages: 3, hash_table: (0x0080_ef50, 176), ..Default::default() }.build());
}

/// The emulated launch measures a file of its own; whoever has one can check it here.
#[test]
fn snp_digests_of_a_given_firmware_are_the_sev_crates() {
    match std::env::var_os("SEALPOD_FIRMWARE") {
        Some(path) => agree_on(&std::fs::read(path).unwrap()),
        None => println!("skipped: SEALPOD_FIRMWARE names no firmware file"),
    }
}

#[test]
fn firmware_without_direct_boot_is_measured_without_a_kernel_only() {
    let Some(root) = vectors() else { return };
    let firmware = std::fs::read(root.join("snp/measurement/ovmf_OvmfX64_suffix.bin")).unwrap();
    let bare = launch(&firmware, None, 1, "EPYC-v4", 1);
    assert_eq!(Some(hex::encode(snp(&bare).unwrap())), theirs(&bare));
    let direct = launch(&firmware, Some(KERNELS[0]), 1, "EPYC-v4", 1);
    for refused in [snp(&direct).err(), sev(&direct).err(), sev_es(&direct).err()] {
        assert!(matches!(refused, Some(LaunchError::NoKernelHashes(_))), "{refused:?}");
    }
}

/// Published for the AmdSev suffix: AMD's and QEMU's tools agree on them.
#[test]
fn digests_are_the_published_ones() {
    let Some(root) = vectors() else { return };
    let firmware = std::fs::read(root.join("snp/measurement/ovmf_AmdSev_suffix.bin")).unwrap();
    let no_files = Kernel { kernel: b"", initrd: b"", cmdline: "console=ttyS0 loglevel=7" };
    let bare = Kernel { cmdline: "", ..no_files };
    for (kernel, vcpus, features, expected) in [
        (
            Some(no_files),
            1,
            0x1,
            "6d287813eb5222d770f75005c664e34c204f385ce832cc2ce7d0d6f354454362f390ef83a92046c042e706363b4b08fa",
        ),
        (
            Some(no_files),
            1,
            0x21,
            "803f691094946e42068aaa3a8f9e26a5c89f36f7b73ecfb28c653360fe4b3aba7e534442e7e1e17895dfe778d0228977",
        ),
        (
            None,
            1,
            0x1,
            "19358ba9a7615534a9a1e2f0dfc29384dcd4dcb7062ff9c6013b26869a5fc6ecabe033c48dd6f6db5d6d76e7c5df632d",
        ),
        (
            Some(bare),
            4,
            0x1,
            "5061fffb019493a903613d56d54b94912a1a2f9e4502385f5c194616753720a92441310ba6c4933de877c36e23046ad5",
        ),
    ] {
        let launch = launch(&firmware, kernel, vcpus, "EPYC-v4", features);
        assert_eq!(hex::encode(snp(&launch).unwrap()), expected);
    }
    let es = launch(&firmware, Some(bare), 1, "EPYC-v4", 0);
    assert_eq!(
        hex::encode(sev_es(&es).unwrap()),
        "13810ae661ea11e2bb205621f582fee268f0367c8f97bc297b7fadef3e12002c"
    );
    let es = launch(&firmware, Some(bare), 4, "EPYC-v4", 0);
    assert_eq!(
        hex::encode(sev_es(&es).unwrap()),
        "0dccbcaba8e90b261bd0d2e1863a2f9da714768b7b2a19363cd6ae35aa90de91"
    );
    let plain = launch(&firmware, Some(no_files), 1, "EPYC-v4", 0);
    assert_eq!(
        hex::encode(sev(&plain).unwrap()),
        "82a3ee5d537c3620628270c292ae30cb40c3c878666a7890ee7ef2a08fb535ff"
    );
    let bare = launch(&firmware, Some(bare), 1, "EPYC-v4", 0);
    assert_eq!(
        hex::encode(sev(&bare).unwrap()),
        "77f613d7bbcdf12a73782ea9e88b0172aeda50d1a54201cb903594ff52846898"
    );
}

/// LAUNCH_MEASURE as the secure processor computes it over a launch digest.
fn launch_measure(tik: &[u8], version: [u8; 3], policy: u32, digest: &[u8; 32], nonce: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(tik).unwrap();
    mac.update(&[4]);
    mac.update(&version);
    mac.update(&policy.to_le_bytes());
    mac.update(digest);
    mac.update(nonce);
    STANDARD.encode([&mac.finalize().into_bytes()[..], nonce].concat())
}

#[test]
fn legacy_digests_give_the_measurements_that_sevctl_expects() {
    let Some(root) = vectors() else { return };
    let read = |name: &str| std::fs::read(root.join("sev-legacy/sevctl").join(name)).unwrap();
    let firmware = read("OVMF.amdsev.fd_trimmed_edk2-ovmf-20220126gitbb1bba3d77-4.el9");
    let tik = read("measurement/tik1.bin");
    let nonce = STANDARD.decode("wxP6tRHCFrFQWxsuqZA8QA==").unwrap();
    let measure = |digest: &[u8; 32]| launch_measure(&tik, [1, 40, 40], 3, digest, &nonce);
    let given: [u8; 32] =
        STANDARD.decode("xkvRAfyaSizgonxAjZIAkR8TmolUabBKQKb6KJCDDSM=").unwrap().try_into().unwrap();
    assert_eq!(measure(&given), "lswbxWxI9gckya16JQvdFtpYmNO4b+3inAPpqsgoBI7DE/q1EcIWsVBbGy6pkDxA");
    let bare = launch(&firmware, None, 1, "EPYC-v4", 0);
    assert_eq!(
        measure(&sev(&bare).unwrap()),
        "oMDewIouJSpbpNRHj7Mk3p08H2dPZQdsZMU14qIymBnDE/q1EcIWsVBbGy6pkDxA"
    );
    let (kernel, initrd) = (read("measurement/vmlinuz-fake"), read("measurement/initrd-fake"));
    let kernel = Kernel { kernel: &kernel, initrd: &initrd, cmdline: "foo bar baz fake kernel=cmdline" };
    let direct = launch(&firmware, Some(kernel), 1, "EPYC-v4", 0);
    assert_eq!(
        measure(&sev(&direct).unwrap()),
        "h3auYbWQnVW7EGLWN4Hf9SN0oEYMPU2sK4bLnefWPwvDE/q1EcIWsVBbGy6pkDxA"
    );
    let without_initrd = launch(&firmware, Some(Kernel { initrd: b"", ..kernel }), 1, "EPYC-v4", 0);
    assert_ne!(sev(&without_initrd).unwrap(), sev(&direct).unwrap());
}

/// The dumped register states are from a Milan host whose KVM left the FPU's part zero; later ones fill
/// in MXCSR and the x87 control word, as QEMU's and AMD's tools expect now.
#[test]
fn vcpu_states_are_the_dumped_ones() {
    let Some(root) = vectors() else { return };
    let read = |name: &str| std::fs::read(root.join("sev-legacy/sevctl").join(name)).unwrap();
    let firmware = read("OVMF.amdsev.fd_trimmed_edk2-ovmf-20220126gitbb1bba3d77-4.el9");
    let digest = |first: &[u8], other: &[u8]| -> [u8; 32] {
        let other = other.repeat(3);
        Sha256::new().chain_update(&firmware).chain_update(first).chain_update(other).finalize().into()
    };
    let (mut first, mut other) = (read("vmsa0.bin"), read("vmsa1.bin"));
    let nonce = STANDARD.decode("/o0nzDKE5XgtVnUZWPhUea/WZYrTKLExR7KCwuMdbActvpWfXTFk21KMZIAAhQny").unwrap();
    let tik = read("measurement/tik1.bin");
    let measurement = launch_measure(&tik, [1, 49, 6], 5, &digest(&first, &other), &nonce[32..]);
    assert_eq!(measurement, "/o0nzDKE5XgtVnUZWPhUea/WZYrTKLExR7KCwuMdbActvpWfXTFk21KMZIAAhQny");
    for page in [&mut first, &mut other] {
        page[0x408..0x40a].copy_from_slice(&0x1f80_u16.to_le_bytes());
        page[0x410..0x412].copy_from_slice(&0x037f_u16.to_le_bytes());
    }
    let cpu = CpuModel::from_cpuid(0x19, 1, 1);
    let ours = Launch { firmware: &firmware, kernel: None, vcpus: 4, cpu, guest_features: 0 };
    let expected = digest(&first, &other);
    assert_eq!(sev_es(&ours).unwrap(), expected);
    for wrong in [Launch { vcpus: 5, ..ours }, Launch { vcpus: 3, ..ours }] {
        assert_ne!(sev_es(&wrong).unwrap(), expected);
    }
}

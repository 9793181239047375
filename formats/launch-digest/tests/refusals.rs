//! Firmware images in which one thing is wrong, and bytes that are no image at all.

#![expect(clippy::unwrap_used, reason = "a test")]

use launch_digest::{Firmware, FirmwareError, Kernel, Launch, LaunchError, MAX_VCPUS, sev, sev_es, snp};
use proptest::prelude::*;

mod firmware;
use firmware::{Builder, METADATA, RESET_BLOCK};

const KERNEL: Kernel<'static> = Kernel { kernel: b"k", initrd: b"i", cmdline: "c" };

fn launch(firmware: &[u8]) -> Launch<'_> {
    Launch { firmware, kernel: Some(KERNEL), vcpus: 1, cpu: "EPYC-v4".parse().unwrap(), guest_features: 1 }
}

fn refused(builder: &Builder) -> LaunchError {
    snp(&launch(&builder.build())).unwrap_err()
}

#[test]
fn the_unbroken_image_is_measured_and_each_input_counts() {
    let image = Builder::default().build();
    let good = launch(&image);
    let digest = snp(&good).unwrap();
    assert_eq!(Firmware::parse(&image).unwrap().secret_area().unwrap().base, 0x0080_d000);
    for other in [
        Launch { kernel: None, ..good },
        Launch { kernel: Some(Kernel { initrd: b"j", ..KERNEL }), ..good },
        Launch { kernel: Some(Kernel { cmdline: "d", ..KERNEL }), ..good },
        Launch { vcpus: 2, ..good },
        Launch { cpu: "EPYC-Milan".parse().unwrap(), ..good },
        Launch { guest_features: 0x21, ..good },
    ] {
        assert_ne!(snp(&other).unwrap(), digest);
    }
    let mut changed = image.clone();
    changed[0] ^= 1;
    assert_ne!(snp(&launch(&changed)).unwrap(), digest);
}

#[test]
fn an_image_without_the_table_is_refused() {
    let mut image = Builder::default().build();
    let at = image.len() - 33;
    image[at] ^= 1;
    assert_eq!(snp(&launch(&image)), Err(FirmwareError::NoTable.into()));
    assert_eq!(snp(&launch(&[0; 49])), Err(FirmwareError::Size(49).into()));
    assert_eq!(snp(&launch(&[0; 4096])), Err(FirmwareError::NoTable.into()));
    assert_eq!(snp(&launch(&[])), Err(FirmwareError::Size(0).into()));
    let unaligned = [&[0; 100][..], &Builder::default().build()].concat();
    assert_eq!(snp(&launch(&unaligned)), Err(FirmwareError::NotPages(4196).into()));
    assert!(sev(&launch(&unaligned)).is_ok());
}

#[test]
fn entries_of_the_table_must_fit() {
    let image = Builder::default().build();
    let footer = image.len() - 32 - 18;
    for length in [0u16, 17, u16::MAX] {
        let mut image = image.clone();
        image[footer..footer + 2].copy_from_slice(&length.to_le_bytes());
        assert!(matches!(Firmware::parse(&image), Err(FirmwareError::Entry(_))), "footer {length}");
    }
    let entry = footer - 18;
    for length in [0u16, 17, 21, 500, u16::MAX] {
        let mut image = image.clone();
        image[entry..entry + 2].copy_from_slice(&length.to_le_bytes());
        assert!(matches!(Firmware::parse(&image), Err(FirmwareError::Entry(_))), "entry {length}");
    }
    let twice = Builder { more: vec![(METADATA, vec![0; 4])], ..Default::default() };
    assert!(matches!(refused(&twice), LaunchError::Firmware(FirmwareError::Duplicate(_))));
    let short = Builder { reset_eip: None, more: vec![(RESET_BLOCK, vec![1, 2, 3])], ..Default::default() };
    assert!(matches!(refused(&short), LaunchError::Firmware(FirmwareError::Entry(_))));
}

#[test]
fn a_kernel_that_would_not_be_measured_is_refused() {
    for hash_table in [(0, 0), (0, 0x400), (0x0080_ec00, 0), (0x0080_ec00, 175)] {
        let error = refused(&Builder { hash_table, ..Default::default() });
        assert_eq!(error, LaunchError::NoKernelHashes("its area is empty or too small"));
    }
    let outside = Builder { hash_table: (0x0080_fc00, 0x400), ..Default::default() };
    assert_eq!(refused(&outside), LaunchError::NoKernelHashes("its area is outside the measured page"));
    let crossing = Builder { hash_table: (0x0080_ef51, 0x400), ..Default::default() };
    assert_eq!(refused(&crossing), LaunchError::NoKernelHashes("its area crosses a page"));
    let mut unmeasured = Builder::default();
    unmeasured.sections.retain(|section| section.2 != 0x10);
    assert_eq!(refused(&unmeasured), LaunchError::NoKernelHashes("no metadata section measures it"));
}

#[test]
fn broken_metadata_are_refused() {
    let builder = |header| Builder { header, ..Default::default() };
    for header in [
        (*b"ASEW", None, 1, None),
        (*b"ASEV", Some(87), 1, None),
        (*b"ASEV", Some(0), 1, None),
        (*b"ASEV", None, 2, None),
        (*b"ASEV", None, 0, None),
        (*b"ASEV", None, 1, Some(7)),
        (*b"ASEV", Some(u32::MAX), 1, Some(u32::MAX)),
    ] {
        let error = refused(&builder(header));
        assert!(matches!(error, LaunchError::Firmware(FirmwareError::Metadata(_))), "{header:?}: {error}");
    }
    // Inside the limits, but over the end of the image.
    let over = Builder {
        header: (*b"ASEV", Some(u32::MAX), 1, Some(64)),
        metadata_from_end: 1024,
        ..Default::default()
    };
    assert!(matches!(refused(&over), LaunchError::Firmware(_)));
    for from_end in [0, 15, 4097, u32::MAX] {
        let error = refused(&Builder { metadata_from_end: from_end, ..Default::default() });
        assert!(matches!(error, LaunchError::Firmware(_)), "{from_end}: {error}");
    }
}

#[test]
fn sections_that_cannot_be_measured_are_refused() {
    for section in [
        (0x0080_0001, 0x1000, 1),
        (0x0080_0000, 0x1001, 1),
        (0x0080_0000, 0, 1),
        (0x0080_0000, 0xffff_f000, 1),
        (0xffff_f000, 0x2000, 1),
        (0x0080_0000, 0x1000, 0),
        (0x0080_0000, 0x1000, 5),
        (0x0080_0000, 0x1000, 0x110),
        (0x0080_0000, 0x2000, 2),
        (0x0080_0000, 0x2000, 3),
        (0x0080_e000, 0x2000, 0x10),
    ] {
        let mut builder = Builder::default();
        builder.sections.insert(0, section);
        let error = refused(&builder);
        assert!(
            matches!(error, LaunchError::Firmware(FirmwareError::Section { index: 0, .. })),
            "{section:x?}: {error}"
        );
    }
}

#[test]
fn vcpus_and_reset_block_must_be_there() {
    let image = Builder::default().build();
    for vcpus in [0, MAX_VCPUS + 1, u32::MAX] {
        assert_eq!(snp(&Launch { vcpus, ..launch(&image) }), Err(LaunchError::Vcpus(vcpus)));
        assert_eq!(sev_es(&Launch { vcpus, ..launch(&image) }), Err(LaunchError::Vcpus(vcpus)));
    }
    for reset_eip in [None, Some(0)] {
        assert_eq!(refused(&Builder { reset_eip, ..Default::default() }), LaunchError::NoResetBlock);
    }
    let mut renamed = image.clone();
    let at = image.windows(4).position(|bytes| bytes == [0x66, 0x65, 0x88, 0xdc]).unwrap();
    renamed[at] ^= 1;
    assert_eq!(snp(&launch(&renamed)), Err(LaunchError::NoMetadata));
    assert!(sev_es(&launch(&renamed)).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = snp(&launch(&bytes));
        let _ = sev_es(&launch(&bytes));
    }

    #[test]
    fn a_changed_byte_in_table_or_metadata_never_panics(at in 3072usize..4096, byte in any::<u8>()) {
        let mut image = Builder::default().build();
        image[at] = byte;
        // The kernel-hash area may move, so only the first part is of interest here.
        let _ = Firmware::parse(&image);
        let _ = sev_es(&launch(&image));
    }
}

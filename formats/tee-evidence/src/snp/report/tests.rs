//! Reports field by field, and broken ones.

use super::*;
use proptest::prelude::*;
use std::path::PathBuf;

/// Real reports of the shared vectors, if they are there.
pub(crate) fn vectors() -> Vec<(String, Vec<u8>)> {
    let root = std::env::var_os("SEALPOD_VECTORS").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/vectors"),
        PathBuf::from,
    );
    let Ok(dir) = std::fs::read_dir(root.join("snp")) else {
        println!("skipped: no vectors");
        return Vec::new();
    };
    dir.filter_map(|entry| {
        let path = entry.ok()?.path().join("report.bin");
        Some((path.display().to_string(), std::fs::read(path).ok()?))
    })
    .collect()
}

/// A report in which every field has bytes of its own.
pub(crate) fn sample(version: u32) -> Report {
    Report {
        version,
        guest_svn: 3,
        policy: GuestPolicy(0x3_0000),
        family_id: [4; 16],
        image_id: [5; 16],
        vmpl: 0,
        signature_algo: 1,
        current_tcb: RawTcb([4, 1, 0, 0, 0, 0, 24, 220]),
        platform_info: PlatformInfo(0x25),
        key_info: KeyInfo(0),
        report_data: [6; 64],
        measurement: [7; 48],
        host_data: [8; 32],
        id_key_digest: [9; 48],
        author_key_digest: [10; 48],
        report_id: [11; 32],
        report_id_ma: [0xff; 32],
        reported_tcb: RawTcb([4, 0, 0, 0, 0, 0, 24, 219]),
        cpuid: (version >= 3).then_some(Cpuid { family: 0x19, model: 1, stepping: 1 }),
        chip_id: [12; 64],
        committed_tcb: RawTcb([4, 0, 0, 0, 0, 0, 24, 218]),
        current_version: FirmwareVersion { major: 1, minor: 55, build: 30 },
        committed_version: FirmwareVersion { major: 1, minor: 55, build: 29 },
        launch_tcb: RawTcb([4, 0, 0, 0, 0, 0, 24, 217]),
        mitigations: (version >= 5).then_some(MitigationVectors { launch: 13, current: 14 }),
        signature: Signature { r: [15; 72], s: [16; 72] },
    }
}

#[test]
fn every_version_round_trips() {
    for version in 2..=5 {
        let report = sample(version);
        let raw = report.encode();
        assert_eq!(Report::from_raw(&raw), Ok(report));
        assert_eq!(Report::from_raw(&raw).unwrap().encode(), raw);
    }
}

#[test]
fn fields_stand_where_the_specification_says() {
    let raw = sample(5).encode();
    let bytes = raw.as_bytes();
    for (at, byte) in [
        (0x50, 6),
        (0x90, 7),
        (0xc0, 8),
        (0xe0, 9),
        (0x110, 10),
        (0x140, 11),
        (0x160, 0xff),
        (0x188, 0x19),
        (0x1a0, 12),
        (0x1e8, 30),
        (0x1ea, 1),
        (0x1ec, 29),
        (0x1f8, 13),
        (0x200, 14),
        (0x2a0, 15),
        (0x2e8, 16),
    ] {
        assert_eq!(bytes[at], byte, "{at:#x}");
    }
    assert_eq!(raw.signed().len(), 0x2a0);
}

#[test]
fn other_versions_and_lengths_are_refused() {
    for version in [0, 1, 6, 7, 0x0200_0000, u32::MAX] {
        let mut bytes = *sample(2).encode().as_bytes();
        bytes[..4].copy_from_slice(&version.to_le_bytes());
        assert_eq!(Report::parse(&bytes), Err(ReportError::Version(version)));
    }
    let bytes = *sample(2).encode().as_bytes();
    assert_eq!(Report::parse(&bytes[..1183]), Err(ReportError::Length(1183)));
    assert_eq!(Report::parse(&[&bytes[..], &[0]].concat()), Err(ReportError::Length(1185)));
    assert_eq!(Report::parse(&[]), Err(ReportError::Length(0)));
}

#[test]
fn each_reserved_byte_must_be_zero() {
    for version in 2..=5u32 {
        let mut reserved: Vec<usize> = (0x4c..0x50).chain(0x18b..0x1a0).chain([0x1eb, 0x1ef]).collect();
        reserved.extend(0x208..0x2a0);
        reserved.extend(0x330..0x4a0);
        if version < 3 {
            reserved.extend(0x188..0x18b);
        }
        if version < 5 {
            reserved.extend(0x1f8..0x208);
        }
        for at in reserved {
            let mut bytes = *sample(version).encode().as_bytes();
            bytes[at] = 1;
            let error = Report::parse(&bytes).unwrap_err();
            assert!(matches!(error, ReportError::Layout(_)), "version {version}, {at:#x}: {error}");
        }
    }
}

#[test]
fn signatures_convert_and_large_values_do_not() {
    let mut fixed = [0; 96];
    for (n, byte) in fixed.iter_mut().enumerate() {
        *byte = n as u8;
    }
    let signature = Signature::from_fixed(&fixed);
    assert_eq!(signature.r[0], 47);
    assert_eq!(signature.s[0], 95);
    assert_eq!(signature.to_fixed(), Some(fixed));
    for at in 48..72 {
        let mut large = signature;
        large.r[at] = 1;
        assert_eq!(large.to_fixed(), None);
        let mut large = signature;
        large.s[at] = 1;
        assert_eq!(large.to_fixed(), None);
    }
}

#[test]
fn real_reports_are_read_and_written_unchanged() {
    for (name, bytes) in vectors() {
        let report = Report::parse(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(report.encode().as_bytes()[..], bytes[..], "{name}");
        assert!(report.version == 2 || report.product().is_some(), "{name}");
    }
}

proptest! {
    #[test]
    fn what_parses_is_written_unchanged(
        version in 2u32..6, at in 4usize..RawReport::LEN, byte in any::<u8>(),
    ) {
        let mut bytes = *sample(version).encode().as_bytes();
        bytes[at] = byte;
        if let Ok(report) = Report::parse(&bytes) {
            let raw = report.encode();
            prop_assert_eq!(raw.as_bytes(), &bytes);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), RawReport::LEN)) {
        let _ = Report::parse(&bytes);
    }
}

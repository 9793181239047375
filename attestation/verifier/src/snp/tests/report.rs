//! Reports in which one thing is wrong, under an unbroken chain and signed by the right key.

use ring::rand::SystemRandom;
use tee_evidence::snp::{
    Cpuid, GuestPolicy, KeyInfo, Product, RawReport, RawTcb, Signature, SigningKey, offset,
};

use super::synthetic::{Whose, World, ec_key, tcb};
use super::{refused, refused_in};
use crate::Check;

/// Changes raw bytes, signs them, and says what is found.
#[track_caller]
fn resigned(world: &World, change: impl FnOnce(&mut [u8])) -> crate::Denial {
    let mut bytes = *world.signed().as_bytes();
    change(&mut bytes);
    let mut raw = RawReport::from(bytes);
    let signature = world.signer.sign(&SystemRandom::new(), raw.signed()).unwrap();
    raw.set_signature(&Signature::from_fixed(&signature.as_ref().try_into().unwrap()));
    world.appraise(raw.as_bytes(), &world.chain()).unwrap_err()
}

#[test]
fn other_lengths_are_refused() {
    let world = World::milan();
    let bytes = *world.signed().as_bytes();
    for bytes in [&bytes[..1183], &[&bytes[..], &[0]].concat(), &[], &bytes[..0x2a0]] {
        assert_eq!(world.appraise(bytes, &world.chain()).unwrap_err().check, Check::Evidence);
    }
}

#[test]
fn other_versions_are_refused() {
    let world = World::milan();
    for version in [0u32, 1, 6, 7, 255, 0x0300_0000] {
        let denial = resigned(&world, |bytes| bytes[..4].copy_from_slice(&version.to_le_bytes()));
        assert_eq!(denial.check, Check::Evidence, "{version}");
    }
}

#[test]
fn reserved_bytes_are_refused() {
    for version in 2..=5 {
        let world = World::new(Whose::Amd, Product::Milan, SigningKey::Vcek, version);
        let mut reserved =
            vec![offset::RESERVED_04C, offset::RESERVED_18B, 0x19f, 0x1eb, 0x1ef, 0x208, 0x29f];
        if version == 2 {
            reserved.push(offset::CPUID);
        }
        if version < 5 {
            reserved.push(offset::LAUNCH_MIT_VECTOR);
        }
        for at in reserved {
            assert_eq!(resigned(&world, |bytes| bytes[at] = 1).check, Check::Evidence, "{version} {at:#x}");
        }
    }
}

#[test]
fn key_info_must_name_a_key_that_signs() {
    for algorithm in [0, 2, 0x101, u32::MAX] {
        refused(Check::Evidence, "algorithm", |world| world.report.signature_algo = algorithm);
    }
    for bits in [1 << 5, 1 << 31, 1 << 1, 2 << 2, 3 << 2, 4 << 2, 5 << 2, 6 << 2, 7 << 2] {
        refused(Check::Evidence, "key info", |world| world.report.key_info = KeyInfo(bits));
    }
    // A provider's key signs where the chip's own is masked.
    let mut vlek = World::new(Whose::Amd, Product::Genoa, SigningKey::Vlek, 5);
    vlek.report.key_info = KeyInfo(1 << 2 | 1 << 1);
    vlek.report.chip_id = [0; 64];
    vlek.grant().unwrap();
    refused(Check::Evidence, "author key", |world| world.report.author_key_digest[47] = 1);
}

#[test]
fn unknown_processors_are_refused() {
    for (family, model) in [(0x19, 0x20), (0x19, 0x60), (0x1a, 0x12), (0x1a, 0x50), (0x17, 1), (0, 0)] {
        refused(Check::Evidence, "cpuid", |world| {
            world.report.cpuid = Some(Cpuid { family, model, stepping: 0 });
        });
    }
    for (family, model) in [(0x19, 0x11), (0x1a, 2)] {
        refused(Check::Collateral, "another product's cpuid", |world| {
            world.report.cpuid = Some(Cpuid { family, model, stepping: 0 });
        });
    }
}

#[test]
fn signatures_that_are_not_canonical_are_refused() {
    let world = World::milan();
    let good = world.signed();
    let chain = world.chain();
    world.appraise(good.as_bytes(), &chain).unwrap();
    // The order of P-384, little-endian.
    let mut order = hex::decode(
        "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973",
    )
    .unwrap();
    order.reverse();
    for (at, half) in [(offset::SIGNATURE, "r"), (offset::SIGNATURE_S, "s")] {
        let with = |change: &dyn Fn(&mut [u8])| {
            let mut bytes = *good.as_bytes();
            change(&mut bytes[at..at + 72]);
            world.appraise(&bytes, &chain).unwrap_err()
        };
        // The same value plus the order verifies in libraries that reduce it first.
        let plus_order = with(&|field| {
            let mut carry = 0u16;
            for (n, byte) in field.iter_mut().enumerate() {
                let sum = u16::from(*byte) + u16::from(order.get(n).copied().unwrap_or(0)) + carry;
                *byte = sum as u8;
                carry = sum >> 8;
            }
        });
        let zero = with(&|field| field.fill(0));
        let is_order = with(&|field| field[..48].copy_from_slice(&order));
        let ones = with(&|field| field[..48].fill(0xff));
        let padded = with(&|field| field[48] = 1);
        let padded_end = with(&|field| field[71] = 0x80);
        for (denial, what) in [
            (plus_order, "plus the order"),
            (zero, "zero"),
            (is_order, "the order"),
            (ones, "all ones"),
            (padded, "49 bytes"),
            (padded_end, "72 bytes"),
        ] {
            assert_eq!(denial.check, Check::Signature, "{half} {what}: {denial}");
        }
    }
    for at in [offset::SIGNATURE_PADDING, 0x400, RawReport::LEN - 1] {
        let mut bytes = *good.as_bytes();
        bytes[at] = 1;
        assert_eq!(world.appraise(&bytes, &chain).unwrap_err().check, Check::Evidence, "{at:#x}");
    }
}

#[test]
fn signatures_by_another_key_or_over_other_bytes_are_refused() {
    refused(Check::Signature, "another key", |world| world.signer = ec_key());
    let world = World::milan();
    let chain = world.chain();
    for at in [offset::GUEST_SVN, offset::MEASUREMENT, offset::HOST_DATA, offset::REPORT_ID] {
        let mut bytes = *world.signed().as_bytes();
        bytes[at] ^= 1;
        assert_eq!(world.appraise(&bytes, &chain).unwrap_err().check, Check::Signature, "{at:#x}");
    }
    let raw = world.signed();
    let mut swapped = raw.clone();
    let report = tee_evidence::snp::Report::from_raw(&raw).unwrap();
    swapped.set_signature(&Signature { r: report.signature.s, s: report.signature.r });
    assert_eq!(world.appraise(swapped.as_bytes(), &chain).unwrap_err().check, Check::Signature);
}

#[test]
fn reports_of_another_session_are_refused() {
    refused(Check::Binding, "another nonce or key", |world| world.session.report_data[0] ^= 1);
    refused(Check::Binding, "last byte", |world| world.session.report_data[63] ^= 1);
    refused(Check::Binding, "nothing bound", |world| world.report.report_data = [0; 64]);
    refused(Check::HostData, "other init-data", |world| world.session.host_data[31] ^= 1);
    refused(Check::HostData, "no init-data at launch", |world| world.report.host_data = [0; 32]);
    refused(Check::HostData, "no init-data given", |world| world.session.host_data = [0; 32]);
}

#[test]
fn tcbs_that_can_be_rolled_back_are_refused() {
    for behind in [tcb(3, 5, 24, 219), tcb(4, 4, 24, 219), tcb(4, 5, 23, 219), tcb(4, 5, 24, 218)] {
        refused(Check::Tcb, "committed behind reported", |world| world.report.committed_tcb = behind);
        refused(Check::Tcb, "current behind committed", |world| world.report.current_tcb = behind);
    }
    // As one number this one would be larger.
    refused(Check::Tcb, "a newer microcode hides an older bootloader", |world| {
        world.report.committed_tcb = tcb(3, 5, 24, 255);
        world.report.current_tcb = tcb(4, 5, 24, 255);
    });
}

#[test]
fn tcbs_in_the_other_products_layout_are_refused() {
    let turin = RawTcb([1, 4, 5, 24, 0, 0, 0, 219]);
    refused(Check::Evidence, "reported", |world| world.report.reported_tcb = turin);
    refused(Check::Evidence, "committed", |world| world.report.committed_tcb = turin);
    refused(Check::Evidence, "current", |world| world.report.current_tcb = turin);
    refused(Check::Evidence, "launch", |world| world.report.launch_tcb = turin);
    let world = World::new(Whose::Amd, Product::Turin, SigningKey::Vcek, 5);
    refused_in(world, Check::Evidence, "Milan's layout in a Turin report", |world| {
        world.report.reported_tcb = tcb(4, 5, 24, 219);
    });
}

#[test]
fn policies_without_a_meaning_are_refused() {
    for bits in [0, 1 << 17 | 1 << 26, 1 << 17 | 1 << 63] {
        refused(Check::GuestPolicy, "policy", |world| world.report.policy = GuestPolicy(bits));
    }
}

#[test]
fn reports_that_the_host_asked_for_are_refused() {
    for vmpl in [4, 0xffff_ffff] {
        refused(Check::Vmpl, "vmpl", |world| {
            world.report.vmpl = vmpl;
            world.policy().vmpl = vmpl;
        });
    }
}

//! Certificates of the report-signing key that say one thing wrongly, or not at all.

use tee_evidence::snp::{Product, SigningKey};

use super::synthetic::{
    OID_BOOTLOADER, OID_CSP, OID_FMC, OID_HARDWARE_ID, OID_MICROCODE, OID_PRODUCT, OID_SNP, OID_STRUCTURE,
    OID_TEE, Whose, World, number, tcb, text, tlv,
};
use super::{refused, refused_in};
use crate::Check;

fn vlek() -> World {
    World::new(Whose::Amd, Product::Milan, SigningKey::Vlek, 3)
}

fn turin() -> World {
    World::new(Whose::Amd, Product::Turin, SigningKey::Vcek, 5)
}

#[test]
fn each_extension_must_be_there() {
    for oid in [OID_STRUCTURE, OID_PRODUCT, OID_BOOTLOADER, OID_TEE, OID_SNP, OID_MICROCODE, OID_HARDWARE_ID]
    {
        refused(Check::CertificateChain, oid, |world| world.vek.remove(oid));
    }
    for oid in [OID_STRUCTURE, OID_PRODUCT, OID_BOOTLOADER, OID_TEE, OID_SNP, OID_MICROCODE, OID_CSP] {
        refused_in(vlek(), Check::CertificateChain, oid, |world| world.vek.remove(oid));
    }
    refused_in(turin(), Check::CertificateChain, "fmc", |world| world.vek.remove(OID_FMC));
}

#[test]
fn each_component_must_be_the_reported_one() {
    for (oid, value) in [(OID_BOOTLOADER, 4), (OID_TEE, 5), (OID_SNP, 24), (OID_MICROCODE, 219)] {
        for wrong in [value - 1, value + 1, 0] {
            refused(Check::Collateral, oid, |world| world.vek.set(oid, false, number(wrong)));
            refused_in(vlek(), Check::Collateral, oid, |world| world.vek.set(oid, false, number(wrong)));
        }
    }
    refused_in(turin(), Check::Collateral, "fmc", |world| world.vek.set(OID_FMC, false, number(2)));
    refused(Check::Collateral, "certificate of an older TCB", |world| {
        world.report.reported_tcb = tcb(4, 5, 23, 219);
    });
}

#[test]
fn values_of_another_type_are_refused() {
    for value in [
        vec![2, 1, 0x80], // -128
        vec![2, 2, 0, 4], // not the shortest form
        vec![2, 2, 1, 4], // 260, whose low byte is right
        vec![4, 1, 4],    // not an integer
        vec![2, 1, 4, 0], // trailing byte
        vec![2, 1],       // cut off
        Vec::new(),
    ] {
        refused(Check::CertificateChain, "bootloader", |world| {
            world.vek.set(OID_BOOTLOADER, false, value);
        });
    }
    for value in [tlv(0x0c, b"Milan-B0"), text("Milano"), text("milan-B0"), text("Naples"), text(""), vec![]]
    {
        refused(Check::CertificateChain, "product", |world| world.vek.set(OID_PRODUCT, false, value));
    }
}

#[test]
fn values_without_a_meaning_are_refused() {
    refused(Check::CertificateChain, "a later structure", |world| {
        world.vek.set(OID_STRUCTURE, false, number(2));
    });
    for n in 4..=7 {
        let oid = format!("1.3.6.1.4.1.3704.1.3.{n}");
        refused(Check::CertificateChain, &oid, |world| world.vek.set(&oid, false, number(1)));
        let mut world = World::milan();
        world.vek.set(&oid, false, number(0));
        world.grant().unwrap();
    }
}

#[test]
fn another_products_certificate_is_refused() {
    refused(Check::Collateral, "Genoa's name", |world| world.vek.set(OID_PRODUCT, false, text("Genoa")));
    let version_2 = World::new(Whose::Amd, Product::Milan, SigningKey::Vcek, 2);
    refused_in(version_2, Check::CertificateChain, "no CPUID, but the root is Milan's", |world| {
        world.vek.set(OID_PRODUCT, false, text("Genoa"));
    });
    refused(Check::CertificateChain, "a Milan certificate with Turin's component", |world| {
        world.vek.set(OID_FMC, false, number(3));
    });
}

#[test]
fn the_chip_must_be_the_reports() {
    refused(Check::Collateral, "another chip", |world| world.report.chip_id[63] ^= 1);
    refused(Check::Collateral, "hidden chip", |world| world.report.chip_id = [0; 64]);
    refused(Check::Collateral, "hidden chip, zero hardware id", |world| {
        world.report.chip_id = [0; 64];
        world.vek.set(OID_HARDWARE_ID, false, vec![0; 64]);
    });
    for len in [0, 8, 63, 65] {
        refused(Check::CertificateChain, "length of the hardware id", |world| {
            world.vek.set(OID_HARDWARE_ID, false, vec![0xc1; len]);
        });
    }
    refused_in(turin(), Check::Collateral, "bytes after Turin's chip id", |world| {
        world.report.chip_id[8] = 1;
    });
    refused_in(turin(), Check::CertificateChain, "Milan's length", |world| {
        world.vek.set(OID_HARDWARE_ID, false, vec![0xc1; 64]);
    });
}

#[test]
fn a_vcek_is_no_vlek() {
    refused(Check::CertificateChain, "VCEK with a cloud provider", |world| {
        world.vek.set(OID_CSP, false, text("cloud.example"));
    });
    refused_in(vlek(), Check::CertificateChain, "VLEK with a hardware id", |world| {
        world.vek.set(OID_HARDWARE_ID, false, vec![0xc1; 64]);
    });
    let (vcek, vlek_) = (World::milan(), vlek());
    refused(Check::CertificateChain, "VCEK under ASVK", |world| {
        world.ask.subject.clone_from(&vlek_.ask.subject);
        world.vek.issuer.clone_from(&vlek_.vek.issuer);
    });
    refused_in(vlek(), Check::CertificateChain, "VLEK under ASK", |world| {
        world.ask.subject.clone_from(&vcek.ask.subject);
        world.vek.issuer.clone_from(&vcek.vek.issuer);
    });
    refused(Check::Collateral, "report says VLEK, certificate is a VCEK", |world| {
        world.report.key_info = vlek().report.key_info;
    });
    refused(Check::CertificateChain, "report says VLEK, and so does the table", |world| {
        world.report.key_info = vlek().report.key_info;
        world.vek_kind = vlek().vek_kind;
    });
    refused_in(vlek(), Check::Collateral, "report says VCEK, certificate is a VLEK", |world| {
        world.report.key_info = World::milan().report.key_info;
    });
}

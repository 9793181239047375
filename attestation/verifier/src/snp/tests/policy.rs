//! Genuine evidence against policies that one value of it does not match.

use tee_evidence::snp::{Cpuid, GuestPolicy, KeyInfo, Line, MitigationVectors, Product, SigningKey, Tcb};

use super::synthetic::{Whose, World};
use super::{refused, refused_in};
use crate::snp::SnpReference;
use crate::{Check, Claims, Grant, LaunchDigest, ReferenceValues, SnpClaims, TeeKind, Verdict};

#[test]
fn the_default_policy_allows_nothing() {
    refused(Check::TeeKind, "default", |world| world.reference = ReferenceValues::default());
}

#[test]
fn emulated_evidence_matches_emulated_policies_only() {
    let emulated = World::emulated;
    refused_in(emulated(), Check::TeeKind, "production policy", |world| {
        world.reference.tee = vec![TeeKind::Snp];
    });
    refused(Check::TeeKind, "policy for tests only", |world| {
        world.reference.tee = vec![TeeKind::SnpEmulated];
    });
    refused(Check::TeeKind, "no kind", |world| world.reference.tee.clear());
    for kind in TeeKind::ALL {
        assert_eq!(TeeKind::from_name(kind.name()), Some(kind));
        assert_eq!(kind.is_emulated(), kind.name().contains("emulated") || kind == TeeKind::Sample);
    }
    for name in ["", "SNP", "tdx", "sev es", "snp emulated"] {
        assert_eq!(TeeKind::from_name(name), None);
    }
}

#[test]
fn a_kind_without_its_section_is_refused() {
    refused(Check::TeeKind, "no section", |world| world.reference.snp = None);
}

#[test]
fn other_launch_digests_are_refused() {
    let list = |digest: [u8; 48]| vec![LaunchDigest { name: "x".into(), digest: digest.into() }];
    let mut near = [4; 48];
    near[47] = 5;
    refused(Check::LaunchDigest, "last byte", |world| world.reference.launch_digests = list(near));
    refused(Check::LaunchDigest, "prefix", |world| {
        world.reference.launch_digests[0].digest.truncate(32);
    });
    refused(Check::LaunchDigest, "empty", |world| world.reference.launch_digests[0].digest.clear());
    refused(Check::LaunchDigest, "no digest", |world| world.reference.launch_digests.clear());
    refused(Check::LaunchDigest, "another guest", |world| world.report.measurement[0] ^= 1);
    refused(Check::LaunchDigest, "zero in report and policy", |world| {
        world.report.measurement = [0; 48];
        world.reference.launch_digests = list([0; 48]);
    });
    let denial = {
        let mut world = World::milan();
        world.reference.launch_digests = list(near);
        world.grant().unwrap_err()
    };
    assert!(denial.detail.contains(&"04".repeat(48)), "{denial}");
    assert!(denial.detail.contains("(1 allowed); run 'sealpod measure'"), "{denial}");
}

#[test]
fn weaker_guest_policies_are_refused() {
    type Allow = fn(&mut SnpReference);
    let bits: [(u32, Allow); 3] = [
        (19, |reference| reference.allow_debug = true),
        (18, |reference| reference.allow_migrate_ma = true),
        (16, |reference| reference.allow_smt = true),
    ];
    for (bit, allow) in bits {
        let set = |world: &mut World| world.report.policy = GuestPolicy(1 << 17 | 1 << bit);
        refused(Check::GuestPolicy, &format!("bit {bit}"), set);
        let mut world = World::milan();
        set(&mut world);
        allow(world.policy());
        world.grant().unwrap();
    }
}

#[test]
fn another_privilege_level_is_refused() {
    refused(Check::Vmpl, "asked at 1", |world| world.report.vmpl = 1);
    refused(Check::Vmpl, "expected at 2", |world| world.policy().vmpl = 2);
    let mut world = World::milan();
    (world.report.vmpl, world.policy().vmpl) = (2, 2);
    world.grant().unwrap();
}

fn snp(verdict: &mut Verdict) -> &mut SnpClaims {
    match &mut verdict.claims {
        Claims::Snp(claims) => claims,
        other => panic!("{other:?}"),
    }
}

/// Each of the three TCBs, each component, alone below its minimum.
#[test]
fn tcbs_below_the_minimum_are_refused() {
    for product in [Product::Milan, Product::Turin] {
        let world = World::new(Whose::Amd, product, SigningKey::Vcek, 3);
        let appraised = world.appraise(world.signed().as_bytes(), &world.chain()).unwrap();
        let verdict = appraised.verdict().clone();
        let minimum = world.reference.snp.as_ref().unwrap().minimum_tcb;
        let components: [fn(&mut Tcb) -> &mut u8; 4] =
            [|tcb| &mut tcb.bootloader, |tcb| &mut tcb.tee, |tcb| &mut tcb.snp, |tcb| &mut tcb.microcode];
        for component in components {
            for which in 0..3 {
                let mut verdict = verdict.clone();
                let tcb = &mut snp(&mut verdict).tcb;
                let tcb = [&mut tcb.reported, &mut tcb.committed, &mut tcb.launch];
                for (n, tcb) in tcb.into_iter().enumerate() {
                    // The others are newer, in all components: one number would hide the older one.
                    *tcb = Tcb { microcode: 255, snp: 255, tee: 255, bootloader: 255, ..*tcb };
                    if n == which {
                        *component(tcb) = *component(&mut minimum.clone()) - 1;
                    }
                }
                let denial = Grant::decide(&verdict, &world.reference).unwrap_err();
                assert_eq!(denial.check, Check::Tcb, "{denial}");
            }
        }
        if product == Product::Turin {
            let mut old = verdict.clone();
            snp(&mut old).tcb.launch.fmc = Some(2);
            assert_eq!(Grant::decide(&old, &world.reference).unwrap_err().check, Check::Tcb);
        }
        Grant::decide(&verdict, &world.reference).unwrap();
    }
}

#[test]
fn an_old_launch_tcb_is_refused_in_a_real_report() {
    refused(Check::Tcb, "launched before the update", |world| {
        world.report.launch_tcb = super::synthetic::tcb(4, 5, 23, 219);
    });
}

#[test]
fn a_minimum_fmc_counts_only_where_there_is_one() {
    let mut world = World::milan();
    world.policy().minimum_tcb.fmc = Some(200);
    world.grant().unwrap();
}

#[test]
fn platforms_that_did_not_check_for_aliases_are_refused() {
    let mut world = World::milan();
    world.policy().require_alias_check = true;
    world.grant().unwrap();
    refused_in(world, Check::Tcb, "no check", |world| world.report.platform_info.0 &= !(1 << 5));
}

#[test]
fn denied_chips_and_products_are_refused() {
    refused(Check::CertificateChain, "chip", |world| world.policy().denied_chips = vec![[0xc1; 64]]);
    refused(Check::TeeKind, "product", |world| world.policy().denied_products = vec![Product::Milan]);
    let mut world = World::milan();
    world.policy().denied_chips = vec![[0xc2; 64]];
    world.policy().denied_products = vec![Product::Genoa];
    world.grant().unwrap();
    let vlek = || World::new(Whose::Amd, Product::Milan, SigningKey::Vlek, 3);
    refused_in(vlek(), Check::CertificateChain, "hidden chip could be a denied one", |world| {
        world.policy().denied_chips = vec![[0xc2; 64]];
        world.report.chip_id = [0; 64];
    });
    let mut world = vlek();
    world.report.chip_id = [0; 64];
    world.grant().unwrap();
}

#[test]
fn vleks_of_unlisted_providers_are_refused() {
    let vlek = || World::new(Whose::Amd, Product::Genoa, SigningKey::Vlek, 3);
    assert_eq!(vlek().grant().unwrap().verdict().snp().unwrap().csp_id.as_deref(), Some("cloud.example"));
    refused_in(vlek(), Check::CertificateChain, "no provider", |world| world.policy().vlek_csp_ids.clear());
    refused_in(vlek(), Check::CertificateChain, "another provider", |world| {
        world.policy().vlek_csp_ids = vec!["cloud.example.org".into()];
    });
}

#[test]
fn id_block_keys_are_checked_where_the_policy_names_them() {
    let signed = || {
        let mut world = World::milan();
        world.report.id_key_digest = [7; 48];
        world.report.author_key_digest = [8; 48];
        world.report.key_info = KeyInfo(1);
        world.policy().id_key_digests = vec![[7; 48]];
        world.policy().author_key_digests = vec![[8; 48]];
        world.policy().minimum_guest_svn = 2;
        world
    };
    signed().grant().unwrap();
    refused_in(signed(), Check::GuestPolicy, "ID key", |world| world.report.id_key_digest[0] = 0);
    refused_in(signed(), Check::GuestPolicy, "author key", |world| world.report.author_key_digest[0] = 0);
    refused_in(signed(), Check::GuestPolicy, "no author key", |world| {
        world.report.key_info = KeyInfo(0);
        world.report.author_key_digest = [0; 48];
    });
    refused_in(signed(), Check::GuestPolicy, "no ID block, and zero in the policy", |world| {
        world.report.id_key_digest = [0; 48];
        world.policy().id_key_digests = vec![[0; 48]];
    });
    refused_in(signed(), Check::GuestPolicy, "older guest", |world| world.report.guest_svn = 1);
    refused_in(signed(), Check::GuestPolicy, "a minimum that nobody signs", |world| {
        world.policy().id_key_digests.clear();
        world.policy().author_key_digests.clear();
    });
}

/// Each line counts its own microcode: a number of one says nothing about another.
#[test]
fn minima_are_those_of_the_processors_line() {
    let line = |model, stepping, microcode| {
        let mut world = World::milan();
        world.report.cpuid = Some(Cpuid { family: 0x19, model, stepping });
        let tcb = Tcb { fmc: None, bootloader: 4, tee: 5, snp: 24, microcode };
        for raw in [
            &mut world.report.reported_tcb,
            &mut world.report.committed_tcb,
            &mut world.report.current_tcb,
            &mut world.report.launch_tcb,
        ] {
            *raw = tcb.encode();
        }
        world.vek.set(super::synthetic::OID_MICROCODE, false, super::synthetic::number(microcode));
        let minimum = |microcode| Tcb { microcode, ..Tcb::default() };
        world.policy().minimum_tcb = minimum(0);
        world.policy().line_minima =
            [(Line::Milan, minimum(0xdb)), (Line::MilanX, minimum(0x44))].into_iter().collect();
        world
    };
    line(1, 1, 0xdb).grant().unwrap();
    line(1, 2, 0x44).grant().unwrap();
    refused_in(line(1, 1, 0x44), Check::Tcb, "fixed on a Milan-X, not on a Milan", |_| ());
    refused_in(line(1, 2, 0x43), Check::Tcb, "an old Milan-X", |_| ());
    refused_in(line(1, 2, 0x44), Check::Tcb, "no entry for Milan-X: Milan's counts", |world| {
        world.policy().line_minima.remove(&Line::MilanX);
    });
    refused_in(line(1, 2, 0x44), Check::Tcb, "minima for another product alone", |world| {
        world.policy().line_minima = [(Line::Turin, Tcb::default())].into_iter().collect();
    });
    refused_in(line(1, 1, 0xda), Check::Tcb, "version 2 says no line: the product's first", |world| {
        world.report.version = 2;
        world.report.cpuid = None;
    });
    let mut without = line(1, 2, 0x10);
    without.policy().line_minima.clear();
    without.grant().unwrap();
}

#[test]
fn denied_lines_are_refused() {
    let milan_x = || {
        let mut world = World::milan();
        world.report.cpuid = Some(Cpuid { family: 0x19, model: 1, stepping: 2 });
        world
    };
    refused_in(milan_x(), Check::TeeKind, "line", |world| world.policy().denied_lines = vec![Line::MilanX]);
    refused_in(milan_x(), Check::TeeKind, "its product", |world| {
        world.policy().denied_products = vec![Product::Milan];
    });
    let mut other = milan_x();
    other.policy().denied_lines = vec![Line::Milan];
    other.grant().unwrap();
}

#[test]
fn missing_mitigations_are_refused() {
    let world = |launch, current| {
        let mut world = World::new(Whose::Amd, Product::Genoa, SigningKey::Vcek, 5);
        world.report.mitigations = Some(MitigationVectors { launch, current });
        world.policy().required_mitigations = 0b101;
        world
    };
    world(0b101, 0b111).grant().unwrap();
    refused_in(world(0b001, 0b111), Check::Tcb, "at launch", |_| ());
    refused_in(world(0b111, 0b100), Check::Tcb, "now", |_| ());
    refused_in(world(0b010, 0b010), Check::Tcb, "others", |_| ());
    refused_in(world(0b111, 0b111), Check::Tcb, "a version without", |world| {
        world.report.version = 4;
        world.report.mitigations = None;
    });
    let grant = world(5, 7).grant().unwrap();
    assert_eq!(grant.verdict().snp().unwrap().mitigations, Some(MitigationVectors { launch: 5, current: 7 }));
}

#[test]
fn what_the_policy_demands_the_guests_must_demand() {
    type Require = fn(&mut SnpReference);
    let bits: [(u32, Require); 3] = [
        (20, |reference| reference.require_single_socket = true),
        (23, |reference| reference.require_rapl_disabled = true),
        (24, |reference| reference.require_ciphertext_hiding = true),
    ];
    for (bit, require) in bits {
        refused(Check::GuestPolicy, &format!("bit {bit} is clear"), |world| require(world.policy()));
        let mut world = World::milan();
        require(world.policy());
        world.report.policy = GuestPolicy(1 << 17 | 1 << bit);
        world.grant().unwrap();
    }
}

/// The ID block's contents are in the claims, whoever signed it.
#[test]
fn the_claims_hold_what_the_report_says() {
    let mut world = World::new(Whose::Amd, Product::Turin, SigningKey::Vcek, 5);
    world.report.policy = GuestPolicy(1 << 17 | 1 << 20 | 1 << 22 | 1 << 25 | 0x0133);
    world.report.platform_info.0 = 0b1011_1010;
    let grant = world.grant().unwrap();
    let claims = grant.verdict().snp().unwrap();
    assert_eq!((claims.family_id, claims.image_id, claims.guest_svn), ([1; 16], [2; 16], 2));
    assert_eq!((claims.line, claims.policy.abi), (Line::Turin, (1, 0x33)));
    let policy = claims.policy;
    assert!(policy.single_socket && policy.aes_256_xts && policy.page_swap_disabled);
    assert!(!policy.cxl && !policy.rapl_disabled && !policy.ciphertext_hiding && !policy.smt);
    let platform = claims.platform;
    assert!(platform.tsme && platform.rapl_disabled && platform.ciphertext_hiding && platform.alias_check);
    assert!(platform.tio && !platform.smt && !platform.ecc);
}

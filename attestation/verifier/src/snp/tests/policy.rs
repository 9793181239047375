//! Genuine evidence against policies that one value of it does not match.

use tee_evidence::snp::{GuestPolicy, KeyInfo, Product, SigningKey, Tcb};

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

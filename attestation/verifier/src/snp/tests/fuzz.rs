//! Hostile bytes: never a panic, never accepted.

use std::sync::OnceLock;

use proptest::prelude::*;
use tee_evidence::snp::{CertEntry, CertKind, RawReport};

use super::synthetic::World;
use crate::snp::Anchors;
use crate::snp::certificate::Certificate;
use crate::snp::crl::Crl;

struct Fixed {
    world: World,
    report: RawReport,
    chain: Vec<CertEntry>,
}

fn fixed() -> &'static Fixed {
    static FIXED: OnceLock<Fixed> = OnceLock::new();
    FIXED.get_or_init(|| {
        let mut world = World::milan();
        let chain = world.chain();
        world.anchors = Some(Anchors::pinned(world.product, &chain[0].data));
        Fixed { report: world.signed(), chain, world }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_changed_byte_in_a_certificate_is_refused(
        which in 0usize..4, at in any::<prop::sample::Index>(), bits in 1u8..,
    ) {
        let Fixed { world, report, chain } = fixed();
        prop_assert!(world.appraise(report.as_bytes(), chain).is_ok());
        let mut chain = chain.clone();
        let data = &mut chain[which].data;
        let at = at.index(data.len());
        data[at] ^= bits;
        prop_assert!(world.appraise(report.as_bytes(), &chain).is_err());
    }

    #[test]
    fn a_changed_byte_in_a_report_is_refused(at in 0..RawReport::LEN, bits in 1u8..) {
        let Fixed { world, report, chain } = fixed();
        let mut report = *report.as_bytes();
        report[at] ^= bits;
        prop_assert!(world.appraise(&report, chain).is_err());
    }

    #[test]
    fn a_cut_certificate_is_refused(which in 0usize..3, at in any::<prop::sample::Index>()) {
        let Fixed { world, report, chain } = fixed();
        let mut chain = chain.clone();
        let data = &mut chain[which].data;
        data.truncate(at.index(data.len()));
        prop_assert!(world.appraise(report.as_bytes(), &chain).is_err());
    }
}

proptest! {
    #[test]
    fn arbitrary_certificates_never_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..600), pem in any::<bool>(),
    ) {
        let bytes = if pem { [b"-----BEGIN CERTIFICATE-----\n", &bytes[..]].concat() } else { bytes };
        let _ = Certificate::parse(&bytes);
        let _ = Anchors::amd().with_emulated(&bytes);
        let _ = Crl::parse(&bytes);
    }

    #[test]
    fn arbitrary_evidence_never_panics(
        report in prop::collection::vec(any::<u8>(), 1100..1300),
        certs in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..100), 0..4),
    ) {
        let kinds = [CertKind::Ark, CertKind::Ask, CertKind::Vcek, CertKind::Vlek];
        let chain: Vec<_> =
            certs.into_iter().zip(kinds).map(|(data, kind)| CertEntry { kind, data }).collect();
        let refused = crate::snp::Evidence::parse(&report, &chain).is_err();
        prop_assert!(refused);
    }
}

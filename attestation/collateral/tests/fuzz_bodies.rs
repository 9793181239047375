//! Runs the bodies of the fuzz targets on the stable compiler: on random bytes, and on valid inputs with a few
//! bytes changed.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "../../../fuzz/bodies/collateral.rs"]
mod bodies;

use std::sync::OnceLock;
use std::time::SystemTime;

use collateral::{Key, Line};
use proptest::prelude::*;
use sealpod_emulator::snp::certificates::Endorsement;
use sealpod_emulator::snp::crl::Revocations;
use sealpod_emulator::snp::{Authorities, Chip, KeyKind, Product, Tcb};
use x509_cert::der::pem::LineEnding;
use x509_cert::der::{Encode, EncodePem};

fn good() -> &'static [Vec<u8>] {
    static ALL: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    ALL.get_or_init(|| {
        let now = SystemTime::now();
        let all = Authorities::generate(Product::Milan, 2048, now).unwrap();
        let chip = Chip::new(Product::Milan, [1; 48]);
        let vcek = all.ask.endorse(&chip, &Endorsement::new(KeyKind::Vcek, Tcb::default(), now)).unwrap();
        let pem = [&all.ask_certificate, &all.ark_certificate].map(|one| one.to_pem(LineEnding::LF).unwrap());
        let chain = pem.concat().into_bytes();
        let crl = all.crl(&Revocations::none(now)).unwrap();
        let milan = tee_evidence::snp::Product::Milan;
        let (chain_key, crl_key) = (Key::Chain(milan, Line::Vcek), Key::Crl(milan, Line::Vcek));
        let bundle = collateral::write([(&chain_key, &*chain), (&crl_key, &*crl)]).unwrap();
        let path = crl_key.kds_path().unwrap().into_bytes();
        vec![bundle, vcek.to_der().unwrap(), chain, crl, path, crl_key.file_name().into_bytes()]
    })
}

fn run_all(bytes: &[u8]) {
    bodies::bundle(bytes);
    bodies::answers(bytes);
}

proptest! {
    #[test]
    fn random_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..700)) {
        run_all(&bytes);
    }

    #[test]
    fn damaged_inputs(
        which in 0..6_usize,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = good()[which].clone();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        run_all(&bytes);
    }
}

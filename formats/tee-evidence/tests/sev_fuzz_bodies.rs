//! Runs the bodies of the fuzz targets of SEV's formats on the stable compiler: on random bytes, and on valid inputs with
//! a few bytes changed.

#![expect(clippy::unwrap_used, reason = "a test")]

#[path = "../../../fuzz/bodies/sev.rs"]
mod bodies;

use proptest::prelude::*;
use tee_evidence::guid::Guid;
use tee_evidence::sev::{
    Algorithm, Authority, Certificate, Point, SecretEntry, SecretTable, Signature, Unsigned, Usage,
};

fn certificate(usage: Usage, by: [Option<Usage>; 2]) -> Vec<u8> {
    let algorithm = if usage == Usage::Pdh { Algorithm::EcdhSha256 } else { Algorithm::EcdsaSha256 };
    let unsigned = Unsigned { api: (1, 55), usage, algorithm, key: Point { x: [1; 48], y: [2; 48] } };
    let sign = |by| Signature::from_ecdsa(by, Algorithm::EcdsaSha256, &[3; 96]);
    Certificate::assemble(&unsigned, &by.map(|by| by.map(sign))).to_vec()
}

fn chain() -> Vec<u8> {
    [
        certificate(Usage::Pek, [Some(Usage::Oca), Some(Usage::Cek)]),
        certificate(Usage::Oca, [Some(Usage::Oca), None]),
        certificate(Usage::Cek, [None, None]),
    ]
    .concat()
}

fn authorities() -> Vec<u8> {
    let ask = Authority::assemble(Usage::Ask, &[1; 16], &[2; 16], &[0xff; 256], Some(&[3; 256]));
    [ask, Authority::assemble(Usage::Ark, &[2; 16], &[2; 16], &[0xff; 256], None)].concat()
}

fn table() -> Vec<u8> {
    let entries =
        [SecretEntry { guid: Guid::new(1), data: b"a" }, SecretEntry { guid: Guid::new(2), data: &[7; 90] }];
    let mut out = vec![0; SecretTable::len(&entries).unwrap()];
    SecretTable::write(&entries, &mut out).unwrap();
    out
}

proptest! {
    #[test]
    fn random_bytes(data in proptest::collection::vec(any::<u8>(), 0..300)) {
        bodies::sev_certificates(&data);
        bodies::sev_launch(&data);
    }

    #[test]
    fn changed_bytes(
        which in 0..4usize,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let pdh = certificate(Usage::Pdh, [Some(Usage::Pek), None]);
        let mut data = vec![pdh, chain(), authorities(), table()].swap_remove(which);
        for (at, value) in changes {
            let at = at.index(data.len());
            data[at] = value;
        }
        bodies::sev_certificates(&data);
        bodies::sev_launch(&data);
        let cut = cut.index(data.len());
        bodies::sev_certificates(&data[..cut]);
        bodies::sev_launch(&data[..cut]);
    }
}

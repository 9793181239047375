//! Runs the bodies of Power PEF's fuzz targets on the stable compiler: on random bytes, and on good ones with a few
//! bytes changed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

#[path = "../../../fuzz/bodies/pef.rs"]
mod bodies;

use proptest::prelude::*;

const BLOB: &[u8] = include_bytes!("../../../formats/tee-evidence/testdata/pef/blob.dtb");
const DIGESTS: &[u8] = include_bytes!("../../../formats/tee-evidence/testdata/pef/digests.dtb");
const KEY: &[u8] = include_bytes!("../../../attestation/verifier/testdata/pef/machine-1.pem");
const SECRET: &[u8] = br#"{"version":1,"name":"sealpod","blob":"00112233445566778899aabbccddeeff","init_data":"sha256:0101010101010101010101010101010101010101010101010101010101010101","sealed_spec":"sha256:0202020202020202020202020202020202020202020202020202020202020202","key":"BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc="}"#;

/// `good` with some bytes replaced, or cut off.
fn damaged(good: &'static [u8]) -> impl Strategy<Value = Vec<u8>> {
    let changes = proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..6);
    (changes, any::<proptest::sample::Index>(), any::<bool>()).prop_map(move |(changes, end, cut)| {
        let mut bytes = good.to_vec();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if cut {
            bytes.truncate(end.index(bytes.len()));
        }
        bytes
    })
}

proptest! {
    #[test]
    fn any_bytes(data in proptest::collection::vec(any::<u8>(), 0..600)) {
        bodies::esm_blob(&data);
        bodies::esm_file(&data);
        bodies::pef_evidence(&data);
    }

    #[test]
    fn damaged_blobs(data in damaged(BLOB)) {
        bodies::esm_blob(&data);
    }

    #[test]
    fn damaged_digests(data in damaged(DIGESTS)) {
        bodies::esm_blob(&data);
    }

    #[test]
    fn damaged_files(data in damaged(SECRET)) {
        bodies::esm_file(&data);
    }

    #[test]
    fn damaged_keys(data in damaged(KEY)) {
        bodies::pef_evidence(&data);
    }
}

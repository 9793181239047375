//! Runs the bodies of the fuzz targets on the stable compiler: on random bytes, and on valid inputs with a few bytes
//! changed.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

#[path = "../../../fuzz/bodies/image_policy.rs"]
mod bodies;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;

/// By the key of the bodies' ring, uncompressed so that changes reach the packets.
const SIGNED: &str = concat!(
    "kA0DAAgWjMJLPUB3mlMBrORiAXBnddcAeyJjcml0aWNhbCI6eyJ0eXBlIjoiYXRvbWljIGNvbnRhaW5lciBzaWduYXR1cmUiLCJpbWFnZSI6eyJk",
    "b2NrZXItbWFuaWZlc3QtZGlnZXN0Ijoic2hhMjU2OjAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAw",
    "MDAwMDAwMDAwMDAifSwiaWRlbnRpdHkiOnsiZG9ja2VyLXJlZmVyZW5jZSI6InIuZXhhbXBsZS9hOjEifX0sIm9wdGlvbmFsIjp7fX2IdQQAFggA",
    "HRYhBODnGbVS9vw2L+yfIozCSz1Ad5pTBQJnddcAAAoJEIzCSz1Ad5pTiV4BAIxh8Hs95/jubOJw2s5zTMr8V6D1NpXD4TTjAB5TQRClAPwPR2fQ",
    "mbgL4h7tUyqoqN+tpqYOPwF/HJoSOGmZpd6SDA==",
);

fn decoded(text: &str) -> Vec<u8> {
    STANDARD.decode(text).unwrap()
}

/// With some bytes replaced, or cut off.
fn damaged(good: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    let changes = proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..4);
    (changes, any::<proptest::sample::Index>(), any::<bool>()).prop_map(move |(changes, end, cut)| {
        let mut bytes = good.clone();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if cut {
            bytes.truncate(end.index(bytes.len()));
        }
        bytes
    })
}

#[test]
fn the_good_signature_is_accepted() {
    assert!(bodies::signature(&decoded(SIGNED)));
    bodies::keyring(&decoded(bodies::RING), &decoded(SIGNED));
    bodies::policy(bodies::policy_text().as_bytes());
}

proptest! {
    #[test]
    fn policies(random: Vec<u8>, damaged in damaged(bodies::policy_text().into_bytes())) {
        bodies::policy(&random);
        bodies::policy(&damaged);
    }

    #[test]
    fn keyrings(random: Vec<u8>, damaged in damaged(decoded(bodies::RING))) {
        bodies::keyring(&random, &decoded(SIGNED));
        bodies::keyring(&damaged, &decoded(SIGNED));
    }

    #[test]
    fn signatures(random: Vec<u8>, damaged in damaged(decoded(SIGNED))) {
        prop_assert!(!bodies::signature(&random));
        bodies::signature(&damaged);
    }
}

//! Runs the bodies of the fuzz targets on the stable compiler: on random bytes, and on valid inputs with a few
//! bytes changed.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

#[path = "../../../fuzz/bodies/wrapped_keys.rs"]
mod bodies;
mod peers;

use std::sync::LazyLock;

use encrypted_image::jwe::{self, RsaOaep};
use encrypted_image::keys::Certificate;
use encrypted_image::pkcs7;
use proptest::prelude::*;

static KEY_FILES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let bench = peers::Bench::new();
    bench.rsa("rsa");
    bench.ec("ec", "P-384");
    for line in [
        "pkcs8 -topk8 -in ec.pem -passout pass:sesame -outform DER -out k8.der",
        "pkcs8 -topk8 -in ec.pem -passout pass:sesame -scrypt -scrypt_N 1024 -out scrypt.pem",
        "ec -in ec.pem -aes256 -passout pass:sesame -out old.pem",
        "ec -in ec.pem -outform DER -out ec.der",
        "x509 -in rsa.crt -outform DER -out crt.der",
    ] {
        bench.openssl(line);
    }
    let names =
        ["rsa.pem", "rsa.pub", "rsa.crt", "ec.pem", "k8.der", "scrypt.pem", "old.pem", "ec.der", "crt.der"];
    names.map(|name| bench.read(name)).to_vec()
});

fn valid_jwe() -> Vec<Vec<u8>> {
    let keys = [&*bodies::EC, &*bodies::RSA].map(|key| key.public().unwrap());
    [&keys[..1], &keys[1..], &keys].map(|keys| jwe::seal(keys, RsaOaep::Sha1, b"options").unwrap()).to_vec()
}

/// To another key, and in the form of this one: only parsing succeeds.
fn valid_pkcs7() -> Vec<Vec<u8>> {
    vec![pkcs7::seal(&[Certificate::parse(&KEY_FILES[2]).unwrap()], b"options").unwrap()]
}

/// One of `good` with some bytes replaced, or cut off.
fn damaged(good: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let changes = proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..4);
    let which = any::<proptest::sample::Index>();
    (which, changes, any::<proptest::sample::Index>(), any::<bool>()).prop_map(
        move |(which, changes, end, cut)| {
            let mut bytes = good[which.index(good.len())].clone();
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if cut {
                bytes.truncate(end.index(bytes.len()));
            }
            bytes
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn random_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        bodies::jwe(&bytes);
        bodies::pkcs7(&bytes);
        bodies::keys(&bytes);
    }

    #[test]
    fn damaged_jwe(bytes in damaged(valid_jwe())) {
        bodies::jwe(&bytes);
    }

    #[test]
    fn damaged_pkcs7(bytes in damaged(valid_pkcs7())) {
        bodies::pkcs7(&bytes);
    }

    #[test]
    fn damaged_keys(bytes in damaged(KEY_FILES.clone())) {
        bodies::keys(&bytes);
    }
}

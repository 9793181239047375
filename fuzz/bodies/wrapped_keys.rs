//! Bodies of the fuzz targets of `formats/encrypted-image`'s keys and wrappers: any bytes are read or refused.

#![allow(dead_code)] // Each target uses one of them.

use std::sync::LazyLock;

use encrypted_image::jwe::{self, RsaOaep};
use encrypted_image::keys::{Certificate, PrivateKey, PublicKey};
use encrypted_image::pkcs7;

/// Made for these tests.
const RSA_JWK: &str = concat!(
    r#"{"kty":"RSA","e":"AQAB","p":"9cNhzLFjbNUyWqjPXAP4jfGwmCiM-60CTOpKnQ2BJ3XBwCBtfNQ9pJBw5B1__q6ULDG"#,
    r#"pnjGhCZ6k4tAuqeLAkCjVWrsrahwRWv1IWVhjr43dMLvPhSmfWb7ukL68_OqFR-G6GX037ALy-yWfUEy3b6slGM4swnuIAQq"#,
    r#"C-FdGyBE","q":"5zk2MSHXVNVuB0e8Zt5lMJi8iAL6lCMwdMh2_7gcOCJxmniwqshkALAxr82W6OSM-lZEoI-UkO3mANT_u"#,
    r#"aHd1LrcKoNHcmub9zmTZMuotoM_33dLK4kCLhvr85XKRTrBfpLv3b8WSqfFMi_O0ffK3ETsIE1Lxggc_rVjhdjaO1c","d":"#,
    r#""Ir1E6obM6mp7Xq-lqbcvXJAcKUJ2VABiwc2MDDEBVSj9gGGPOpQjZuGYYQ8ttIz9y4DC9l-3kMUZ1AEQGjSPwPaa4w18K_3"#,
    r#"KO_N1q8JC688O4qXdA8ib9975KkAs8rCYLtbeO5hOsPQNGGkXLmp3YkMtv6_wGYWWbrIQuSRLznvjqVfNA13h7uSHNhhJfii"#,
    r#"HOwXFJvWS8EVFhj2AQ7wOajN5yZSjnTkXqIN0RDEtnksQ0lVMo2iNPwe_P564EgMb9Wy8oneFfxKD5RQrSyjm2J3cLU4Qxoc"#,
    r#"BN81s5hdkL3BsMFE0zoyqWE4RjaZDTzyulnaYCHZtGBD6GoM14xXIsQ","n":"3fo5xtwoBBQP9Bg4PlIeno5p43yNLyEgyh"#,
    r#"T8yUCFifknDxCTd0EoMr4__P5ov9u3lDzQSvI7sOTlaHEFQr8ds-gVtNr6Tv8rYth3fOjXgSdkMZa8dmZal04DQBe94NBWDB"#,
    r#"TxbC07-O4RTwPL0l1emnCxleNdpemPXRMxKdh2YPfrnnHJdrN0_zbXvYpkAsCFFabmQa_eiFTySGQM_zrcYyu6eFTPHQ3-Mw"#,
    r#"W2aphakFBKOI_CWQ6VPA8-1R2bqIpTYYh2j2jdN_5D0JmIop_WFjkTUt8jYLhQBwxncI2OHnPhd9stVG2vaLk_L3Y4RQhtFo"#,
    r#"W5BxCwgxjhCU1sr6Poxw"}"#,
);

pub(crate) static RSA: LazyLock<PrivateKey> =
    LazyLock::new(|| PrivateKey::parse(RSA_JWK.as_bytes()).expect("the key above"));

/// SEC 1 without the public half: any number is a key.
pub(crate) static EC: LazyLock<PrivateKey> = LazyLock::new(|| {
    let mut der = vec![0x30, 0x31, 0x02, 0x01, 0x01, 0x04, 0x20];
    der.extend([7; 32]);
    der.extend([0xa0, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07]);
    PrivateKey::parse(&der).expect("the key above")
});

/// A JWE as a registry has it.
pub(crate) fn jwe(data: &[u8]) {
    for key in [&*EC, &*RSA] {
        if let Ok(plain) = jwe::open(data, key) {
            assert!(plain.len() <= jwe::MAX_PLAINTEXT + 16);
        }
    }
}

/// A CMS message as a registry has it.
pub(crate) fn pkcs7(data: &[u8]) {
    if let Ok(plain) = pkcs7::open(data, &RSA, None) {
        assert!(plain.len() <= pkcs7::MAX_PLAINTEXT);
    }
}

/// A key file. What is read as an EC key also works as one.
pub(crate) fn keys(data: &[u8]) {
    let _ = Certificate::parse(data);
    let public = PublicKey::parse(data);
    let private = PrivateKey::parse(data);
    let _ = PrivateKey::parse_with_password(data, b"sesame");
    if let Ok(key @ PublicKey::Ec(_)) = public {
        assert!(jwe::seal(&[key], RsaOaep::Sha1, b"options").is_ok());
    }
    if let Ok(key @ PrivateKey::Ec(_)) = private {
        let public = key.public().expect("the half of an EC key");
        let sealed = jwe::seal(&[public], RsaOaep::Sha1, b"options").expect("sealed");
        assert_eq!(jwe::open(&sealed, &key).expect("opened").as_slice(), b"options");
    }
}

//! The primitives of SEV: RSA-PSS and ECDSA of its certificates, its key derivation, AES-128-CTR.

use aes::Aes128;
use ctr::Ctr128BE;
use ctr::cipher::{KeyIvInit, StreamCipher};
use ring::hmac;
use ring::signature::{
    ECDSA_P384_SHA256_ASN1, ECDSA_P384_SHA384_FIXED, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384,
    RsaPublicKeyComponents, UnparsedPublicKey,
};
use tee_evidence::sev::{Algorithm, Authority, Certificate};
use zeroize::Zeroizing;

/// Where random bytes come from: the verifier itself fetches none.
pub trait Randomness {
    /// Fills all of `out` with unpredictable bytes.
    ///
    /// # Errors
    /// [`NoRandomness`].
    fn fill(&mut self, out: &mut [u8]) -> Result<(), NoRandomness>;
}

/// The source of randomness failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the source of random numbers failed")]
pub struct NoRandomness;

impl<F: FnMut(&mut [u8]) -> Result<(), NoRandomness>> Randomness for F {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), NoRandomness> {
        self(out)
    }
}

/// A key of 16 bytes, wiped when it goes.
pub(crate) type Key = Zeroizing<[u8; 16]>;

/// The hash goes with the size of the key: SHA-256 with 2048 bits, SHA-384 with 4096.
pub(crate) fn verify_rsa(signer: &Authority, message: &[u8], signature: &[u8]) -> bool {
    let key = RsaPublicKeyComponents { n: signer.modulus(), e: &[1, 0, 1][..] };
    let algorithm = match signer.modulus().len() {
        256 => &RSA_PSS_2048_8192_SHA256,
        _ => &RSA_PSS_2048_8192_SHA384,
    };
    key.verify(algorithm, message, signature).is_ok()
}

/// The algorithm that a slot must name for a signature of this authority.
pub(crate) fn rsa_algorithm(signer: &Authority) -> Algorithm {
    match signer.modulus().len() {
        256 => Algorithm::RsaSha256,
        _ => Algorithm::RsaSha384,
    }
}

/// Whether `signature` (r ‖ s) by `signer` over `message` is right.
pub(crate) fn verify_ecdsa(
    signer: &Certificate,
    algorithm: Algorithm,
    message: &[u8],
    signature: &[u8; 96],
) -> bool {
    let key = signer.key().to_sec1();
    match algorithm {
        Algorithm::EcdsaSha256 => {
            UnparsedPublicKey::new(&ECDSA_P384_SHA256_ASN1, key).verify(message, &der(signature)).is_ok()
        }
        Algorithm::EcdsaSha384 => {
            UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, key).verify(message, signature).is_ok()
        }
        _ => false,
    }
}

/// SEQUENCE of two INTEGERs: the only form in which ring takes SHA-256 with P-384.
fn der(signature: &[u8; 96]) -> Vec<u8> {
    let integer = |number: &[u8]| {
        let start = number.iter().position(|&byte| byte != 0).unwrap_or(number.len() - 1);
        let number = &number[start..];
        let zero = (number[0] >= 0x80).then_some(0);
        let mut out = vec![2, (number.len() + usize::from(zero.is_some())) as u8];
        out.extend(zero);
        out.extend_from_slice(number);
        out
    };
    let (r, s) = signature.split_at(48);
    let numbers = [integer(r), integer(s)].concat();
    // At most 2 × 51 bytes, so a length of one byte.
    [vec![0x30, numbers.len() as u8], numbers].concat()
}

/// SP 800-108 in counter mode with HMAC-SHA256, for one block: 16 bytes.
pub(crate) fn derive(key: &[u8], label: &str, context: &[u8]) -> Key {
    let mut mac = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
    mac.update(&1u32.to_le_bytes());
    mac.update(label.as_bytes());
    mac.update(&[0]);
    mac.update(context);
    mac.update(&128u32.to_le_bytes());
    let mut out = Key::default();
    out.copy_from_slice(&mac.sign().as_ref()[..16]);
    out
}

/// HMAC-SHA256.
pub(crate) fn mac(key: &Key, message: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_slice());
    out.copy_from_slice(hmac::sign(&key, message).as_ref());
    out
}

/// Whether `code` is [`mac`] of the message; in constant time.
pub(crate) fn verify_mac(key: &Key, message: &[u8], code: &[u8; 32]) -> bool {
    hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, key.as_slice()), message, code).is_ok()
}

/// AES-128 in counter mode, in place; the counter is all 16 bytes, big-endian.
pub(crate) fn aes_ctr(key: &Key, iv: &[u8; 16], data: &mut [u8]) {
    Ctr128BE::<Aes128>::new(&(**key).into(), iv.into()).apply_keystream(data);
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRAP_MAC: &str = "3176c0752738bd9d5e86689534020f528c088f16238826b000b327dee6aeed7d";
    const POLICY_MAC: &str = "aa7855e13839dd767cd5da7c1ff5036540c9264b7a803029315e55375287b4af";
    const TK: [u8; 32] = [
        0x21, 0x37, 0xbc, 0x7f, 0x9b, 0xb8, 0xbd, 0x7c, 0x3e, 0x55, 0xa5, 0x76, 0xa1, 0x5d, 0x34, 0x54, 0xb3,
        0x85, 0x6b, 0x8b, 0xa2, 0x7a, 0xfa, 0xdf, 0x46, 0xdc, 0xfe, 0xe9, 0xf0, 0x2c, 0x02, 0xc4,
    ];

    /// What the `sev` crate's tests expect of a session of zeros.
    #[test]
    fn derivation_wrapping_and_codes_are_the_published_ones() {
        let master = derive(&[0; 16], "sev-master-secret", &[0; 16]);
        assert_eq!(
            *master,
            [0xab, 0x4d, 0x26, 0x9f, 0xcc, 0x62, 0xbe, 0xdb, 0x45, 0x11, 0xd5, 0x6c, 0x38, 0x6c, 0xe7, 0x06]
        );
        let (kek, kik) =
            (derive(master.as_slice(), "sev-kek", &[]), derive(master.as_slice(), "sev-kik", &[]));
        let mut wrapped = [0; 32];
        aes_ctr(&kek, &[0; 16], &mut wrapped);
        assert_eq!(wrapped, TK);
        assert_eq!(hex::encode(mac(&kik, &wrapped)), WRAP_MAC);
        assert_eq!(hex::encode(mac(&Key::default(), &[0; 4])), POLICY_MAC);
    }
}

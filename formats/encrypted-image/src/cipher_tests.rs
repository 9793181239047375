//! The cipher against known answers, and that nothing changed decrypts to an [`Authenticated`].

use super::*;
use zeroize::Zeroizing;

/// The first 32 bytes that AES-256-CTR makes of zeros under NIST SP 800-38A F.5.5's key and counter, XORed with its
/// plain text, give its cipher text.
const NIST_KEY: &str = "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4";
const NIST_COUNTER: &str = "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff";
const NIST_PLAIN: &str = "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51";
const NIST_CIPHER: &str = "601ec313775789a5b7a7f504bbf3d228f443e3ca4d62b59aca84e990cacaf5c5";

fn array<const N: usize>(text: &str) -> [u8; N] {
    hex::decode(text).unwrap().try_into().unwrap()
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    use sha2::Digest as _;
    Sha256::digest(bytes).into()
}

fn sealed(plain: &[u8]) -> (PrivateOptions, PublicOptions, Vec<u8>) {
    let private = PrivateOptions::generate(digest(plain)).unwrap();
    let mut bytes = plain.to_vec();
    let mut encryptor = Encryptor::new(private.key(), private.nonce());
    encryptor.update(&mut bytes);
    (private, PublicOptions::new(encryptor.finish()), bytes)
}

fn open(private: &PrivateOptions, public: &PublicOptions, encrypted: &[u8]) -> Result<Vec<u8>, CipherError> {
    let mut bytes = encrypted.to_vec();
    let mut decryptor = Decryptor::new(private, public);
    decryptor.update(&mut bytes);
    decryptor.finish().map(|proof| {
        assert_eq!((proof.digest(), proof.length()), (&digest(&bytes), bytes.len() as u64));
        bytes
    })
}

#[test]
fn known_answer_of_the_keystream() {
    let mut bytes: [u8; 32] = array(NIST_PLAIN);
    Keystream::new(&array(NIST_KEY), &array(NIST_COUNTER)).apply(&mut bytes);
    assert_eq!(hex::encode(bytes), NIST_CIPHER);
}

#[test]
fn the_counter_wraps_over_all_its_bytes() {
    let key = [7; 32];
    let mut wrapped = [0; 48];
    Keystream::new(&key, &[0xff; 16]).apply(&mut wrapped);
    let mut from_zero = [0; 32];
    Keystream::new(&key, &[0; 16]).apply(&mut from_zero);
    assert_eq!(wrapped[16..], from_zero);
}

#[test]
fn known_answer_of_the_hmac() {
    // RFC 4231, test case 6's form with a key of 32 bytes has no vector: the definition itself, spelled out.
    let key = [0x0b; 32];
    let pad = |byte: u8| -> Vec<u8> { (0..64).map(|at| byte ^ key.get(at).copied().unwrap_or(0)).collect() };
    let inner = digest(&[pad(0x36), b"Hi There".to_vec()].concat());
    let outer = digest(&[pad(0x5c), inner.to_vec()].concat());
    let mut mac = Mac::new(&key);
    mac.update(b"Hi ");
    mac.update(b"There");
    assert_eq!(mac.finish(), outer);
}

#[test]
fn both_ways() {
    for len in [0, 1, 15, 16, 17, 4096, 100_001] {
        let plain: Vec<u8> = (0..len).map(|at| u8::try_from(at % 251).unwrap()).collect();
        let (private, public, encrypted) = sealed(&plain);
        assert_eq!(open(&private, &public, &encrypted), Ok(plain));
    }
}

#[test]
fn a_changed_ciphertext_is_refused() {
    let (private, public, encrypted) = sealed(b"the layer");
    for bit in 0..encrypted.len() * 8 {
        let mut changed = encrypted.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(open(&private, &public, &changed), Err(CipherError::Hmac));
    }
    assert_eq!(open(&private, &public, &encrypted[..8]), Err(CipherError::Hmac));
    assert_eq!(open(&private, &public, &[&encrypted, &b"x"[..]].concat()), Err(CipherError::Hmac));
}

#[test]
fn another_hmac_is_refused() {
    let (private, public, encrypted) = sealed(b"the layer");
    for bit in 0..256 {
        let mut changed = public.clone();
        changed.hmac[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(open(&private, &changed, &encrypted), Err(CipherError::Hmac));
    }
}

#[test]
fn another_nonce_is_refused_by_the_digest() {
    // The HMAC covers neither nonce nor plain text: only the private digest sees this.
    let (private, public, encrypted) = sealed(b"the layer");
    for bit in 0..128 {
        let mut nonce = *private.nonce();
        nonce[bit / 8] ^= 1 << (bit % 8);
        let other = PrivateOptions::from_parts(Zeroizing::new(*private.key()), nonce, *private.digest());
        assert_eq!(open(&other, &public, &encrypted), Err(CipherError::Digest));
    }
}

#[test]
fn another_private_digest_is_refused() {
    let (private, public, encrypted) = sealed(b"the layer");
    for bit in 0..256 {
        let mut digest = *private.digest();
        digest[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(open(&private.clone().with_digest(digest), &public, &encrypted), Err(CipherError::Digest));
    }
}

#[test]
fn another_key_is_refused() {
    let (private, public, encrypted) = sealed(b"the layer");
    let other = PrivateOptions::from_parts(Zeroizing::new([9; 32]), *private.nonce(), *private.digest());
    assert_eq!(open(&other, &public, &encrypted), Err(CipherError::Hmac));
}

#[test]
fn no_error_prints_an_hmac_or_a_digest() {
    let (private, public, encrypted) = sealed(b"the layer");
    let mut other = public.clone();
    other.hmac = [0; 32];
    let digest = private.clone().with_digest([0; 32]);
    for error in [open(&private, &other, &encrypted), open(&digest, &public, &encrypted)] {
        let error = error.unwrap_err();
        let text = format!("{error} {error:?}");
        for secret in [&public.hmac, private.digest()] {
            assert!(!text.contains(&hex::encode(secret)[..8]), "{text}");
            assert!(!text.contains(&crate::encoding::encode(secret)[..8]), "{text}");
        }
    }
}

#[test]
fn nothing_prints_a_key() {
    assert_eq!(format!("{:?}", Keystream::new(&[7; 32], &[7; 16])), "Keystream(…)");
    assert_eq!(format!("{:?}", Mac::new(&[7; 32])), "Mac(…)");
}

//! Secrets on their way into the guest: flattened JSON JWE (RFC 7516 section 7.2.2), ECDH-ES+A256KW on
//! P-256 (RFC 7518 section 4.6) and A256GCM, wrapped to the guest's ephemeral key.

use std::fmt;

use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce, Tag};
use aes_kw::KwAes256;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use p256::elliptic_curve::sec1::ToSec1Point;
use p256::{PublicKey, SecretKey};
use ring::agreement::{ECDH_P256, EphemeralPrivateKey, UnparsedPublicKey, agree_ephemeral};
use ring::rand::SystemRandom;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;
use zeroize::Zeroizing;

const ALG: &str = "ECDH-ES+A256KW";
const ENC: &str = "A256GCM";
const CRV: &str = "P-256";
const KTY: &str = "EC";
const MAX_HEADER: usize = 1024;

/// Largest secret in one answer, in bytes.
pub const MAX_PLAINTEXT: usize = 1 << 20;

/// The guest's public key as a JWK: EC, P-256. Members beyond these are refused, since what is hashed
/// into the evidence must be all that there is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Jwk {
    /// `ECDH-ES+A256KW`.
    pub alg: String,
    /// `P-256`.
    pub crv: String,
    /// `EC`.
    pub kty: String,
    /// Base64url of the 32-byte x-coordinate.
    pub x: String,
    /// Base64url of the 32-byte y-coordinate.
    pub y: String,
}

/// A JWE in flattened JSON; every member is base64url without padding.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JweFlattened {
    /// Header, also the AAD.
    pub protected: String,
    /// The content key under AES-256 key wrap: 40 bytes.
    pub encrypted_key: String,
    /// 12 bytes.
    pub iv: String,
    /// As long as the plaintext.
    pub ciphertext: String,
    /// 16 bytes.
    pub tag: String,
}

/// Header members in the order that peers re-serialise them in to compute the AAD.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    enc: String,
    epk: Epk,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Epk {
    crv: String,
    kty: String,
    x: String,
    y: String,
}

/// Why a JWE was refused. Nothing says how far decryption got.
#[derive(Debug, Error)]
pub enum JweError {
    /// The system's randomness failed.
    #[error("no randomness from the kernel")]
    Random(#[source] getrandom::Error),
    /// A member is not canonical base64url.
    #[error("{0} is not canonical base64url")]
    Base64(&'static str),
    /// A member has another size than its algorithm's.
    #[error("{part} is {actual} bytes long instead of {expected}")]
    Length {
        /// Which member.
        part: &'static str,
        /// Bytes it must have.
        expected: usize,
        /// Bytes it has.
        actual: usize,
    },
    /// The protected header is unreadable or has unknown members.
    #[error("protected header is not the expected JSON object")]
    Header,
    /// Algorithm, encryption, key type or curve differ from the only ones spoken.
    #[error("{0} is not supported; only ECDH-ES+A256KW on P-256 with A256GCM is")]
    Algorithm(&'static str),
    /// The coordinates are no point of the curve.
    #[error("{0} is not a point on P-256")]
    Point(&'static str),
    /// The plaintext is larger than [`MAX_PLAINTEXT`].
    #[error("the secret is larger than {MAX_PLAINTEXT} bytes")]
    TooLarge,
    /// Wrong key, or any bit changed.
    #[error("the JWE does not open: it was made for another key or changed on its way")]
    Open,
    /// A primitive refused its input; can't happen with the sizes used.
    #[error("encryption failed")]
    Seal,
}

/// The guest's key for one handshake. Zeroized on drop.
pub struct EphemeralKey {
    secret: SecretKey,
}

impl fmt::Debug for EphemeralKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EphemeralKey(..)")
    }
}

impl EphemeralKey {
    /// A fresh key.
    pub fn generate() -> Result<Self, JweError> {
        loop {
            let mut bytes = Zeroizing::new([0; 32]);
            getrandom::fill(bytes.as_mut()).map_err(JweError::Random)?;
            // Zero and values above the group's order are refused; once in 2^32 tries.
            if let Ok(secret) = SecretKey::from_slice(bytes.as_ref()) {
                return Ok(Self { secret });
            }
        }
    }

    /// The public half, as the evidence binds it.
    pub fn public_jwk(&self) -> Jwk {
        let (x, y) = coordinates(&self.secret.public_key());
        Jwk { alg: ALG.to_owned(), crv: CRV.to_owned(), kty: KTY.to_owned(), x, y }
    }

    /// Opens what was wrapped to this key.
    pub fn open(&self, jwe: &JweFlattened) -> Result<Zeroizing<Vec<u8>>, JweError> {
        if jwe.protected.len() > MAX_HEADER {
            return Err(JweError::Header);
        }
        let header = decode("protected header", &jwe.protected)?;
        let header: Header = serde_json::from_slice(&header).map_err(|_| JweError::Header)?;
        require("alg", &header.alg, ALG)?;
        require("enc", &header.enc, ENC)?;
        require("epk.kty", &header.epk.kty, KTY)?;
        require("epk.crv", &header.epk.crv, CRV)?;
        let peer = on_curve("epk", &sec1("epk", &header.epk.x, &header.epk.y)?)?;
        let encrypted_key: [u8; 40] = fixed("encrypted_key", &jwe.encrypted_key)?;
        let iv: [u8; 12] = fixed("iv", &jwe.iv)?;
        let tag: [u8; 16] = fixed("tag", &jwe.tag)?;
        if jwe.ciphertext.len() > MAX_PLAINTEXT.div_ceil(3) * 4 {
            return Err(JweError::TooLarge);
        }
        let mut text = Zeroizing::new(decode("ciphertext", &jwe.ciphertext)?);

        let kek = key_encryption_key(self.secret.diffie_hellman(&peer).raw_secret_bytes());
        let mut cek = Zeroizing::new([0; 32]);
        KwAes256::new((&*kek).into()).unwrap_key(&encrypted_key, cek.as_mut()).map_err(|_| JweError::Open)?;
        Aes256Gcm::new((&*cek).into())
            .decrypt_inout_detached(
                &Nonce::from(iv),
                jwe.protected.as_bytes(),
                text.as_mut_slice().into(),
                &Tag::from(tag),
            )
            .map_err(|_| JweError::Open)?;
        Ok(text)
    }
}

/// Wraps `plaintext` to the guest's public key.
pub fn wrap(recipient: &Jwk, plaintext: &[u8]) -> Result<JweFlattened, JweError> {
    if plaintext.len() > MAX_PLAINTEXT {
        return Err(JweError::TooLarge);
    }
    let Agreed { x, y, kek } = agree(&recipient.sec1()?)?;
    let header = Header {
        alg: ALG.to_owned(),
        enc: ENC.to_owned(),
        epk: Epk { crv: CRV.to_owned(), kty: KTY.to_owned(), x, y },
    };
    let protected = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&header).map_err(|_| JweError::Seal)?);

    let mut cek = Zeroizing::new([0; 32]);
    getrandom::fill(cek.as_mut()).map_err(JweError::Random)?;
    let mut iv = [0; 12];
    getrandom::fill(&mut iv).map_err(JweError::Random)?;
    let mut encrypted_key = [0; 40];
    KwAes256::new((&*kek).into()).wrap_key(cek.as_ref(), &mut encrypted_key).map_err(|_| JweError::Seal)?;
    let mut text = Zeroizing::new(plaintext.to_vec());
    let tag = Aes256Gcm::new((&*cek).into())
        .encrypt_inout_detached(&Nonce::from(iv), protected.as_bytes(), text.as_mut_slice().into())
        .map_err(|_| JweError::Seal)?;
    Ok(JweFlattened {
        protected,
        encrypted_key: URL_SAFE_NO_PAD.encode(encrypted_key),
        iv: URL_SAFE_NO_PAD.encode(iv),
        ciphertext: URL_SAFE_NO_PAD.encode(&*text),
        tag: URL_SAFE_NO_PAD.encode(tag),
    })
}

impl Jwk {
    /// Refuses a key that [`wrap`] could not wrap to: other algorithm or curve, not on the curve.
    pub fn validate(&self) -> Result<(), JweError> {
        self.sec1().and_then(|sec1| on_curve("tee-pubkey", &sec1)).map(|_| ())
    }

    fn sec1(&self) -> Result<[u8; 65], JweError> {
        require("tee-pubkey.kty", &self.kty, KTY)?;
        require("tee-pubkey.crv", &self.crv, CRV)?;
        require("tee-pubkey.alg", &self.alg, ALG)?;
        sec1("tee-pubkey", &self.x, &self.y)
    }
}

/// Concat KDF, SHA-256, one round (RFC 7518 section 4.6.2): AlgorithmID is the `alg`, PartyUInfo and
/// PartyVInfo are empty, SuppPubInfo is the key's 256 bits.
fn key_encryption_key(shared: &[u8]) -> Zeroizing<[u8; 32]> {
    let mut hash = Sha256::new();
    hash.update(1u32.to_be_bytes());
    hash.update(shared);
    hash.update((ALG.len() as u32).to_be_bytes());
    hash.update(ALG);
    hash.update(0u32.to_be_bytes());
    hash.update(0u32.to_be_bytes());
    hash.update(256u32.to_be_bytes());
    Zeroizing::new(hash.finalize().into())
}

fn coordinates(key: &PublicKey) -> (String, String) {
    let point = key.to_sec1_point(false);
    let bytes = point.as_bytes(); // 04 ‖ x ‖ y
    (URL_SAFE_NO_PAD.encode(&bytes[1..33]), URL_SAFE_NO_PAD.encode(&bytes[33..65]))
}

/// 04 ‖ x ‖ y (SEC 1 section 2.3.3).
fn sec1(part: &'static str, x: &str, y: &str) -> Result<[u8; 65], JweError> {
    let mut sec1 = [4; 65];
    sec1[1..33].copy_from_slice(&fixed::<32>(part, x)?);
    sec1[33..].copy_from_slice(&fixed::<32>(part, y)?);
    Ok(sec1)
}

fn on_curve(part: &'static str, sec1: &[u8; 65]) -> Result<PublicKey, JweError> {
    PublicKey::from_sec1_bytes(sec1).map_err(|_| JweError::Point(part))
}

/// The sender's half of the agreement.
struct Agreed {
    x: String,
    y: String,
    kek: Zeroizing<[u8; 32]>,
}

/// The broker's side of each release. By ring, which is several times as fast at it; the guest keeps its
/// key for more than one answer, and ring's keys are for one.
fn agree(recipient: &[u8; 65]) -> Result<Agreed, JweError> {
    let random = SystemRandom::new();
    let ephemeral = EphemeralPrivateKey::generate(&ECDH_P256, &random).map_err(|_| JweError::Seal)?;
    let public = ephemeral.compute_public_key().map_err(|_| JweError::Seal)?;
    let (x, y) = match public.as_ref().strip_prefix(&[4]).and_then(|xy| xy.split_at_checked(32)) {
        Some((x, y)) => (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y)),
        None => return Err(JweError::Seal),
    };
    // Refuses points that are not on the curve, and the one at infinity.
    let recipient = UnparsedPublicKey::new(&ECDH_P256, recipient);
    agree_ephemeral(ephemeral, &recipient, |shared| Agreed { x, y, kek: key_encryption_key(shared) })
        .map_err(|_| JweError::Point("tee-pubkey"))
}

fn require(part: &'static str, value: &str, want: &str) -> Result<(), JweError> {
    if value == want { Ok(()) } else { Err(JweError::Algorithm(part)) }
}

fn decode(part: &'static str, text: &str) -> Result<Vec<u8>, JweError> {
    URL_SAFE_NO_PAD.decode(text).map_err(|_| JweError::Base64(part))
}

fn fixed<const N: usize>(part: &'static str, text: &str) -> Result<[u8; N], JweError> {
    if text.len() > MAX_HEADER {
        return Err(JweError::Length { part, expected: N, actual: text.len() / 4 * 3 });
    }
    let bytes = decode(part, text)?;
    let actual = bytes.len();
    bytes.try_into().map_err(|_| JweError::Length { part, expected: N, actual })
}

#[cfg(test)]
mod tests;

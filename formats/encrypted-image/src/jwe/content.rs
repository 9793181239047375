//! Content encryption: AES-GCM (RFC 7518 section 5.3) and AES-CBC with HMAC (section 5.2). Tags are whole
//! and compared in constant time; nothing is decrypted that they don't cover.

use aes::cipher::consts::U12;
use aes::{Aes128, Aes192, Aes256};
use aes_gcm::{AeadInOut, AesGcm, KeyInit, Nonce, Tag};
use cbc::Decryptor;
use cbc::cipher::block_padding::Pkcs7;
use cbc::cipher::{BlockModeDecrypt, KeyIvInit};
use hmac::{Hmac, Mac};
use sha2::{Sha256, Sha384, Sha512};
use zeroize::Zeroizing;

use super::message::Message;
use super::{JweError, MAX_PLAINTEXT};

/// As `enc` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encryption {
    A128Gcm,
    A192Gcm,
    A256Gcm,
    A128CbcHs256,
    A192CbcHs384,
    A256CbcHs512,
}

pub(super) struct Sealed {
    pub(super) iv: Vec<u8>,
    pub(super) ciphertext: Vec<u8>,
    pub(super) tag: [u8; 16],
}

/// Name, key, IV and tag in bytes.
const ALL: [(Encryption, &str, usize, usize, usize); 6] = [
    (Encryption::A128Gcm, "A128GCM", 16, 12, 16),
    (Encryption::A192Gcm, "A192GCM", 24, 12, 16),
    (Encryption::A256Gcm, "A256GCM", 32, 12, 16),
    (Encryption::A128CbcHs256, "A128CBC-HS256", 32, 16, 16),
    (Encryption::A192CbcHs384, "A192CBC-HS384", 48, 16, 24),
    (Encryption::A256CbcHs512, "A256CBC-HS512", 64, 16, 32),
];

/// Bytes that nobody can guess; none if the system has no randomness.
pub(super) fn random(size: usize) -> Option<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(vec![0; size]);
    getrandom::fill(&mut bytes).ok()?;
    Some(bytes)
}

impl Encryption {
    pub(super) fn from_name(name: &str) -> Option<Self> {
        ALL.iter().find(|row| row.1 == name).map(|row| row.0)
    }

    const fn row(self) -> (Self, &'static str, usize, usize, usize) {
        ALL[self as usize]
    }

    pub(super) const fn name(self) -> &'static str {
        self.row().1
    }

    pub(super) const fn key_size(self) -> usize {
        self.row().2
    }

    /// Exact sizes of IV and tag: a shorter tag would be cheaper to forge.
    pub(super) fn check_sizes(self, message: &Message) -> Result<(), JweError> {
        let (_, _, _, iv, tag) = self.row();
        if message.iv.len() != iv {
            return Err(JweError::Malformed("'iv' has another size than its algorithm's"));
        }
        if message.tag.len() != tag {
            return Err(JweError::Malformed("'tag' has another size than its algorithm's"));
        }
        // Padding adds up to a block.
        if message.ciphertext.len() > MAX_PLAINTEXT + 16 {
            return Err(JweError::Malformed("'ciphertext' is larger than any private options"));
        }
        Ok(())
    }

    /// None if anything is wrong: key, IV, tag, AAD or ciphertext.
    pub(super) fn open(self, key: &[u8], message: &Message, aad: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        match self {
            Self::A128Gcm => open_gcm::<AesGcm<Aes128, U12>>(key, message, aad),
            Self::A192Gcm => open_gcm::<AesGcm<Aes192, U12>>(key, message, aad),
            Self::A256Gcm => open_gcm::<AesGcm<Aes256, U12>>(key, message, aad),
            Self::A128CbcHs256 => open_cbc::<Hmac<Sha256>, Decryptor<Aes128>>(key, message, aad),
            Self::A192CbcHs384 => open_cbc::<Hmac<Sha384>, Decryptor<Aes192>>(key, message, aad),
            Self::A256CbcHs512 => open_cbc::<Hmac<Sha512>, Decryptor<Aes256>>(key, message, aad),
        }
    }

    /// A256GCM only: nothing else is written.
    pub(super) fn seal(self, key: &[u8], aad: &[u8], plain: &[u8]) -> Option<Sealed> {
        let cipher = AesGcm::<Aes256, U12>::new_from_slice(key).ok()?;
        let mut iv = [0; 12];
        getrandom::fill(&mut iv).ok()?;
        let mut buffer = Zeroizing::new(plain.to_vec());
        let tag = cipher.encrypt_inout_detached(&Nonce::from(iv), aad, buffer.as_mut_slice().into()).ok()?;
        Some(Sealed { iv: iv.to_vec(), ciphertext: buffer.to_vec(), tag: tag.into() })
    }
}

fn open_gcm<C>(key: &[u8], message: &Message, aad: &[u8]) -> Option<Zeroizing<Vec<u8>>>
where
    C: AeadInOut<NonceSize = U12, TagSize = aes::cipher::consts::U16> + KeyInit,
{
    let cipher = C::new_from_slice(key).ok()?;
    let iv: [u8; 12] = message.iv.as_slice().try_into().ok()?;
    let tag: [u8; 16] = message.tag.as_slice().try_into().ok()?;
    let mut plain = message.ciphertext.clone();
    cipher
        .decrypt_inout_detached(&Nonce::from(iv), aad, plain.as_mut_slice().into(), &Tag::from(tag))
        .ok()?;
    Some(plain)
}

/// RFC 7518 section 5.2.2.2: the first half of the key authenticates, the second encrypts.
fn open_cbc<M, D>(key: &[u8], message: &Message, aad: &[u8]) -> Option<Zeroizing<Vec<u8>>>
where
    M: Mac + KeyInit,
    D: BlockModeDecrypt + KeyIvInit,
{
    let (mac_key, key) = key.split_at_checked(key.len() / 2)?;
    let mut mac = <M as KeyInit>::new_from_slice(mac_key).ok()?;
    mac.update(aad);
    mac.update(&message.iv);
    mac.update(&message.ciphertext);
    mac.update(&(aad.len() as u64 * 8).to_be_bytes());
    mac.verify_truncated_left(&message.tag).ok()?;
    let mut plain = message.ciphertext.clone();
    let length = D::new_from_slices(key, &message.iv).ok()?.decrypt_padded::<Pkcs7>(&mut plain).ok()?.len();
    plain.truncate(length);
    Some(plain)
}

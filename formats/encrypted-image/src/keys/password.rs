//! Private keys under a password: PKCS #8 with PBES2 (RFC 8018 section 6.2) and OpenSSL's traditional PEM.
//! Apart from the rest: only programs that ask for passwords carry it.

use aes::cipher::block_padding::Pkcs7;
use aes::cipher::{BlockModeDecrypt, KeyIvInit};
use md5::{Digest, Md5};
use pkcs5::EncryptionScheme;
use pkcs5::pbes2::Kdf;
use zeroize::Zeroizing;

use super::KeyError;
use super::der::{NotDer, OCTET_STRING, Reader, SEQUENCE};
use super::pem::Block;

/// Rounds of PBKDF2: a few seconds. Writers use up to 600,000.
const MAX_ITERATIONS: u32 = 5_000_000;
/// Memory of scrypt in bytes. OpenSSL's default takes 16 MiB.
const MAX_SCRYPT_MEMORY: u64 = 128 << 20;
/// Passes of scrypt over its memory.
const MAX_SCRYPT_PASSES: u16 = 16;

/// Opens `EncryptedPrivateKeyInfo`. Wrong passwords are found by the padding, or by who parses the result.
pub(super) fn open_pkcs8(bytes: &[u8], password: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let malformed = |NotDer| KeyError::Malformed("encrypted PKCS #8 key");
    let mut info = Reader::only(bytes, SEQUENCE).map_err(malformed)?;
    let algorithm = info.next().map_err(malformed)?.whole;
    let ciphertext = info.take(OCTET_STRING).map_err(malformed)?;
    info.finish().map_err(malformed)?;
    let scheme = EncryptionScheme::try_from(algorithm)
        .map_err(|_| KeyError::Cipher("an algorithm other than PBES2 with AES"))?;
    let scheme = scheme.pbes2().ok_or(KeyError::Cipher("PBES1"))?;
    match &scheme.kdf {
        Kdf::Pbkdf2(cost) if cost.iteration_count > MAX_ITERATIONS => {
            return Err(KeyError::DerivationCost("rounds"));
        }
        Kdf::Pbkdf2(_) => {}
        Kdf::Scrypt(cost) => {
            let memory = cost.cost_parameter.saturating_mul(u64::from(cost.block_size) * 128);
            if memory > MAX_SCRYPT_MEMORY || cost.parallelization > MAX_SCRYPT_PASSES {
                return Err(KeyError::DerivationCost("memory"));
            }
        }
        _ => return Err(KeyError::Cipher("an unknown key derivation")),
    }
    let mut plain = Zeroizing::new(ciphertext.to_vec());
    let length = scheme.decrypt_in_place(password, &mut plain).map_err(|_| KeyError::Password)?.len();
    plain.truncate(length);
    Ok(plain)
}

/// Opens a block with `DEK-Info`: AES in CBC mode under a key that MD5 makes of password and IV
/// (`EVP_BytesToKey` with one round).
pub(super) fn open_traditional(block: &Block<'_>, password: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let (cipher, iv) =
        block.dek_info.and_then(|info| info.split_once(',')).ok_or(KeyError::Pem("DEK-Info"))?;
    let key_size = match cipher {
        "AES-128-CBC" => 16,
        "AES-192-CBC" => 24,
        "AES-256-CBC" => 32,
        "DES-EDE3-CBC" => return Err(KeyError::Cipher("triple DES")),
        _ => return Err(KeyError::Cipher("a cipher other than AES-CBC")),
    };
    let mut salt = [0; 16];
    hex::decode_to_slice(iv, &mut salt).map_err(|_| KeyError::Pem("DEK-Info"))?;
    let mut key = Zeroizing::new([0; 32]);
    let mut digest = Zeroizing::new([0; 16]);
    for (round, half) in key.chunks_exact_mut(16).enumerate() {
        let mut hash = Md5::new();
        if round > 0 {
            hash.update(digest.as_ref());
        }
        hash.update(password);
        hash.update(&salt[..8]);
        digest = Zeroizing::new(hash.finalize().into());
        half.copy_from_slice(digest.as_ref());
    }
    let mut plain = block.decode()?;
    let length = decrypt(&key[..key_size], &salt, &mut plain).ok_or(KeyError::Password)?;
    plain.truncate(length);
    Ok(plain)
}

fn decrypt(key: &[u8], iv: &[u8], buffer: &mut [u8]) -> Option<usize> {
    fn run<C: BlockModeDecrypt + KeyIvInit>(key: &[u8], iv: &[u8], buffer: &mut [u8]) -> Option<usize> {
        Some(C::new_from_slices(key, iv).ok()?.decrypt_padded::<Pkcs7>(buffer).ok()?.len())
    }
    match key.len() {
        16 => run::<cbc::Decryptor<aes::Aes128>>(key, iv, buffer),
        24 => run::<cbc::Decryptor<aes::Aes192>>(key, iv, buffer),
        _ => run::<cbc::Decryptor<aes::Aes256>>(key, iv, buffer),
    }
}

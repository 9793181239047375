//! RSA keys and the four operations on them. Decryption is blinded and does its arithmetic in constant
//! time, as far as the crate `rsa` offers it.

use std::fmt;

use getrandom::SysRng;
use rsa::traits::{PaddingScheme, PublicKeyParts};
use rsa::{BoxedUint, Oaep, Pkcs1v15Encrypt, RsaPrivateKey, RsaPublicKey};
use sha1::Sha1;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::{Hints, KeyError};
use crate::pkcs11::OaepHash;

/// Fewest bits of a modulus.
pub const MIN_RSA_BITS: usize = 2048;
/// Most bits of a modulus.
pub const MAX_RSA_BITS: usize = 8192;

/// RSA private key of two primes.
#[derive(Clone)]
pub struct RsaPrivate(RsaPrivateKey);

impl fmt::Debug for RsaPrivate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RsaPrivate({} bits, ..)", self.0.n().bits())
    }
}

impl RsaPrivate {
    /// Takes big-endian numbers without leading zeros; no primes: they are computed from the rest.
    pub(super) fn from_numbers(n: &[u8], e: &[u8], d: &[u8], primes: &[&[u8]]) -> Result<Self, KeyError> {
        let (n, e) = public_numbers(n, e)?;
        let inconsistent = KeyError::Inconsistent("RSA");
        if d.len() > MAX_RSA_BITS / 8 || primes.iter().any(|prime| prime.len() > MAX_RSA_BITS / 16) {
            return Err(inconsistent);
        }
        let primes = primes.iter().map(|prime| number(prime)).collect::<Result<_, _>>()?;
        RsaPrivateKey::from_components(n, e, number(d)?, primes).map(Self).map_err(|_| inconsistent)
    }

    /// Size of the modulus in bytes, which is that of each ciphertext.
    pub(crate) fn size(&self) -> usize {
        self.0.size()
    }

    /// The public half.
    pub fn public(&self) -> RsaPublic {
        RsaPublic { key: self.0.to_public_key(), hints: Hints::default() }
    }

    /// None if the padding is wrong. Callers must not let that be told from a wrong key inside.
    pub(crate) fn decrypt_oaep(&self, hash: OaepHash, ciphertext: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        match hash {
            OaepHash::Sha1 => Oaep::<Sha1>::new().decrypt(Some(&mut SysRng), &self.0, ciphertext),
            OaepHash::Sha256 => Oaep::<Sha256>::new().decrypt(Some(&mut SysRng), &self.0, ciphertext),
        }
        .ok()
        .map(Zeroizing::new)
    }

    /// With implicit rejection: wrong padding gives bytes that depend on key and ciphertext, and look
    /// like any others. None only if the ciphertext's length or range is wrong, which everybody sees.
    pub(crate) fn decrypt_v15(&self, ciphertext: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        Pkcs1v15Encrypt.decrypt(Some(&mut SysRng), &self.0, ciphertext).ok().map(Zeroizing::new)
    }
}

/// RSA public key.
#[derive(Clone)]
pub struct RsaPublic {
    key: RsaPublicKey,
    pub(crate) hints: Hints,
}

impl fmt::Debug for RsaPublic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RsaPublic({} bits)", self.key.n().bits())
    }
}

/// Equal when the numbers are.
impl PartialEq for RsaPublic {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for RsaPublic {}

impl RsaPublic {
    /// Takes big-endian numbers without leading zeros.
    pub(super) fn from_numbers(n: &[u8], e: &[u8]) -> Result<Self, KeyError> {
        let (n, e) = public_numbers(n, e)?;
        let key = RsaPublicKey::new_with_size_limits(n, e, MIN_RSA_BITS..=MAX_RSA_BITS)
            .map_err(|_| KeyError::Inconsistent("RSA"))?;
        Ok(Self { key, hints: Hints::default() })
    }

    pub(super) fn with_hints(mut self, hints: Hints) -> Self {
        self.hints = hints;
        self
    }

    /// Size of the modulus in bytes, which is that of each ciphertext.
    pub fn size(&self) -> usize {
        self.key.size()
    }

    /// RSA-OAEP with an empty label and the same hash in its mask. None if there is no randomness, or the
    /// secret is longer than the key can carry.
    pub fn encrypt_oaep(&self, hash: OaepHash, secret: &[u8]) -> Option<Vec<u8>> {
        match hash {
            OaepHash::Sha1 => Oaep::<Sha1>::new().encrypt(&mut SysRng, &self.key, secret),
            OaepHash::Sha256 => Oaep::<Sha256>::new().encrypt(&mut SysRng, &self.key, secret),
        }
        .ok()
    }

    /// None if there is no randomness, or the secret is longer than the key can carry.
    pub(crate) fn encrypt_v15(&self, secret: &[u8]) -> Option<Vec<u8>> {
        Pkcs1v15Encrypt.encrypt(&mut SysRng, &self.key, secret).ok()
    }
}

/// Both read, sizes checked.
fn public_numbers(n: &[u8], e: &[u8]) -> Result<(BoxedUint, BoxedUint), KeyError> {
    let bits = n.len() * 8 - n.first().map_or(0, |first| first.leading_zeros() as usize);
    if !(MIN_RSA_BITS..=MAX_RSA_BITS).contains(&bits) {
        return Err(KeyError::RsaSize(bits));
    }
    // RFC 8017 has no bound; peers' is 2^33.
    if e.is_empty() || e.len() > 5 {
        return Err(KeyError::Malformed("RSA public exponent"));
    }
    Ok((number(n)?, number(e)?))
}

fn number(bytes: &[u8]) -> Result<BoxedUint, KeyError> {
    BoxedUint::from_be_slice(bytes, bytes.len() as u32 * 8).map_err(|_| KeyError::Malformed("RSA key"))
}

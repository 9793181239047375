//! Writes JWEs of every algorithm, and wrong ones: each part can be set before the content is sealed over it.

use aes::cipher::consts::U12;
use aes::{Aes128, Aes192, Aes256};
use aes_gcm::{AeadInOut, AesGcm, KeyInit, Nonce};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cbc::Encryptor;
use cbc::cipher::block_padding::Pkcs7;
use cbc::cipher::{BlockModeEncrypt, KeyIvInit};
use hmac::{Hmac, Mac};
use serde_json::{Value, json};
use sha2::{Sha256, Sha384, Sha512};

use super::super::{RsaOaep, algorithm};
use crate::keys::PublicKey;

pub(super) const ENCRYPTIONS: [&str; 6] =
    ["A128GCM", "A192GCM", "A256GCM", "A128CBC-HS256", "A192CBC-HS384", "A256CBC-HS512"];

pub(super) const PLAIN: &[u8] = b"private options";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Flattened,
    General,
    Compact,
}

/// One recipient's JWE before it is sealed.
#[derive(Clone)]
pub(super) struct Jwe {
    pub(super) enc: String,
    pub(super) cek: Vec<u8>,
    /// All headers; where they go is the form's matter.
    pub(super) header: Value,
    pub(super) encrypted_key: Vec<u8>,
    pub(super) plain: Vec<u8>,
    pub(super) aad: Option<&'static str>,
}

impl Jwe {
    pub(super) fn new(recipient: &PublicKey, enc: &str) -> Self {
        let size = match enc {
            "A128GCM" => 16,
            "A192GCM" => 24,
            "A192CBC-HS384" => 48,
            "A256CBC-HS512" => 64,
            _ => 32,
        };
        Self::with_key(recipient, enc, (1..=size).collect())
    }

    /// With a content key that may have the wrong size.
    pub(super) fn with_key(recipient: &PublicKey, enc: &str, cek: Vec<u8>) -> Self {
        let (mut header, encrypted_key) = algorithm::wrap(recipient, RsaOaep::Sha1, &cek).unwrap();
        header["enc"] = enc.into();
        Self { enc: enc.to_owned(), cek, header, encrypted_key, plain: PLAIN.to_vec(), aad: None }
    }

    pub(super) fn write(&self, form: Form) -> Vec<u8> {
        let (protected, rest) = match form {
            Form::General => {
                let mut rest = self.header.clone();
                let enc = rest.as_object_mut().unwrap().remove("enc");
                (json!({ "enc": enc }), rest)
            }
            Form::Flattened | Form::Compact => (self.header.clone(), Value::Null),
        };
        let value = self.seal(&protected.to_string());
        match form {
            Form::Flattened => value.to_string(),
            Form::General => {
                let mut value = value;
                let key = value.as_object_mut().unwrap().remove("encrypted_key");
                value["recipients"] = json!([{ "header": rest, "encrypted_key": key }]);
                value.to_string()
            }
            Form::Compact => ["protected", "encrypted_key", "iv", "ciphertext", "tag"]
                .map(|name| value[name].as_str().unwrap().to_owned())
                .join("."),
        }
        .into_bytes()
    }

    /// Flattened, with this protected header and no other.
    pub(super) fn seal(&self, protected: &str) -> Value {
        let protected = URL_SAFE_NO_PAD.encode(protected);
        let aad = match self.aad {
            None => protected.clone(),
            Some(aad) => format!("{protected}.{aad}"),
        };
        let (iv, ciphertext, tag) = self.encrypt(aad.as_bytes());
        let mut value = json!({
            "protected": protected,
            "encrypted_key": URL_SAFE_NO_PAD.encode(&self.encrypted_key),
            "iv": URL_SAFE_NO_PAD.encode(iv),
            "ciphertext": URL_SAFE_NO_PAD.encode(ciphertext),
            "tag": URL_SAFE_NO_PAD.encode(tag),
        });
        if let Some(aad) = self.aad {
            value["aad"] = aad.into();
        }
        value
    }

    fn encrypt(&self, aad: &[u8]) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
        match self.enc.as_str() {
            "A128GCM" => gcm::<AesGcm<Aes128, U12>>(&self.cek, aad, &self.plain),
            "A192GCM" => gcm::<AesGcm<Aes192, U12>>(&self.cek, aad, &self.plain),
            "A128CBC-HS256" => cbc::<Hmac<Sha256>, Encryptor<Aes128>>(&self.cek, aad, &self.plain),
            "A192CBC-HS384" => cbc::<Hmac<Sha384>, Encryptor<Aes192>>(&self.cek, aad, &self.plain),
            "A256CBC-HS512" => cbc::<Hmac<Sha512>, Encryptor<Aes256>>(&self.cek, aad, &self.plain),
            _ => {
                // Keys of a wrong size are cut or filled: what opens them must look at the size first.
                let mut key = self.cek.clone();
                key.resize(32, 0);
                gcm::<AesGcm<Aes256, U12>>(&key, aad, &self.plain)
            }
        }
    }
}

fn gcm<C>(key: &[u8], aad: &[u8], plain: &[u8]) -> (Vec<u8>, Vec<u8>, Vec<u8>)
where
    C: AeadInOut<NonceSize = U12> + KeyInit,
{
    let mut buffer = plain.to_vec();
    let nonce = Nonce::from([9; 12]);
    let cipher = C::new_from_slice(key).unwrap();
    let tag = cipher.encrypt_inout_detached(&nonce, aad, buffer.as_mut_slice().into()).unwrap();
    (nonce.to_vec(), buffer, tag.to_vec())
}

fn cbc<M, E>(key: &[u8], aad: &[u8], plain: &[u8]) -> (Vec<u8>, Vec<u8>, Vec<u8>)
where
    M: Mac + KeyInit,
    E: BlockModeEncrypt + KeyIvInit,
{
    let (mac_key, key) = key.split_at(key.len() / 2);
    let iv = [9; 16];
    let mut buffer = plain.to_vec();
    buffer.resize(plain.len() + 16, 0);
    let cipher = E::new_from_slices(key, &iv).unwrap();
    let length = cipher.encrypt_padded::<Pkcs7>(&mut buffer, plain.len()).unwrap().len();
    buffer.truncate(length);
    let mut mac = <M as KeyInit>::new_from_slice(mac_key).unwrap();
    for part in [aad, &iv, &buffer, &(aad.len() as u64 * 8).to_be_bytes()] {
        mac.update(part);
    }
    let tag = mac.finalize().into_bytes()[..mac_key.len()].to_vec();
    (iv.to_vec(), buffer, tag)
}

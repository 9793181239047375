//! Messages put together part by part, so that any part can be a wrong one.

use super::super::*;
use super::{certificate, open_with};
use crate::keys::RsaPublic;
use crate::keys::der::{INTEGER, NULL, OCTET_STRING, OID, SEQUENCE, SET, context, context_primitive, value};

pub(super) const PLAIN: &[u8] = b"private options";

/// A message, part by part; each can be replaced before it is put together.
#[derive(Clone)]
pub(super) struct Parts {
    pub(super) kind: &'static [u8],
    pub(super) recipients: Vec<Vec<u8>>,
    pub(super) content_type: &'static [u8],
    pub(super) algorithm: Vec<u8>,
    pub(super) parameters: Vec<u8>,
    pub(super) content: Vec<u8>,
    pub(super) end: Vec<u8>,
}

pub(super) const AES: [u8; 8] = [0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x01];
pub(super) const NONCE: [u8; 12] = [7; 12];

pub(super) fn aes(child: u8) -> Vec<u8> {
    value(OID, &[&AES, &[child]])
}

pub(super) fn der_parameters(nonce: &[u8], tag_size: u8) -> Vec<u8> {
    value(SEQUENCE, &[&value(OCTET_STRING, &[nonce]), &value(INTEGER, &[&[tag_size]])])
}

pub(super) fn ocicrypt_parameters(nonce: &[u8], tag_size: u8) -> Vec<u8> {
    let inner = [value(context_primitive(4), &[nonce]), value(INTEGER, &[&[tag_size]])].concat();
    value(message::PRIMITIVE_SEQUENCE, &[&value(SEQUENCE, &[&inner])])
}

pub(super) fn recipient(certificate: &Certificate, algorithm: &[u8], encrypted_key: &[u8]) -> Vec<u8> {
    let id = value(SEQUENCE, &[certificate.issuer(), &value(INTEGER, &[certificate.serial()])]);
    let key = value(OCTET_STRING, &[encrypted_key]);
    value(SEQUENCE, &[&value(INTEGER, &[&[0]]), &id, &value(SEQUENCE, &[algorithm]), &key])
}

pub(super) fn v15() -> Vec<u8> {
    [value(OID, &[message::RSA_ENCRYPTION]), value(NULL, &[])].concat()
}

pub(super) fn rsa(name: &str) -> RsaPublic {
    match certificate(name).public_key() {
        PublicKey::Rsa(key) => key.clone(),
        PublicKey::Ec(_) => unreachable!(),
    }
}

/// ciphertext ‖ tag.
pub(super) fn gcm(key: &[u8], aad: &[u8]) -> Vec<u8> {
    fn run<C: AeadInOut<NonceSize = U12> + KeyInit>(key: &[u8], aad: &[u8]) -> Vec<u8> {
        let mut buffer = PLAIN.to_vec();
        let cipher = C::new_from_slice(key).unwrap();
        let tag =
            cipher.encrypt_inout_detached(&Nonce::from(NONCE), aad, buffer.as_mut_slice().into()).unwrap();
        buffer.extend_from_slice(&tag);
        buffer
    }
    match key.len() {
        16 => run::<AesGcm<Aes128, U12>>(key, aad),
        24 => run::<AesGcm<Aes192, U12>>(key, aad),
        _ => run::<AesGcm<Aes256, U12>>(key, aad),
    }
}

impl Parts {
    /// For "one", with a content key of this size.
    pub(super) fn new(key_size: u8) -> Self {
        let key = vec![3; key_size.into()];
        let content = value(OCTET_STRING, &[&gcm(&key, &[])]);
        Self {
            kind: message::ENVELOPED_DATA,
            recipients: vec![recipient(&certificate("one"), &v15(), &rsa("one").encrypt_v15(&key).unwrap())],
            content_type: message::DATA,
            algorithm: aes(match key_size {
                16 => 6,
                24 => 26,
                _ => 46,
            }),
            parameters: der_parameters(&NONCE, 16),
            content: value(context(0), &[&content]),
            end: Vec::new(),
        }
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let recipients = value(SET, &[&self.recipients.concat()]);
        let algorithm = value(SEQUENCE, &[&self.algorithm, &self.parameters]);
        let content = value(SEQUENCE, &[&value(OID, &[self.content_type]), &algorithm, &self.content]);
        let data = value(SEQUENCE, &[&value(INTEGER, &[&[0]]), &recipients, &content, &self.end]);
        value(SEQUENCE, &[&value(OID, &[self.kind]), &value(context(0), &[&data])])
    }

    pub(super) fn open(&self) -> Result<Vec<u8>, Pkcs7Error> {
        open_with(&self.bytes(), "one")
    }

    pub(super) fn refused(&self) -> Pkcs7Error {
        self.open().unwrap_err()
    }
}

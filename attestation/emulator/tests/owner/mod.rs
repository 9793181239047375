//! A guest owner as the SEV API describes one: makes sessions, checks measurements, wraps secrets.

use aes::Aes128;
use aes::cipher::{KeyIvInit, StreamCipher};
use hmac::{Hmac, KeyInit, Mac};
use p384::PublicKey;
use p384::ecdsa::SigningKey;
use p384::elliptic_curve::ecdh::diffie_hellman;
use sealpod_emulator::sev::certificate::{Point, Usage, assemble, body};
use sha2::Sha256;

pub(crate) struct Owner {
    pub(crate) key: SigningKey,
    pub(crate) tek: [u8; 16],
    pub(crate) tik: [u8; 16],
}

pub(crate) fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

fn derive(key: &[u8], label: &str, context: &[u8]) -> [u8; 16] {
    let block = mac(key, &[&[1, 0, 0, 0], label.as_bytes(), &[0], context, &[128, 0, 0, 0]]);
    block[..16].try_into().unwrap()
}

fn encrypt(key: [u8; 16], iv: [u8; 16], data: &mut [u8]) {
    ctr::Ctr128BE::<Aes128>::new(&key.into(), &iv.into()).apply_keystream(data);
}

impl Owner {
    pub(crate) fn new(seed: u8) -> Self {
        Self { key: SigningKey::from_slice(&[seed; 48]).unwrap(), tek: [seed ^ 1; 16], tik: [seed ^ 2; 16] }
    }

    /// The owner's Diffie-Hellman certificate. Nobody signs it.
    pub(crate) fn godh(&self) -> [u8; 2084] {
        assemble(&body(Usage::Pdh, &Point::of(&self.key), (0, 0)), [None, None])
    }

    /// The session blob for the platform with this PDH certificate.
    pub(crate) fn session(&self, pdh: &[u8], policy: u32) -> Vec<u8> {
        let mut point = [4; 97];
        for (to, from) in [(1, 20), (49, 92)] {
            for index in 0..48 {
                point[to + index] = pdh[from + 47 - index];
            }
        }
        let peer = PublicKey::from_sec1_bytes(&point).unwrap();
        let shared = diffie_hellman(self.key.as_nonzero_scalar(), peer.as_affine());
        let (nonce, iv) = ([7; 16], [8; 16]);
        let master = derive(shared.raw_secret_bytes(), "sev-master-secret", &nonce);
        let mut keys = [self.tek, self.tik].concat();
        encrypt(derive(&master, "sev-kek", &[]), iv, &mut keys);
        let wrap_mac = mac(&derive(&master, "sev-kik", &[]), &[&keys]);
        let policy_mac = mac(&self.tik, &[&policy.to_le_bytes()]);
        [&nonce[..], &keys, &iv, &wrap_mac, &policy_mac].concat()
    }

    /// What MEASURE has to be.
    pub(crate) fn measure(&self, firmware: [u8; 3], policy: u32, digest: &[u8], nonce: &[u8]) -> [u8; 32] {
        mac(&self.tik, &[&[4], &firmware, &policy.to_le_bytes(), digest, nonce])
    }

    /// Header and ciphertext for the launch with this MEASURE.
    pub(crate) fn secret(&self, plain: &[u8], measure: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let iv = [9; 16];
        let mut data = plain.to_vec();
        encrypt(self.tek, iv, &mut data);
        let length = (data.len() as u32).to_le_bytes();
        let mac = mac(&self.tik, &[&[1], &[0; 4], &iv, &length, &length, &data, measure]);
        ([&[0; 4][..], &iv, &mac].concat(), data)
    }
}

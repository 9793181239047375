//! A platform with SEV in a few lines, with keys of our own, so that one thing at a time can be broken: certificates,
//! LAUNCH_START, LAUNCH_MEASURE, LAUNCH_SECRET. Written from the formats, with none of the verifier's own code.

use std::sync::OnceLock;

use aes::Aes128;
use ctr::Ctr128BE;
use ctr::cipher::{KeyIvInit, StreamCipher};
use p384::ecdsa::signature::hazmat::PrehashSigner;
use p384::ecdsa::{Signature as Ecdsa, SigningKey};
use p384::elliptic_curve::sec1::ToSec1Point;
use p384::{PublicKey, SecretKey};
use ring::rand::SystemRandom;
use ring::signature::{RSA_PSS_SHA256, RsaKeyPair, RsaPublicKeyComponents};
use ring::{digest, hmac};
use rsa::pkcs8::EncodePrivateKey;
use rsa::rand_core::UnwrapErr;
use tee_evidence::sev::{Algorithm, Authority, Certificate, Point, Signature, Unsigned, Usage};

pub(crate) const ARK: usize = 0;
pub(crate) const ASK: usize = 1;
pub(crate) const FOREIGN: usize = 2;

/// An RSA key, one of three that a test process makes once.
fn rsa_key(which: usize) -> &'static RsaKeyPair {
    static KEYS: OnceLock<Vec<RsaKeyPair>> = OnceLock::new();
    let make = || {
        let key = rsa::RsaPrivateKey::new(&mut UnwrapErr(getrandom::SysRng), 2048).unwrap();
        RsaKeyPair::from_pkcs8(key.to_pkcs8_der().unwrap().as_bytes()).unwrap()
    };
    let keys = KEYS.get_or_init(|| {
        std::array::from_fn::<_, 3, _>(|_| std::thread::spawn(make)).map(|key| key.join().unwrap()).into()
    });
    &keys[which]
}

pub(crate) fn modulus(which: usize) -> Vec<u8> {
    RsaPublicKeyComponents::<Vec<u8>>::from(rsa_key(which).public()).n
}

pub(crate) fn rsa_sign(which: usize, message: &[u8]) -> Vec<u8> {
    let key = rsa_key(which);
    let mut signature = vec![0; key.public().modulus_len()];
    key.sign(&RSA_PSS_SHA256, &SystemRandom::new(), message, &mut signature).unwrap();
    signature
}

/// An ARK or ASK, signed by the key that is said.
pub(crate) fn authority(usage: Usage, key: usize, ids: (&[u8; 16], &[u8; 16]), by: usize) -> Vec<u8> {
    let body = Authority::assemble(usage, ids.0, ids.1, &modulus(key), None);
    Authority::assemble(usage, ids.0, ids.1, &modulus(key), Some(&rsa_sign(by, &body)))
}

pub(crate) fn signing_key() -> SigningKey {
    loop {
        let mut bytes = [0; 48];
        getrandom::fill(&mut bytes).unwrap();
        if let Ok(key) = SigningKey::from_slice(&bytes) {
            return key;
        }
    }
}

pub(crate) fn point(key: &PublicKey) -> Point {
    Point::from_sec1(key.to_sec1_point(false).as_bytes().try_into().unwrap()).unwrap()
}

/// ECDSA with SHA-256 or SHA-384, as the algorithm says.
pub(crate) fn ecdsa(key: &SigningKey, by: Usage, algorithm: Algorithm, body: &[u8]) -> Signature {
    let hash = if algorithm == Algorithm::EcdsaSha384 { &digest::SHA384 } else { &digest::SHA256 };
    let signature: Ecdsa = key.sign_prehash(digest::digest(hash, body).as_ref()).unwrap();
    Signature::from_ecdsa(by, algorithm, signature.to_bytes().as_slice().try_into().unwrap())
}

/// A platform's keys, and its certificates as they are handed out.
pub(crate) struct Platform {
    pub(crate) cek_key: SigningKey,
    pub(crate) oca_key: SigningKey,
    pub(crate) pek_key: SigningKey,
    pub(crate) pdh_key: SecretKey,
    pub(crate) ark: Vec<u8>,
    pub(crate) ask: Vec<u8>,
    pub(crate) cek: Vec<u8>,
    pub(crate) oca: Vec<u8>,
    pub(crate) pek: Vec<u8>,
    pub(crate) pdh: Vec<u8>,
    pub(crate) api: (u8, u8),
    pub(crate) build: u8,
}

/// Key ids of ARK and ASK; the ARK's is that of every emulated root.
pub(crate) const ARK_ID: [u8; 16] = *b"SEALPOD-EMULATED";
pub(crate) const ASK_ID: [u8; 16] = [0x13; 16];

impl Platform {
    pub(crate) fn new() -> Self {
        Self::under(&ARK_ID)
    }

    /// One whose root has this key id.
    pub(crate) fn under(ark_id: &[u8; 16]) -> Self {
        let [cek_key, oca_key, pek_key] = [(); 3].map(|()| signing_key());
        let pdh_key = SecretKey::from(&signing_key());
        let mut platform = Self {
            ark: authority(Usage::Ark, ARK, (ark_id, ark_id), ARK),
            ask: authority(Usage::Ask, ASK, (&ASK_ID, ark_id), ARK),
            cek: Vec::new(),
            oca: Vec::new(),
            pek: Vec::new(),
            pdh: Vec::new(),
            cek_key,
            oca_key,
            pek_key,
            pdh_key,
            api: (1, 51),
            build: 6,
        };
        platform.cek = platform.cek_signed_by(ASK);
        let public = |key: &SigningKey| point(&key.verifying_key().into());
        let (oca, pek) = (public(&platform.oca_key), public(&platform.pek_key));
        platform.oca = platform.certificate(Usage::Oca, oca, &[Usage::Oca]);
        platform.pek = platform.certificate(Usage::Pek, pek, &[Usage::Oca, Usage::Cek]);
        let pdh = point(&platform.pdh_key.public_key());
        platform.pdh = platform.certificate(Usage::Pdh, pdh, &[Usage::Pek]);
        platform
    }

    pub(crate) fn unsigned(&self, usage: Usage, key: Point) -> Unsigned {
        let algorithm = if usage == Usage::Pdh { Algorithm::EcdhSha256 } else { Algorithm::EcdsaSha256 };
        Unsigned { api: self.api, usage, algorithm, key }
    }

    /// A certificate for a key, signed by these keys of the platform.
    pub(crate) fn certificate(&self, usage: Usage, key: Point, by: &[Usage]) -> Vec<u8> {
        let unsigned = self.unsigned(usage, key);
        let mut slots = by.iter().map(|by| {
            let key = match by {
                Usage::Cek => &self.cek_key,
                Usage::Oca => &self.oca_key,
                _ => &self.pek_key,
            };
            // Both hashes, so that both are seen to work.
            let algorithm = if *by == Usage::Cek { Algorithm::EcdsaSha384 } else { Algorithm::EcdsaSha256 };
            ecdsa(key, *by, algorithm, &unsigned.body())
        });
        Certificate::assemble(&unsigned, &[slots.next(), slots.next()]).to_vec()
    }

    pub(crate) fn cek_signed_by(&self, ask: usize) -> Vec<u8> {
        let unsigned = self.unsigned(Usage::Cek, point(&self.cek_key.verifying_key().into()));
        let signature = rsa_sign(ask, &unsigned.body());
        let signature = Signature::from_rsa(Usage::Ask, Algorithm::RsaSha256, &signature);
        Certificate::assemble(&unsigned, &[signature, None]).to_vec()
    }

    /// The CEK as firmware exports it.
    pub(crate) fn cek_unsigned(&self) -> Vec<u8> {
        let unsigned = self.unsigned(Usage::Cek, point(&self.cek_key.verifying_key().into()));
        Certificate::assemble(&unsigned, &[None, None]).to_vec()
    }

    /// `cert-chain` of `query-sev-capabilities`.
    pub(crate) fn chain(&self) -> Vec<u8> {
        [self.pek.as_slice(), &self.oca, &self.cek].concat()
    }

    /// AMD's file for the product.
    pub(crate) fn authorities(&self) -> Vec<u8> {
        [self.ask.as_slice(), &self.ark].concat()
    }

    /// LAUNCH_START: unwraps the session's keys, or says what is wrong.
    pub(crate) fn launch_start(
        &self,
        godh: &[u8],
        session: &[u8],
        policy: u32,
    ) -> Result<Guest, &'static str> {
        let godh = Certificate::parse(godh).map_err(|_| "godh")?;
        let peer = PublicKey::from_sec1_bytes(&godh.key().to_sec1()).map_err(|_| "godh point")?;
        let z = p384::ecdh::diffie_hellman(self.pdh_key.to_nonzero_scalar(), peer.as_affine());
        let part = |from: usize, len: usize| &session[from..from + len];
        let master = kdf(z.raw_secret_bytes(), b"sev-master-secret", part(0, 16));
        let (kek, kik) = (kdf(&master, b"sev-kek", b""), kdf(&master, b"sev-kik", b""));
        if sign(&kik, part(16, 32)) != part(64, 32) {
            return Err("wrap mac");
        }
        let mut keys: [u8; 32] = part(16, 32).try_into().unwrap();
        crypt(&kek, part(48, 16), &mut keys);
        let half = |from: usize| -> [u8; 16] { keys[from..from + 16].try_into().unwrap() };
        let (tek, tik) = (half(0), half(16));
        if sign(&tik, &policy.to_le_bytes()) != part(96, 32) {
            return Err("policy mac");
        }
        let minimum = ((policy >> 16) as u8, (policy >> 24) as u8);
        if self.api < minimum {
            return Err("firmware too old");
        }
        Ok(Guest { tek, tik, policy, api: self.api, build: self.build })
    }
}

/// A guest that is being launched.
pub(crate) struct Guest {
    tek: [u8; 16],
    tik: [u8; 16],
    pub(crate) policy: u32,
    pub(crate) api: (u8, u8),
    pub(crate) build: u8,
}

impl Guest {
    /// LAUNCH_MEASURE: measure and nonce.
    pub(crate) fn measure(&self, digest: &[u8; 32]) -> [u8; 48] {
        let mut mnonce = [0; 16];
        getrandom::fill(&mut mnonce).unwrap();
        let version = [4, self.api.0, self.api.1, self.build];
        let message = [&version[..], &self.policy.to_le_bytes(), digest, &mnonce].concat();
        let mut out = [0; 48];
        out[..32].copy_from_slice(&sign(&self.tik, &message));
        out[32..].copy_from_slice(&mnonce);
        out
    }

    /// LAUNCH_SECRET: the table, if the packet is for this launch.
    pub(crate) fn inject(&self, header: &[u8], data: &[u8], measurement: &[u8; 48]) -> Option<Vec<u8>> {
        let (flags, iv, mac) = (&header[..4], &header[4..20], &header[20..52]);
        let len = (data.len() as u32).to_le_bytes();
        let message = [&[1], flags, iv, &len, &len, data, &measurement[..32]].concat();
        if sign(&self.tik, &message) != mac {
            return None;
        }
        let mut table = data.to_vec();
        crypt(&self.tek, iv, &mut table);
        Some(table)
    }
}

fn kdf(key: &[u8], label: &[u8], context: &[u8]) -> [u8; 16] {
    let message = [&[1, 0, 0, 0], label, &[0], context, &[128, 0, 0, 0]].concat();
    sign(key, &message)[..16].try_into().unwrap()
}

fn sign(key: &[u8], message: &[u8]) -> [u8; 32] {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message).as_ref().try_into().unwrap()
}

fn crypt(key: &[u8; 16], iv: &[u8], data: &mut [u8]) {
    let iv: [u8; 16] = iv.try_into().unwrap();
    Ctr128BE::<Aes128>::new(key.into(), (&iv).into()).apply_keystream(data);
}

//! Private OpenPGP keys, from files of `gpg --export-secret-keys`, and how they open a layer's key.

use std::borrow::Cow;

use encrypted_image::{PrivateOptions, Scheme, Unwrap, UnwrapError, WrappedKey};
use pgp::crypto::public_key::PublicKeyAlgorithm;
use pgp::packet::{PacketHeader, PublicKeyEncryptedSessionKey as SessionKeyPacket, SecretKey, SecretSubkey};
use pgp::types::{DecryptionKey, KeyDetails, Password, SecretParams, Tag};
use zeroize::Zeroizing;

use super::message::{self, KIND, MessageError, OpenSessionKey, SessionKey};
use super::packets::{self, FrameError, Packet, tag};
use super::ring::hexadecimal;
use super::{PgpError, armor};

/// The largest file of private keys, in bytes.
const FILE_LIMIT: usize = 4 << 20;

/// Packets of such a file.
const MAX_PACKETS: usize = 1 << 14;

/// Keys of such a file that are tried: each takes a slow derivation of its password.
const MAX_KEYS: usize = 64;

/// A file that holds private OpenPGP keys, binary or armored?
pub fn is_secret_key_file(bytes: &[u8]) -> bool {
    if armor::announces(bytes, "PRIVATE KEY BLOCK-----") {
        return true;
    }
    packets::first_tag(bytes) == Some(tag::SECRET_KEY)
}

/// Private keys, unlocked.
pub struct PgpKeys {
    file: String,
    keys: Vec<PrivateKey>,
    /// Keys that are there and stay locked, with the reason.
    locked: Vec<Locked>,
}

enum PrivateKey {
    Primary(SecretKey),
    Subkey(SecretSubkey),
}

struct Locked {
    id: [u8; 8],
    reason: &'static str,
}

impl std::fmt::Debug for PgpKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.fingerprints()).finish()
    }
}

impl PgpKeys {
    /// The private keys of a file (`file` is its name, for errors), each unlocked with the password.
    ///
    /// # Errors
    /// When it holds no private key for decryption, or the password opens none of them.
    pub fn read(file: &str, bytes: &[u8], password: Option<&[u8]>) -> Result<Self, PgpError> {
        let named = || file.to_owned();
        let bytes = match armor::packets_of(file, bytes)? {
            Cow::Owned(bytes) => Zeroizing::new(bytes),
            Cow::Borrowed(bytes) => Zeroizing::new(bytes.to_vec()),
        };
        let packets = packets::read(&bytes, FILE_LIMIT, MAX_PACKETS)
            .map_err(|source| PgpError::File { file: named(), source })?;
        let secrets: Vec<&Packet> =
            packets.iter().filter(|it| matches!(it.tag, tag::SECRET_KEY | tag::SECRET_SUBKEY)).collect();
        if secrets.len() > MAX_KEYS {
            return Err(PgpError::File { file: named(), source: FrameError::TooMany(MAX_KEYS) });
        }
        let password = password.map(Password::from);
        let mut keys = Self { file: named(), keys: Vec::new(), locked: Vec::new() };
        let mut refused = None;
        for packet in secrets {
            let Some(mut key) = PrivateKey::read(packet) else {
                refused = Some(PgpError::Key {
                    file: named(),
                    key: "?".into(),
                    reason: "its kind is not supported",
                });
                continue;
            };
            if !key.decrypts() {
                continue;
            }
            match key.unlock(password.as_ref()) {
                Ok(()) => keys.keys.push(key),
                Err(reason) => {
                    refused = Some(if reason == WRONG {
                        PgpError::WrongPassword { file: named(), key: key.name() }
                    } else {
                        PgpError::Key { file: named(), key: key.name(), reason }
                    });
                    keys.locked.push(Locked { id: key.id(), reason });
                }
            }
        }
        if keys.keys.is_empty() {
            return Err(refused.unwrap_or(PgpError::NoKey { file: named(), wanted: "private encryption" }));
        }
        Ok(keys)
    }

    /// Fingerprints of the keys that can open something, as gpg prints them.
    pub fn fingerprints(&self) -> impl Iterator<Item = String> {
        self.keys.iter().map(PrivateKey::name)
    }
}

const WRONG: &str = "the password is wrong";
const NO_PASSWORD: &str = "it is protected: give its password (FILE:pass=…, FILE:file=… or FILE:fd=…)";
const ELSEWHERE: &str = "its secret part is not in the file (on a smart card, or exported without it)";

impl PrivateKey {
    fn read(packet: &Packet) -> Option<Self> {
        let length = packet.body.len() as u32;
        let body = packet.body.as_slice();
        if packet.tag == tag::SECRET_KEY {
            let header = PacketHeader::new_fixed(Tag::SecretKey, length);
            SecretKey::try_from_reader(header, body).ok().map(Self::Primary)
        } else {
            let header = PacketHeader::new_fixed(Tag::SecretSubkey, length);
            SecretSubkey::try_from_reader(header, body).ok().map(Self::Subkey)
        }
    }

    fn details(&self) -> &dyn KeyDetails {
        match self {
            Self::Primary(key) => key,
            Self::Subkey(key) => key,
        }
    }

    fn name(&self) -> String {
        hexadecimal(self.details().fingerprint().as_bytes())
    }

    fn id(&self) -> [u8; 8] {
        self.details().legacy_key_id().as_ref().try_into().unwrap_or_default()
    }

    fn decrypts(&self) -> bool {
        matches!(
            self.details().algorithm(),
            PublicKeyAlgorithm::RSA | PublicKeyAlgorithm::RSAEncrypt | PublicKeyAlgorithm::ECDH
        )
    }

    fn unlock(&mut self, password: Option<&Password>) -> Result<(), &'static str> {
        let parameters = match self {
            Self::Primary(key) => key.secret_params(),
            Self::Subkey(key) => key.secret_params(),
        };
        let SecretParams::Encrypted(locked) = parameters else {
            return Ok(());
        };
        // GnuPG's extension for keys without a secret part: a private derivation with nothing behind it.
        if locked.string_to_key_id() >= 254 && locked.data().is_empty() {
            return Err(ELSEWHERE);
        }
        let password = password.ok_or(NO_PASSWORD)?;
        match self {
            Self::Primary(key) => key.remove_password(password),
            Self::Subkey(key) => key.remove_password(password),
        }
        .map_err(|_| WRONG)
    }

    fn open(&self, packet: &SessionKeyPacket) -> Result<SessionKey, MessageError> {
        let values = packet.values().map_err(|_| MessageError::SessionKey)?;
        let empty = Password::empty();
        let opened = match self {
            Self::Primary(key) => key.decrypt(&empty, values, KIND),
            Self::Subkey(key) => key.decrypt(&empty, values, KIND),
        };
        match opened {
            Ok(Ok(pgp::composed::PlainSessionKey::V3_4 { sym_alg, ref key })) => {
                Ok(SessionKey { cipher: sym_alg, key: key.clone() })
            }
            _ => Err(MessageError::NotOpened),
        }
    }
}

impl OpenSessionKey for PgpKeys {
    fn open(&self, packet: &SessionKeyPacket) -> Option<Result<SessionKey, MessageError>> {
        let id = packet.id().ok()?;
        let mut refused = None;
        for key in &self.keys {
            if !id.is_wildcard() && *id != key.details().legacy_key_id() {
                continue;
            }
            match key.open(packet) {
                Ok(session) => return Some(Ok(session)),
                Err(error) => refused = Some(Err(error)),
            }
        }
        refused.or_else(|| {
            let locked = self.locked.iter().find(|locked| locked.id == *id.as_ref())?;
            Some(Err(MessageError::Locked { key: (*id).into(), reason: locked.reason }))
        })
    }
}

impl Unwrap for PgpKeys {
    fn opens(&self, scheme: &Scheme) -> bool {
        *scheme == Scheme::Pgp
    }

    fn name(&self) -> String {
        self.file.clone()
    }

    fn unwrap(&self, wrapped: &WrappedKey) -> Result<PrivateOptions, UnwrapError> {
        let json = message::open(&wrapped.blob, self).map_err(refusal)?;
        Ok(PrivateOptions::from_json(&json)?)
    }
}

fn refusal(error: MessageError) -> UnwrapError {
    match error {
        MessageError::OtherRecipients(_) => UnwrapError::NotRecipient,
        MessageError::Version { .. } | MessageError::Cipher(_) | MessageError::Foreign(_) => {
            UnwrapError::Unsupported(error.to_string())
        }
        MessageError::Locked { .. } | MessageError::NotOpened => UnwrapError::Failed(error.to_string()),
        other => UnwrapError::Malformed(other.to_string()),
    }
}

//! One message: session key for every recipient, then the integrity-protected data (RFC 4880, sections 5.1, 5.13).

use pgp::composed::RawSessionKey;
use pgp::crypto::sym::SymmetricKeyAlgorithm as Cipher;
use pgp::packet::{
    PacketHeader, PublicKeyEncryptedSessionKey as SessionKeyPacket, SymEncryptedProtectedData,
};
use pgp::ser::Serialize;
use pgp::types::{EskType, KeyId, PkeskBytes, Seipdv1ReadMode, Tag};
use rand08::rngs::OsRng;
use zeroize::Zeroizing;

use super::packets::{self, FrameError, Packet, tag};
use super::validity::EncryptionKey;

/// Recipients of one message.
pub(super) const MAX_RECIPIENTS: usize = 64;

/// A message for the most recipients, of RSA-4096, with room to spare.
pub(super) const MESSAGE_LIMIT: usize = 64 << 10;

/// A message that is not of the profile, or that does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Its packets can't be told apart.
    #[error("not an OpenPGP message: {0}")]
    Frame(#[from] FrameError),
    /// A packet that the profile does not have.
    #[error("the message has {0}, which image keys never have")]
    Foreign(&'static str),
    /// No session key packet.
    #[error("the message names no recipient")]
    NoRecipient,
    /// No encrypted data.
    #[error("the message has no encrypted data")]
    NoData,
    /// Something after the data.
    #[error("something follows the encrypted data")]
    Trailing,
    /// Another version than 3 of the session key, or 1 of the data.
    #[error("{packet} version {version} is not supported")]
    Version {
        /// Which packet.
        packet: &'static str,
        /// What it says.
        version: u8,
    },
    /// A session key packet that is cut short, too long, or not spelled as anybody writes it.
    #[error("a session key packet is malformed")]
    SessionKey,
    /// None of the recipients is a key that we have.
    #[error("encrypted to {} only", .0)]
    OtherRecipients(Recipients),
    /// Wrong key, or changed on the way: which of them is nobody's business.
    #[error("the key does not open it: wrong key, or the message was changed")]
    NotOpened,
    /// One of its recipients is a key that we have, and can't use.
    #[error("key {key} is among the recipients, but {reason}")]
    Locked {
        /// The recipient.
        key: Key,
        /// Why not.
        reason: &'static str,
    },
    /// A session key for something weaker than AES.
    #[error("encrypted with cipher {0}: only AES is accepted")]
    Cipher(u8),
    /// The decrypted data is no single literal packet.
    #[error("the decrypted data is malformed")]
    Inner,
    /// Nothing could be encrypted.
    #[error("encrypting to {0} failed")]
    Encrypt(Key),
}

/// A key id, printed as gpg does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key([u8; 8]);

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016X}", u64::from_be_bytes(self.0))
    }
}

impl From<KeyId> for Key {
    fn from(id: KeyId) -> Self {
        Self(id.as_ref().try_into().unwrap_or_default())
    }
}

/// The first of a message's recipients, and how many there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recipients {
    first: Key,
    count: usize,
}

impl std::fmt::Display for Recipients {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "key {}", self.first)?;
        if self.count > 1 { write!(f, " and {} more", self.count - 1) } else { Ok(()) }
    }
}

/// Something that may hold private keys.
pub(super) trait OpenSessionKey {
    /// Tries every key that the packet may be for. `None`: there is no such key.
    fn open(&self, packet: &SessionKeyPacket) -> Option<Result<SessionKey, MessageError>>;
}

/// Cipher and key.
pub(super) struct SessionKey {
    pub(super) cipher: Cipher,
    pub(super) key: RawSessionKey,
}

/// Writes a message as ocicrypt's library reads it: AES-256, one literal packet of text, nothing signed.
pub(super) fn seal<'a>(
    recipients: impl IntoIterator<Item = &'a EncryptionKey>,
    plain: &[u8],
) -> Result<Vec<u8>, MessageError> {
    let cipher = Cipher::AES256;
    let session = cipher.new_session_key(OsRng);
    let mut out = Vec::new();
    for key in recipients {
        let failed = || MessageError::Encrypt(key.details().legacy_key_id().into());
        let packet = key.wrap(&session, cipher).map_err(|_| failed())?;
        let mut body = Vec::new();
        packet.to_writer(&mut body).map_err(|_| failed())?;
        packets::write(&mut out, tag::SESSION_KEY, &body);
    }
    if out.is_empty() {
        return Err(MessageError::NoRecipient);
    }
    // Text, no file name, no date: what ocicrypt writes.
    let mut literal = Zeroizing::new(Vec::with_capacity(plain.len() + 6));
    literal.extend_from_slice(b"t\0\0\0\0\0");
    literal.extend_from_slice(plain);
    let mut inner = Zeroizing::new(Vec::with_capacity(literal.len() + 6));
    packets::write(&mut inner, tag::LITERAL, &literal);
    let protected = SymEncryptedProtectedData::encrypt_seipdv1(OsRng, cipher, session.as_ref(), &inner)
        .map_err(|_| MessageError::Inner)?;
    let mut body = vec![1];
    body.extend_from_slice(protected.data());
    packets::write(&mut out, tag::PROTECTED, &body);
    Ok(out)
}

/// Opens a message with whichever key fits, and gives its text.
pub(super) fn open(bytes: &[u8], keys: &impl OpenSessionKey) -> Result<Zeroizing<Vec<u8>>, MessageError> {
    let (session_keys, data) = outer(bytes)?;
    let mut refused = None;
    for packet in &session_keys {
        match keys.open(packet) {
            None => {}
            Some(Err(error)) => refused = Some(error),
            // Only one session key can be right, and its message is then right as a whole or not at all.
            Some(Ok(session)) => match decrypt(&data, &session) {
                Ok(plain) => return text(&plain),
                Err(error) => refused = Some(error),
            },
        }
    }
    Err(refused.unwrap_or_else(|| others(&session_keys)))
}

fn others(packets: &[SessionKeyPacket]) -> MessageError {
    let first = packets.first().and_then(|packet| packet.id().ok()).map_or(Key([0; 8]), |id| (*id).into());
    MessageError::OtherRecipients(Recipients { first, count: packets.len() })
}

/// Session keys, then the data, and nothing else.
fn outer(bytes: &[u8]) -> Result<(Vec<SessionKeyPacket>, Packet), MessageError> {
    let mut packets = packets::read(bytes, MESSAGE_LIMIT, MAX_RECIPIENTS + 2)?.into_iter();
    let mut session_keys = Vec::new();
    let data = loop {
        let packet = packets.next().ok_or(MessageError::NoData)?;
        match packet.tag {
            tag::SESSION_KEY => session_keys.push(session_key(&packet.body)?),
            tag::PROTECTED => break packet,
            other => return Err(foreign(other)),
        }
    };
    if session_keys.is_empty() {
        return Err(MessageError::NoRecipient);
    }
    if packets.next().is_some() {
        return Err(MessageError::Trailing);
    }
    match data.body.first() {
        Some(1) => Ok((session_keys, data)),
        Some(other) => Err(MessageError::Version { packet: "encrypted data", version: *other }),
        None => Err(MessageError::NoData),
    }
}

fn foreign(packet: u8) -> MessageError {
    MessageError::Foreign(match packet {
        tag::UNPROTECTED => "encrypted data without integrity protection",
        tag::GNUPG_AEAD => "GnuPG's own authenticated data",
        tag::PASSWORD_SESSION_KEY => "a session key under a password",
        tag::COMPRESSED => "compressed data",
        tag::SIGNATURE | tag::ONE_PASS_SIGNATURE => "a signature",
        tag::LITERAL => "data in clear",
        _ => "an unknown packet",
    })
}

fn session_key(body: &[u8]) -> Result<SessionKeyPacket, MessageError> {
    match body.first() {
        Some(3) => {}
        Some(other) => return Err(MessageError::Version { packet: "session key", version: *other }),
        None => return Err(MessageError::SessionKey),
    }
    let header = PacketHeader::new_fixed(Tag::PublicKeyEncryptedSessionKey, body.len() as u32);
    let packet = SessionKeyPacket::try_from_reader(header, body).map_err(|_| MessageError::SessionKey)?;
    let mut spelled = Vec::with_capacity(body.len());
    packet.to_writer(&mut spelled).map_err(|_| MessageError::SessionKey)?;
    let plain = match packet.values() {
        // Go's library counts the bits of whole octets, so that an RSA number may begin with zeros.
        Ok(PkeskBytes::Rsa { .. }) => spelled == body || whole_octets(&body[10..]),
        Ok(PkeskBytes::Ecdh { public_point, .. }) => spelled == body && point(public_point.as_ref()),
        _ => spelled == body,
    };
    if plain { Ok(packet) } else { Err(MessageError::SessionKey) }
}

/// Uncompressed, or of Curve25519, whose arithmetic drops the highest bit (RFC 9580, section 11.2; RFC 7748, section 5).
fn point(octets: &[u8]) -> bool {
    match octets {
        [4, ..] => true,
        [0x40, x @ ..] => x.last().is_some_and(|last| last & 0x80 == 0),
        _ => false,
    }
}

/// One number that fills all, as long as it says in bits.
fn whole_octets(number: &[u8]) -> bool {
    number
        .split_first_chunk()
        .is_some_and(|(bits, octets)| usize::from(u16::from_be_bytes(*bits)) == octets.len() * 8)
}

/// Checks the modification detection code over everything before a byte of it is looked at.
fn decrypt(data: &Packet, session: &SessionKey) -> Result<Zeroizing<Vec<u8>>, MessageError> {
    if !matches!(session.cipher, Cipher::AES128 | Cipher::AES192 | Cipher::AES256) {
        return Err(MessageError::Cipher(session.cipher.into()));
    }
    if session.key.len() != session.cipher.key_size() {
        return Err(MessageError::NotOpened);
    }
    let header = PacketHeader::new_fixed(Tag::SymEncryptedProtectedData, data.body.len() as u32);
    let protected = SymEncryptedProtectedData::try_from_reader(header, data.body.as_slice())
        .map_err(|_| MessageError::NotOpened)?;
    let mode = Seipdv1ReadMode::CheckFirst { max_message_size: MESSAGE_LIMIT };
    protected
        .decrypt(session.key.as_ref(), Some(session.cipher), mode)
        .map(Zeroizing::new)
        .map_err(|_| MessageError::NotOpened)
}

/// The contents of the one literal packet.
fn text(plain: &[u8]) -> Result<Zeroizing<Vec<u8>>, MessageError> {
    // First of all, since gpg writes compressed data without a length.
    match packets::first_tag(plain) {
        Some(tag::LITERAL) => {}
        Some(other) => return Err(foreign(other)),
        None => return Err(MessageError::Inner),
    }
    let packets = packets::read(plain, MESSAGE_LIMIT, 1).map_err(|_| MessageError::Inner)?;
    let packet = packets.first().ok_or(MessageError::Inner)?;
    // Format, length of the file name, the name, a date of four bytes (section 5.9).
    let [b'b' | b't' | b'u', name, rest @ ..] = packet.body.as_slice() else {
        return Err(MessageError::Inner);
    };
    let text = rest.get(usize::from(*name) + 4..).ok_or(MessageError::Inner)?;
    Ok(Zeroizing::new(text.to_vec()))
}

/// What a packet's values are wrapped for.
pub(super) const KIND: EskType = EskType::V3_4;

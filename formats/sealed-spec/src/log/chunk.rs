//! A chunk: layout, key and cipher, for both directions.

use aes_gcm::aead::{AeadInOut as _, KeyInit as _};
use aes_gcm::{Aes256Gcm, Nonce, Tag};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use p256::{PublicKey, SecretKey};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::key::{Sender, compressed};

/// What every sealed line starts with.
pub const LINE_PREFIX: &str = "sealpod1.";
/// Longest sealed line, in bytes, without its line end.
pub const MAX_LINE: usize = LINE_PREFIX.len() + (POINT + NUMBER + MAX_TEXT + TAG).div_ceil(3) * 4;

const POINT: usize = 33;
const NUMBER: usize = 8;
const TAG: usize = 16;
const HEAD: usize = 3;
/// Plaintext sizes are multiples of this.
const STEP: usize = 128;
const MAX_TEXT: usize = 2048;
/// Most bytes of output in one chunk.
pub(super) const MAX_PAYLOAD: usize = MAX_TEXT - HEAD;
const INFO: &[u8] = b"sealpod log 1";

/// Which stream it is; the payload of its first chunk, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogInfo {
    /// Digest of the sealed spec that the guest runs: `sha256:…`.
    pub spec: String,
    /// The container's name in it.
    pub container: String,
    /// The run of the container: its id at the runtime, which the host picked.
    pub instance: String,
    /// Which of its outputs.
    pub stream: LogStream,
}

/// An output of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogStream {
    /// Standard output; with a terminal, everything.
    Stdout,
    /// Standard error.
    Stderr,
}

impl LogStream {
    /// `stdout` or `stderr`
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// What a chunk's payload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Start = 0,
    Data = 1,
    End = 2,
}

/// The key of one stream.
pub(super) struct StreamKey {
    cipher: Aes256Gcm,
    epk: [u8; POINT],
}

impl StreamKey {
    /// ECDH of `secret` and `public`, one of which is the ephemeral `epk` and the other the `recipient`.
    pub(super) fn derive(
        secret: &SecretKey,
        public: &PublicKey,
        epk: &PublicKey,
        recipient: &PublicKey,
        sender: &Sender,
    ) -> Option<Self> {
        let epk = compressed(epk);
        let shared = secret.diffie_hellman(public);
        let mut key = Zeroizing::new([0; 32]);
        shared
            .extract::<Sha256>(Some(sender.as_slice()))
            .expand_multi_info(&[INFO, &epk, &compressed(recipient)], key.as_mut())
            .ok()?;
        Some(Self { cipher: Aes256Gcm::new((&*key).into()), epk })
    }

    /// Appends one sealed line. `None` if the payload is too large.
    pub(super) fn seal(&self, number: u64, kind: Kind, payload: &[u8], out: &mut Vec<u8>) -> Option<()> {
        if payload.len() > MAX_PAYLOAD {
            return None;
        }
        let padded = (HEAD + payload.len()).next_multiple_of(STEP);
        let mut text = Zeroizing::new(Vec::with_capacity(padded));
        text.push(kind as u8);
        text.extend((payload.len() as u16).to_be_bytes());
        text.extend(payload);
        text.resize(padded, 0);
        let tag = self.cipher.encrypt_inout_detached(&nonce(number), &[], text.as_mut_slice().into()).ok()?;
        let mut chunk = Vec::with_capacity(POINT + NUMBER + padded + TAG);
        chunk.extend(self.epk);
        chunk.extend(number.to_be_bytes());
        chunk.extend(text.as_slice());
        chunk.extend(tag);
        out.extend(LINE_PREFIX.as_bytes());
        out.extend(URL_SAFE_NO_PAD.encode(&chunk).as_bytes());
        out.push(b'\n');
        Some(())
    }

    /// Kind and payload; `None` if it was not sealed with this key and number.
    pub(super) fn open(&self, chunk: &Chunk) -> Option<(Kind, Zeroizing<Vec<u8>>)> {
        let mut text = Zeroizing::new(chunk.text.clone());
        self.cipher
            .decrypt_inout_detached(
                &nonce(chunk.number),
                &[],
                text.as_mut_slice().into(),
                &Tag::from(chunk.tag),
            )
            .ok()?;
        let kind = match text[0] {
            0 => Kind::Start,
            1 => Kind::Data,
            2 => Kind::End,
            _ => return None,
        };
        let length = usize::from(u16::from_be_bytes([text[1], text[2]]));
        let padding = text.get(HEAD + length..)?;
        let exact = (HEAD + length).next_multiple_of(STEP) == text.len() && padding.iter().all(|b| *b == 0);
        let first = (kind == Kind::Start) == (chunk.number == 0);
        let payload = Zeroizing::new(text[HEAD..HEAD + length].to_vec());
        (exact && first).then_some((kind, payload))
    }
}

fn nonce(number: u64) -> Nonce<aes_gcm::aead::consts::U12> {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&number.to_be_bytes());
    nonce.into()
}

/// A chunk as it arrived, taken apart.
pub(super) struct Chunk {
    pub(super) epk: [u8; POINT],
    pub(super) number: u64,
    text: Vec<u8>,
    tag: [u8; TAG],
}

impl Chunk {
    /// From the text behind [`LINE_PREFIX`].
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        if text.len() > MAX_LINE {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (epk, rest) = bytes.split_first_chunk::<POINT>()?;
        let (number, rest) = rest.split_first_chunk::<NUMBER>()?;
        let (text, tag) = rest.split_last_chunk::<TAG>()?;
        if text.is_empty() || text.len() > MAX_TEXT || text.len() % STEP != 0 {
            return None;
        }
        Some(Self { epk: *epk, number: u64::from_be_bytes(*number), text: text.to_vec(), tag: *tag })
    }
}

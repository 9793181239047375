//! Sealed logs: what a container prints, readable by the owner alone, as lines of text that any log
//! collector carries: `sealpod1.` and base64url, one line a chunk.
//!
//! A chunk opens by itself, so `kubectl logs --tail` and rotated files work:
//!
//! | bytes | what |
//! |---|---|
//! | 33 | the stream's ephemeral public key: P-256, SEC 1 compressed |
//! | 8 | the chunk's number in its stream, big-endian, from 0 |
//! | n × 128, at most 2048 | AES-256-GCM ciphertext of kind (1), length (2, big-endian), payload, zeros |
//! | 16 | tag |
//!
//! A stream is one output of one run of a container. Its key is HKDF-SHA256 with salt: the recipient's
//! sender secret; input: ECDH of ephemeral key and owner's log key; info: `sealpod log 1`, both public
//! keys. The nonce is the chunk's number, which is also what shows dropped, repeated and reordered chunks.
//! Chunk 0 says which stream it is; the last chunk says that it is the last.

mod chunk;
mod key;
mod opener;
mod sealer;

pub use chunk::{LINE_PREFIX, LogInfo, LogStream, MAX_LINE};
pub use key::{LogKey, LogKeyError, LogRecipient};
pub use opener::{ChunkError, Content, Line, Opened, Opener, Place, StreamReport};
pub use sealer::{Sealer, SealerError};

#[cfg(test)]
#[path = "../log_tests.rs"]
mod tests;

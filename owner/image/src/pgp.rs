//! The `pgp` key wrapper: one OpenPGP message (RFC 4880) a layer, of the profile that ocicrypt reads and writes:
//! a public-key encrypted session key for each recipient, then AES with a modification detection code around one
//! literal packet. No compression, no signature, no password.

mod armor;
mod certificate;
mod gnupg;
mod keys;
mod message;
mod packets;
mod recipients;
mod ring;
#[cfg(test)]
mod tests;
mod validity;

pub use gnupg::{Gnupg, GnupgError};
pub use keys::{PgpKeys, is_secret_key_file};
pub use message::MessageError;
pub use packets::FrameError;
pub use recipients::{PgpRecipients, Recipient};
pub use ring::PublicRing;

/// The largest key ring that is read, in bytes.
pub const RING_LIMIT: usize = 32 << 20;

/// Why a key ring, a recipient or a private key can't be used.
#[derive(Debug, thiserror::Error)]
pub enum PgpError {
    /// A key ring or key file is not what it should be.
    #[error("{file}: not an OpenPGP key file: {source}")]
    File {
        /// The file, or what else it came from.
        file: String,
        /// What is wrong with its packets.
        #[source]
        source: FrameError,
    },
    /// Armor that can't be undone.
    #[error("{file}: the ASCII armor is damaged; export the key again")]
    Armor {
        /// The file.
        file: String,
    },
    /// A file without the kind of key that it was given for.
    #[error("{file}: holds no {wanted} key")]
    NoKey {
        /// The file.
        file: String,
        /// `public` or `private`.
        wanted: &'static str,
    },
    /// A private key that can't be read at all.
    #[error("{file}: private key {key}: {reason}")]
    Key {
        /// The file.
        file: String,
        /// The key's fingerprint, or a part of it.
        key: String,
        /// Why not.
        reason: &'static str,
    },
    /// The password opens none of the keys.
    #[error("{file}: the password is wrong for {key}")]
    WrongPassword {
        /// The file.
        file: String,
        /// The first key that it does not open.
        key: String,
    },
    /// Nobody of that name in the rings.
    #[error(
        "recipient '{name}': not in the key ring; name it by the whole user id, its name or e-mail part, the \
         fingerprint or the 16-digit key id"
    )]
    Unknown {
        /// As asked for.
        name: String,
    },
    /// Key ids of 8 digits can be made at will.
    #[error("recipient '{name}': an 8-digit key id names no single key; give the fingerprint")]
    ShortKeyId {
        /// As asked for.
        name: String,
    },
    /// Several usable keys of that name.
    #[error("recipient '{name}': {count} keys have that name; give a fingerprint: {fingerprints}")]
    Ambiguous {
        /// As asked for.
        name: String,
        /// How many.
        count: usize,
        /// Up to four of them.
        fingerprints: String,
    },
    /// The key of that name can't be encrypted to.
    #[error("recipient '{name}': key {fingerprint} {reason}")]
    Unusable {
        /// As asked for.
        name: String,
        /// Of the primary key.
        fingerprint: String,
        /// Why not.
        reason: Unusable,
    },
    /// No recipient at all.
    #[error("no recipient given for pgp")]
    NoRecipient,
    /// More recipients than a message may have.
    #[error("{given} recipients: a pgp message has at most {}", message::MAX_RECIPIENTS)]
    TooManyRecipients {
        /// How many were given.
        given: usize,
    },
    /// gpg could not be used.
    #[error(transparent)]
    Gnupg(#[from] GnupgError),
}

/// Why nothing may be encrypted to a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// A key revocation by the key itself.
    #[error("is revoked; ask its owner for the new one")]
    Revoked,
    /// Past its time.
    #[error("expired on {0}; ask its owner to extend it and import it again")]
    Expired(String),
    /// Made after now.
    #[error("was made in the future ({0}): check this machine's clock")]
    Future(String),
    /// No self-signature vouches for what was asked for.
    #[error("has no valid self-signature on that user id")]
    Unsigned,
    /// It is for signing only.
    #[error("has no encryption subkey; ask its owner to add one")]
    NoEncryptionSubkey,
    /// It had one.
    #[error("has only encryption subkeys that are revoked")]
    SubkeysRevoked,
    /// It had one.
    #[error("has only encryption subkeys that expired, the last on {0}")]
    SubkeysExpired(String),
    /// ElGamal, version 3 and 6 keys, unknown curves.
    #[error("is of a kind that can't be encrypted to ({0}); an RSA subkey would be read by every peer")]
    Unsupported(String),
    /// Short RSA.
    #[error("has an RSA encryption key of {0} bits: 2048 is the least")]
    Weak(u16),
}

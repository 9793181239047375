//! Everybody that a layer's key is wrapped for with OpenPGP: one message for all of them.

use encrypted_image::{PrivateOptions, Scheme, Wrap, WrapError};
use pgp::types::PublicParams;

use super::message::{self, MAX_RECIPIENTS, MessageError};
use super::ring::{fingerprint, hexadecimal};
use super::validity::EncryptionKey;
use super::{PgpError, PublicRing};

/// The keys of a message's recipients, chosen and checked.
pub struct PgpRecipients {
    recipients: Vec<(Recipient, EncryptionKey)>,
}

/// One of them, for people to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient {
    /// As it was asked for.
    pub name: String,
    /// Of the primary key, 40 hexadecimal digits.
    pub fingerprint: String,
    /// Of the key that is encrypted to: what everybody sees in the image. 16 hexadecimal digits.
    pub key_id: String,
    /// skopeo, buildah and containerd can only use RSA keys.
    pub opens_with_ocicrypt: bool,
}

impl std::fmt::Debug for PgpRecipients {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.recipients()).finish()
    }
}

impl PgpRecipients {
    /// Finds each name in the ring: a whole user id, its name or e-mail part, a fingerprint, a 16-digit key id.
    /// `now` is in seconds since 1970.
    ///
    /// # Errors
    /// When a name is unknown or ambiguous, or its key is expired, revoked or not for encryption.
    pub fn select<'a>(
        ring: &PublicRing,
        names: impl IntoIterator<Item = &'a str>,
        now: u64,
    ) -> Result<Self, PgpError> {
        let now = u32::try_from(now).unwrap_or(u32::MAX);
        let mut recipients: Vec<(Recipient, EncryptionKey)> = Vec::new();
        for name in names {
            let (certificate, key) = ring.find(name, now)?;
            let fingerprint = fingerprint(certificate);
            // Named twice, by name and by key id: once is enough.
            if recipients.iter().any(|(other, _)| other.fingerprint == fingerprint) {
                continue;
            }
            let details = key.details();
            let opens_with_ocicrypt = matches!(details.public_params(), PublicParams::RSA(_));
            let key_id = hexadecimal(details.legacy_key_id().as_ref());
            recipients
                .push((Recipient { name: name.to_owned(), fingerprint, key_id, opens_with_ocicrypt }, key));
        }
        match recipients.len() {
            0 => Err(PgpError::NoRecipient),
            given if given > MAX_RECIPIENTS => Err(PgpError::TooManyRecipients { given }),
            _ => Ok(Self { recipients }),
        }
    }

    /// Who they are.
    pub fn recipients(&self) -> impl Iterator<Item = &Recipient> {
        self.recipients.iter().map(|(recipient, _)| recipient)
    }
}

impl Wrap for PgpRecipients {
    fn scheme(&self) -> Scheme {
        Scheme::Pgp
    }

    fn wrap(&self, private: &PrivateOptions) -> Result<Vec<u8>, WrapError> {
        message::seal(self.recipients.iter().map(|(_, key)| key), &private.to_json()).map_err(|error| {
            match error {
                MessageError::Encrypt(key) => WrapError::Recipient {
                    recipient: key.to_string(),
                    reason: "its public key can't be encrypted to".into(),
                },
                other => WrapError::Failed { by: "pgp".into(), reason: other.to_string() },
            }
        })
    }
}

//! The broker's audit log as a hash chain: each record holds the hash of the one before it, and signed
//! checkpoints that owners keep tell when the log was cut or rewritten.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use thiserror::Error;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::canonical::{self, CanonicalError};
pub use crate::signing::{PublicKey as AuditPublicKey, SigningKey as AuditKey};

const RECORD_DOMAIN: &[u8] = b"sealpod-audit-record-v1\0";
const CHECKPOINT_DOMAIN: &[u8] = b"sealpod-audit-checkpoint-v1\0";

/// One event.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// 1 and up, without gaps.
    pub seq: u64,
    /// RFC 3339, UTC.
    pub time: String,
    /// What happened, for example `release`.
    pub event: String,
    /// To what, for example a key id.
    pub subject: String,
    /// The rest. Numbers are integers below 2^53.
    pub detail: Value,
    /// Hash of the record before, 64 hex digits; zeros for the first.
    pub previous: String,
    /// SHA-256 over a domain tag and the canonical JSON of the fields above, 64 hex digits.
    pub hash: String,
}

/// Where a log stands: its last record's number and hash.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Head {
    /// Number of the last record; 0 for an empty log.
    pub seq: u64,
    /// Its hash; zeros for an empty log.
    pub hash: String,
}

impl Default for Head {
    fn default() -> Self {
        Self { seq: 0, hash: "0".repeat(64) }
    }
}

/// A signed [`Head`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// Number of the last record.
    pub seq: u64,
    /// Its hash.
    pub hash: String,
    /// The broker's Ed25519 signature, base64url.
    pub signature: String,
    /// The broker's audit key.
    pub key: AuditPublicKey,
}

/// What a verified log holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Summary {
    /// Where it stands.
    pub head: Head,
    /// How many checkpoints were found in it.
    pub checkpoints: usize,
    /// Who signed them; `None` without checkpoints.
    pub key: Option<AuditPublicKey>,
}

/// Why a log is not the one that was written.
#[derive(Debug, Error)]
pub enum AuditError {
    /// A number is missing, repeated or out of order.
    #[error("record {found} stands where record {expected} should: records were removed or reordered")]
    Sequence {
        /// The number due.
        expected: u64,
        /// The number found.
        found: u64,
    },
    /// The chain is broken before this record.
    #[error("record {0} does not continue the record before it: the log was rewritten")]
    Previous(u64),
    /// The record's contents don't have its hash.
    #[error("record {0} was changed: its hash does not match its contents")]
    Hash(u64),
    /// A record can't be hashed.
    #[error("record {0} can't be hashed")]
    Canonical(u64, #[source] CanonicalError),
    /// A checkpoint's signature is wrong.
    #[error("checkpoint {0} is not signed by the key it names")]
    CheckpointSignature(u64),
    /// Checkpoints of two keys.
    #[error("checkpoint {0} is signed by another key than the ones before it")]
    CheckpointKey(u64),
    /// The log doesn't have the record that the checkpoint vouches for.
    #[error("checkpoint {0} vouches for another record {0} than the log holds: the log was rewritten")]
    CheckpointHash(u64),
    /// The log ends before the checkpoint.
    #[error("log ends at record {end}, but a checkpoint vouches for record {checkpoint}: it was truncated")]
    Truncated {
        /// The log's last number.
        end: u64,
        /// The checkpoint's.
        checkpoint: u64,
    },
}

/// Fields under the hash, in canonical order by way of [`canonical`].
#[derive(Serialize)]
struct Hashed<'a> {
    seq: u64,
    time: &'a str,
    event: &'a str,
    subject: &'a str,
    detail: &'a Value,
    previous: &'a str,
}

impl Record {
    /// The record after `head`.
    pub fn after(
        head: &Head,
        time: impl Into<String>,
        event: impl Into<String>,
        subject: impl Into<String>,
        detail: Value,
    ) -> Result<Self, AuditError> {
        let mut record = Self {
            seq: head.seq + 1,
            time: time.into(),
            event: event.into(),
            subject: subject.into(),
            detail,
            previous: head.hash.clone(),
            hash: String::new(),
        };
        record.hash = record.compute_hash()?;
        Ok(record)
    }

    /// The head of a log that ends with this record.
    pub fn head(&self) -> Head {
        Head { seq: self.seq, hash: self.hash.clone() }
    }

    fn compute_hash(&self) -> Result<String, AuditError> {
        let Self { seq, time, event, subject, detail, previous, hash: _ } = self;
        let text = canonical::to_string(&Hashed { seq: *seq, time, event, subject, detail, previous })
            .map_err(|error| AuditError::Canonical(*seq, error))?;
        Ok(hex::encode(Sha256::new().chain_update(RECORD_DOMAIN).chain_update(text).finalize()))
    }
}

impl Checkpoint {
    /// Signs a head.
    pub fn sign(head: &Head, key: &AuditKey) -> Self {
        let signature = key.sign(&signed(head.seq, &head.hash));
        Self {
            seq: head.seq,
            hash: head.hash.clone(),
            signature: URL_SAFE_NO_PAD.encode(signature),
            key: key.public(),
        }
    }

    /// Checks the signature with the key that the checkpoint names; whether that is the right broker's
    /// key is for the caller, who has it from an earlier push.
    pub fn verify(&self) -> Result<(), AuditError> {
        let mut signature = [0; 64];
        let valid = URL_SAFE_NO_PAD.decode_slice(&self.signature, &mut signature) == Ok(64)
            && self.key.verifies(&signed(self.seq, &self.hash), &signature);
        if valid { Ok(()) } else { Err(AuditError::CheckpointSignature(self.seq)) }
    }
}

fn signed(seq: u64, hash: &str) -> Vec<u8> {
    [CHECKPOINT_DOMAIN, &seq.to_be_bytes(), hash.as_bytes()].concat()
}

/// Walks a log from its first record and holds it against checkpoints, in any order, of one key.
pub fn verify(
    records: impl IntoIterator<Item = Record>,
    checkpoints: &[Checkpoint],
) -> Result<Summary, AuditError> {
    let mut due: Vec<&Checkpoint> = checkpoints.iter().collect();
    due.sort_by_key(|checkpoint| checkpoint.seq);
    let key = due.first().map(|checkpoint| checkpoint.key);
    for checkpoint in &due {
        checkpoint.verify()?;
        if Some(checkpoint.key) != key {
            return Err(AuditError::CheckpointKey(checkpoint.seq));
        }
    }
    let mut due = due.into_iter().peekable();
    let mut head = Head::default();
    let mut meet = |head: &Head| {
        while let Some(checkpoint) = due.next_if(|checkpoint| checkpoint.seq <= head.seq) {
            if checkpoint.hash != head.hash {
                return Err(AuditError::CheckpointHash(checkpoint.seq));
            }
        }
        Ok(due.peek().map(|checkpoint| checkpoint.seq))
    };
    let mut next_checkpoint = meet(&head)?;
    for record in records {
        let expected = head.seq + 1;
        if record.seq != expected {
            return Err(AuditError::Sequence { expected, found: record.seq });
        }
        if record.previous != head.hash {
            return Err(AuditError::Previous(record.seq));
        }
        if record.compute_hash()? != record.hash {
            return Err(AuditError::Hash(record.seq));
        }
        head = record.head();
        next_checkpoint = meet(&head)?;
    }
    if let Some(checkpoint) = next_checkpoint {
        return Err(AuditError::Truncated { end: head.seq, checkpoint });
    }
    Ok(Summary { head, checkpoints: checkpoints.len(), key })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn log(length: u64) -> Vec<Record> {
        let mut head = Head::default();
        (1..=length)
            .map(|n| {
                let record =
                    Record::after(&head, "2026-11-21T22:30:00Z", "release", "kbs:///a/b/c", json!({"n": n}))
                        .unwrap();
                head = record.head();
                record
            })
            .collect()
    }

    #[test]
    fn an_untouched_log_verifies() {
        let key = AuditKey::generate().unwrap();
        let log = log(5);
        let checkpoints = [
            Checkpoint::sign(&log[4].head(), &key),
            Checkpoint::sign(&log[1].head(), &key),
            Checkpoint::sign(&Head::default(), &key),
        ];
        let summary = verify(log.clone(), &checkpoints).unwrap();
        assert_eq!((summary.head.seq, summary.checkpoints, summary.key), (5, 3, Some(key.public())));
        assert_eq!(verify([], &[]).unwrap().head, Head::default());
        let json = serde_json::to_string(&log[0]).unwrap();
        assert_eq!(serde_json::from_str::<Record>(&json).unwrap(), log[0]);
    }

    #[test]
    fn each_change_is_found() {
        let mut changed = log(3);
        changed[1].detail = json!({"n": 9});
        assert!(matches!(verify(changed, &[]), Err(AuditError::Hash(2))));

        let mut removed = log(3);
        removed.remove(1);
        assert!(matches!(verify(removed, &[]), Err(AuditError::Sequence { expected: 2, found: 3 })));

        let mut swapped = log(3);
        swapped.swap(1, 2);
        assert!(matches!(verify(swapped, &[]), Err(AuditError::Sequence { .. })));

        // Rewritten with valid hashes up to the change, then not.
        let mut rewritten = log(3);
        let head = rewritten[0].head();
        rewritten[1] = Record::after(&head, "t", "e", "s", json!(null)).unwrap();
        assert!(matches!(verify(rewritten, &[]), Err(AuditError::Previous(3))));
    }

    #[test]
    fn checkpoints_catch_a_whole_new_chain_and_a_short_one() {
        let (key, other) = (AuditKey::generate().unwrap(), AuditKey::generate().unwrap());
        let original = log(3);
        let checkpoint = Checkpoint::sign(&original[2].head(), &key);
        let mut forged = original[..2].to_vec();
        forged.push(Record::after(&forged[1].head(), "t", "e", "s", json!(null)).unwrap());
        assert!(matches!(
            verify(forged, std::slice::from_ref(&checkpoint)),
            Err(AuditError::CheckpointHash(3))
        ));
        assert!(matches!(
            verify(original[..2].to_vec(), std::slice::from_ref(&checkpoint)),
            Err(AuditError::Truncated { end: 2, checkpoint: 3 })
        ));

        let moved = Checkpoint { seq: 2, ..checkpoint.clone() };
        assert!(matches!(verify(original.clone(), &[moved]), Err(AuditError::CheckpointSignature(2))));
        let renamed = Checkpoint { key: other.public(), ..checkpoint.clone() };
        assert!(matches!(verify(original.clone(), &[renamed]), Err(AuditError::CheckpointSignature(3))));
        let second = Checkpoint::sign(&original[0].head(), &other);
        assert!(matches!(verify(original, &[checkpoint, second]), Err(AuditError::CheckpointKey(3))));
    }

    #[test]
    fn detail_without_a_canonical_form_is_refused() {
        assert!(matches!(
            Record::after(&Head::default(), "t", "e", "s", json!(u64::MAX)),
            Err(AuditError::Canonical(1, _))
        ));
    }
}

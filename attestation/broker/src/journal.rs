//! What is written down off the path of the answers, many at a time: deliveries of released keys, and evidence
//! that was refused. Nothing here decides anything, and nothing that is lost here allows more.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use protocols::refusal::Code;
use serde_json::json;
use tokio::sync::mpsc;
use verifier::Outcome;

use crate::denials::Denials;
use crate::refused::Refused;
use crate::release::table;
use crate::sessions::share_of;
use crate::store::{Release, Store, StoreError, Tx};

/// Entries that may wait, and how many are written at once.
const WAITING: usize = 4096;
const BATCH: usize = 1024;
/// How long the first one waits for others.
const GATHER: Duration = Duration::from_millis(200);

/// Something to write down.
enum Entry {
    Delivered(Release),
    Refused {
        address: String,
        refused: Box<Refused>,
        kind: &'static str,
        left_out: BTreeMap<&'static str, u64>,
    },
}

/// Where entries wait. If there is no room they are left out.
#[derive(Clone)]
pub(crate) struct Journal {
    entries: mpsc::Sender<Entry>,
    refusals: Arc<Refusals>,
}

/// Refused evidence costs a stranger nothing, so few records of it are made: each address and all together
/// have a bucket, and the next record says how many of which code were left out.
#[derive(Default)]
struct Refusals {
    each: Denials,
    all: Denials,
    /// For evidence that somebody's machine did sign: strangers can't make it, so they can't crowd it out.
    signed: Denials,
    left_out: Mutex<BTreeMap<&'static str, u64>>,
}

impl Journal {
    /// A journal, and what has to run for it to be written.
    pub(crate) fn new(store: Arc<Store>, log: slog::Logger) -> (Self, impl Future<Output = ()>) {
        let (entries, waiting) = mpsc::channel(WAITING);
        let refusals = Refusals { all: Denials::slow(), each: Denials::slow(), ..Refusals::default() };
        (Self { entries, refusals: Arc::new(refusals) }, write(store, log, waiting))
    }

    /// The release was handed to its connection. Left out, it stays reserved, which never allows more.
    pub(crate) fn delivered(&self, release: Release) {
        let _ = self.entries.try_send(Entry::Delivered(release));
    }

    /// Evidence was refused.
    pub(crate) fn refused(&self, address: IpAddr, kind: &'static str, refused: &Refused, now: SystemTime) {
        let address = share_of(address).to_string();
        let Refusals { each, all, signed, left_out } = &*self.refusals;
        let mut left_out = left_out.lock().unwrap_or_else(PoisonError::into_inner);
        let admitted = if is_signed(refused) {
            signed.admit(&address, now).is_some()
        } else {
            each.admit(&address, now).is_some() && all.admit("", now).is_some()
        };
        if !admitted {
            *left_out.entry(refused.refusal.code.name()).or_default() += 1;
            return;
        }
        let entry = Entry::Refused {
            address,
            refused: Box::new(refused.clone()),
            kind,
            left_out: std::mem::take(&mut left_out),
        };
        let _ = self.entries.try_send(entry);
    }
}

/// Writes what waits until every [`Journal`] is gone. Each time is a write to the disk that releases wait for, so
/// some time's worth is written at once.
async fn write(store: Arc<Store>, log: slog::Logger, mut waiting: mpsc::Receiver<Entry>) {
    let mut entries = Vec::new();
    while waiting.recv_many(&mut entries, BATCH).await > 0 {
        // Ends early when there is much, or nothing more to come.
        let more =
            async { while entries.len() < BATCH && waiting.recv_many(&mut entries, BATCH).await > 0 {} };
        let _ = tokio::time::timeout(GATHER, more).await;
        slog::trace!(log, "writing the journal"; "count" => entries.len());
        if let Err(error) = together(&store, &entries).await {
            slog::error!(log, "releases stay reserved"; "count" => entries.len(), "error" => crate::chain(&error));
        }
        slog::trace!(log, "journal written"; "count" => entries.len());
        entries.clear();
    }
}

async fn together(store: &Store, entries: &[Entry]) -> Result<(), StoreError> {
    let mut tx = store.begin().await?;
    for entry in entries {
        match entry {
            Entry::Delivered(release) => tx.delivered(release).await?,
            Entry::Refused { address, refused, kind, left_out } => {
                record(&mut tx, address, refused, kind, left_out).await?;
            }
        }
    }
    tx.commit().await
}

async fn record(
    tx: &mut Tx<'_>,
    address: &str,
    refused: &Refused,
    kind: &str,
    left_out: &BTreeMap<&'static str, u64>,
) -> Result<(), StoreError> {
    let detail = json!({
        "code": refused.refusal.code.name(),
        "detail": refused.refusal.detail,
        "reason": refused.reason,
        "tee": kind,
        "checks": refused.denial.as_ref().map(|denial| table(&denial.checks)),
        "left_out_before": left_out,
    });
    tx.record("attestation.refused", address, detail).await
}

/// Whether what was refused is signed by a machine that a trusted root vouches for.
fn is_signed(refused: &Refused) -> bool {
    let checks = refused.denial.iter().flat_map(|denial| &denial.checks);
    checks.filter(|record| record.outcome == Outcome::Passed).any(|record| record.check == "signature")
}

/// Whether a refusal is of evidence, and not of a session that was mistaken or ran out.
pub(crate) fn is_of_evidence(refused: &Refused) -> bool {
    !matches!(
        refused.refusal.code,
        Code::Session | Code::Nonce | Code::Overloaded | Code::Internal | Code::InitdataInvalid
    )
}

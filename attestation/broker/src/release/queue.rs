//! Releases are decided one after the other and made lasting together: one transaction, one signature over
//! the audit log and one write to the disk for all that wait. No key leaves before its record is there.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use protocols::audit::Checkpoint;
use protocols::owner::KEY_KIND;
use protocols::rcar::ResourceUri;
use protocols::refusal::Code;
use serde_json::json;
use tokio::sync::{mpsc, oneshot};
use zeroize::Zeroizing;

use super::record::{exact_verdict, record, table};
use super::{compat, decide::decide, resource};
use crate::appraise::Attested;
use crate::clock::Clock;
use crate::config::{COMPAT_REPOSITORY, Compat};
use crate::denials::Denials;
use crate::refused::Refused;
use crate::store::{Release, Store, Tx};

/// Requests that may wait for the writer.
const WAITING: usize = 1024;
/// Requests that one transaction decides.
const BATCH: usize = 64;
/// Resources that guests got, remembered so that asking again adds nothing to the audit log.
const REMEMBERED: usize = 4096;

/// A release whose record is on the disk, with the key that may leave now.
pub(super) struct Recorded {
    pub(super) key: Zeroizing<Vec<u8>>,
    pub(super) release: Option<Release>,
    /// Where the audit log stands, if this request added to it.
    pub(super) checkpoint: Option<Checkpoint>,
}

struct Job {
    attested: Arc<Attested>,
    uri: ResourceUri,
    answer: oneshot::Sender<Result<Recorded, Refused>>,
}

/// Where requests for a key wait.
pub(crate) struct Queue(mpsc::Sender<Job>);

/// Decides on what waits. Runs until every [`Queue`] is gone.
pub(crate) struct Writer {
    store: Arc<Store>,
    clock: Clock,
    compat: Compat,
    log: slog::Logger,
    denials: Denials,
    jobs: mpsc::Receiver<Job>,
    recorded: Mutex<HashSet<String>>,
}

impl Queue {
    /// A queue, and what has to run for its requests to be answered.
    pub(crate) fn new(store: Arc<Store>, clock: Clock, compat: Compat, log: slog::Logger) -> (Self, Writer) {
        let (sender, jobs) = mpsc::channel(WAITING);
        let (denials, recorded) = Default::default();
        (Self(sender), Writer { store, clock, compat, log, denials, jobs, recorded })
    }

    /// Decides on, and records, the release of `uri`.
    pub(super) async fn release(
        &self,
        attested: Arc<Attested>,
        uri: ResourceUri,
    ) -> Result<Recorded, Refused> {
        let gone = || Refused::new(Code::Internal, "the broker is ending");
        let (answer, answered) = oneshot::channel();
        self.0.send(Job { attested, uri, answer }).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

impl Writer {
    pub(crate) async fn run(mut self) {
        let mut jobs = Vec::new();
        while self.jobs.recv_many(&mut jobs, BATCH).await > 0 {
            // Who has gone away meanwhile takes no part: no release is reserved for nobody.
            jobs.retain(|job| !job.answer.is_closed());
            let outcomes = self.all(&jobs).await;
            for (job, outcome) in jobs.drain(..).zip(outcomes) {
                // A release that nobody waits for any more stays reserved, and is found when asked for again.
                let _ = job.answer.send(outcome);
            }
        }
    }

    async fn all(&self, jobs: &[Job]) -> Vec<Result<Recorded, Refused>> {
        match self.together(jobs).await {
            Ok(outcomes) => return outcomes,
            Err(refused) if jobs.len() == 1 => return vec![Err(refused)],
            Err(_) => {}
        }
        // One request's damaged row is no reason to fail the others.
        let mut outcomes = Vec::with_capacity(jobs.len());
        for job in jobs {
            let alone = self.together(std::slice::from_ref(job)).await;
            outcomes.push(alone.and_then(|mut outcome| {
                outcome.pop().unwrap_or_else(|| Err(Refused::new(Code::Internal, "a request was lost")))
            }));
        }
        outcomes
    }

    /// One transaction: what each decision looks at can't change under it, and earlier ones are seen by
    /// later ones. If anything fails that isn't a refusal, nothing happened.
    async fn together(&self, jobs: &[Job]) -> Result<Vec<Result<Recorded, Refused>>, Refused> {
        let mut tx = self.store.begin().await?;
        let (mut outcomes, mut records) = (Vec::with_capacity(jobs.len()), false);
        for job in jobs {
            outcomes.push(match self.one(&mut tx, job).await {
                Ok((key, release, new)) => {
                    records |= new;
                    Ok((key, release, new))
                }
                Err(refused) if refused.refusal.code == Code::Internal => return Err(refused),
                Err(refused) => {
                    self.record_denial(&mut tx, job, &refused).await?;
                    Err(refused)
                }
            });
        }
        let checkpoint = if records { Some(tx.checkpoint().await?) } else { None };
        slog::trace!(self.log, "releases decided"; "count" => jobs.len());
        tx.commit().await?;
        slog::trace!(self.log, "releases recorded"; "count" => jobs.len());
        self.remember(jobs.iter().zip(&outcomes).filter(|(_, outcome)| outcome.is_ok()).map(|(job, _)| job));
        let recorded = |(key, release, new)| {
            let checkpoint = checkpoint.clone().filter(|_| new);
            Recorded { key, release, checkpoint }
        };
        Ok(outcomes.into_iter().map(|outcome| outcome.map(recorded)).collect())
    }

    /// A key, or a resource: addresses of the keys' type are only ever keys.
    async fn one(&self, tx: &mut Tx<'_>, job: &Job) -> Result<Outcome, Refused> {
        if job.uri.kind() == KEY_KIND {
            let grant = decide(tx, &job.attested, &job.uri).await?;
            let (key, release, new) = record(tx, &grant, job.attested.thumbprint()).await?;
            return Ok((key, Some(release), new));
        }
        let (content, detail) = if job.uri.repository() == COMPAT_REPOSITORY {
            compat::grant(tx, &self.compat, &job.attested, &job.uri).await?
        } else {
            resource::grant(tx, &job.attested, &job.uri).await?
        };
        let new = !self.recorded().contains(&name(job));
        if new {
            tx.record("resource.released", &job.uri.to_string(), detail).await?;
        }
        Ok((content, None, new))
    }

    /// Only after the commit: what was rolled back was not recorded.
    fn remember<'a>(&self, jobs: impl Iterator<Item = &'a Job>) {
        let mut recorded = self.recorded();
        for job in jobs.filter(|job| job.uri.kind() != KEY_KIND) {
            if recorded.len() >= REMEMBERED {
                recorded.clear();
            }
            recorded.insert(name(job));
        }
    }

    fn recorded(&self) -> MutexGuard<'_, HashSet<String>> {
        self.recorded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn record_denial(&self, tx: &mut Tx<'_>, job: &Job, refused: &Refused) -> Result<(), Refused> {
        let Job { attested, uri, .. } = job;
        let verdict = attested.appraised().verdict();
        let Some(suppressed) = self.denials.admit(&platform(verdict), self.clock.now()) else {
            return Ok(());
        };
        let mut recorded = exact_verdict(verdict)?;
        // What the policy looked at too: passed, failed, not reached.
        if let Some(denial) = &refused.denial {
            recorded["checks"] = table(&denial.checks);
        }
        let detail = json!({
            "code": refused.refusal.code.name(),
            "detail": refused.refusal.detail,
            "reason": refused.reason,
            "spec_digest": attested.sealed().ok().map(|named| named.sealed_spec.to_string()),
            "attested_key": attested.thumbprint(),
            "suppressed_before": suppressed,
            "verdict": recorded,
        });
        Ok(tx.record("release.denied", &uri.to_string(), detail).await?)
    }
}

/// The machine that vouches, for counting.
fn platform(verdict: &verifier::Verdict) -> String {
    match &verdict.claims {
        verifier::Claims::Snp(claims) => hex::encode(claims.chip_id),
        // Whatever a sealed pod's machine is, its pods are few.
        _ => hex::encode(verdict.init_data),
    }
}

type Outcome = (Zeroizing<Vec<u8>>, Option<Release>, bool);

/// Which guest got which resource.
fn name(job: &Job) -> String {
    format!("{} {}", job.attested.thumbprint(), job.uri)
}

//! Resources, fetched with one attestation that all containers share and that is renewed when it ends.

use std::sync::Arc;
use std::time::Duration;

use protocols::rcar::{EphemeralKey, JweFlattened, MAX_PLAINTEXT, ResourceUri};
use protocols::refusal::{Code, Refusal};
use tokio::sync::{Mutex, Semaphore};
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::transport::{Target, Transport};
use super::{Patience, attest, http, protocol};
use crate::initdata::VerifiedInitdata;
use crate::tee::{Tee, chain};

/// A little less than the five minutes that sessions and tokens live.
const LIFETIME: Duration = Duration::from_secs(270);
/// A resource in base64, in JSON.
const MAX_ANSWER: usize = MAX_PLAINTEXT * 3 / 2;
/// Requests at the broker at a time; others wait.
const MAX_REQUESTS: usize = 4;
/// Longest token that fits into a header.
const MAX_TOKEN_HEADER: usize = 32 * 1024;

/// The guest, as the broker knows it.
pub struct Session {
    initdata: String,
    sealed_spec: [u8; 32],
    tee: Arc<dyn Tee>,
    target: Target,
    patience: Patience,
    attested: Mutex<Option<Arc<Attested>>>,
    requests: Semaphore,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("broker", &self.target.authority).finish_non_exhaustive()
    }
}

struct Attested {
    key: EphemeralKey,
    token: Option<String>,
    session: Option<String>,
    until: Instant,
}

impl Session {
    /// With the broker that initdata names; nothing is sent yet. None if it names none.
    pub fn new(initdata: &VerifiedInitdata, tee: Arc<dyn Tee>) -> Result<Option<Self>, Refusal> {
        let target = match initdata.policy() {
            Some(policy) => policy.broker.as_ref().map(Target::open).transpose()?,
            None => {
                let config = initdata.config()?;
                Some(Target::new(config, Transport::of(config)?)?)
            }
        };
        Ok(target.map(|target| Self::with(initdata, tee, target, Patience::default())))
    }

    pub(super) fn with(
        initdata: &VerifiedInitdata,
        tee: Arc<dyn Tee>,
        target: Target,
        patience: Patience,
    ) -> Self {
        Self {
            initdata: initdata.body().to_owned(),
            sealed_spec: initdata.sealed_spec(),
            tee,
            target,
            patience,
            attested: Mutex::new(None),
            requests: Semaphore::new(MAX_REQUESTS),
        }
    }

    /// Asks the broker for a resource; attests first where that hasn't happened or has lost its effect.
    pub async fn resource(&self, uri: &ResourceUri) -> Result<Zeroizing<Vec<u8>>, Refusal> {
        let _turn = self.requests.acquire().await.map_err(|_| Refusal::new(Code::Internal, "no turn"))?;
        let attested = self.attested(None).await?;
        match self.get(&attested, uri).await {
            // What the broker knew of this guest is gone: it expired, or the broker was restarted.
            Err(failure) if failure.attest_again => {
                let attested = self.attested(Some(&attested)).await?;
                Ok(self.get(&attested, uri).await?)
            }
            other => Ok(other?),
        }
    }

    /// The attestation in force; another one than `stale`. Whoever comes while one is made waits for it.
    async fn attested(&self, stale: Option<&Arc<Attested>>) -> Result<Arc<Attested>, Refusal> {
        let mut current = self.attested.lock().await;
        if let Some(attested) = current.as_ref()
            && attested.until > Instant::now()
            && !stale.is_some_and(|stale| Arc::ptr_eq(stale, attested))
        {
            return Ok(attested.clone());
        }
        *current = None;
        let until = Instant::now() + LIFETIME;
        let mut client = http::Client::new(&self.target, &self.patience);
        let (key, token) = match attest(&mut client, &self.initdata, self.sealed_spec, &self.tee).await {
            Err(Refusal { code: Code::Nonce | Code::Session, .. }) => {
                client = http::Client::new(&self.target, &self.patience);
                attest(&mut client, &self.initdata, self.sealed_spec, &self.tee).await?
            }
            other => other?,
        };
        // The cookie does where a token is too long to be sent back.
        let sendable =
            |token: &String| token.len() <= MAX_TOKEN_HEADER && token.bytes().all(|b| b.is_ascii_graphic());
        let token = Some(token).filter(sendable);
        let attested = Arc::new(Attested { key, token, session: client.into_session(), until });
        *current = Some(attested.clone());
        Ok(attested)
    }

    async fn get(&self, attested: &Attested, uri: &ResourceUri) -> Result<Zeroizing<Vec<u8>>, http::Failure> {
        let session = attested.session.clone();
        let mut client =
            http::Client::attested(&self.target, &self.patience, session, attested.token.as_deref());
        let answer: JweFlattened = client.get(&uri.http_path(), MAX_ANSWER).await?;
        attested.key.open(&answer).map_err(|error| protocol(format!("{uri}: {}", chain(&error))).into())
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;

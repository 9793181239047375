//! This guest at its broker: one attestation that everything shares and that is renewed when it ends, and
//! one key for as long as the guest runs. By that key the broker knows a guest that asks again, whatever
//! was lost in between: an answer, a session, the broker itself.

use std::sync::Arc;
use std::time::Duration;

use hyper::Method;
use hyper::body::Bytes;
use protocols::broker::{CONFIRM_PATH, Confirmation};
use protocols::rcar::{EphemeralKey, JweFlattened, MAX_PLAINTEXT, ResourceUri};
use protocols::refusal::{Code, Refusal};
use sealed_spec::SpecKey;
use tokio::sync::{Mutex, Semaphore};
use tokio::time::{Instant, sleep};
use zeroize::Zeroizing;

use super::handshake::{self, Guest};
use super::http::{self, Again, Client, Failure};
use super::transport::{Target, Transport};
use super::{Patience, protocol};
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
/// A session can die between two requests: the broker was restarted, a clock jumped.
const ATTEST_AGAIN: u32 = 1;
/// Answers that get lost before it is taken for a broken way to the broker.
const ASK_AGAIN: u32 = 3;

/// The guest, as the broker knows it.
pub struct Session {
    guest: Guest,
    key_id: Option<ResourceUri>,
    target: Target,
    patience: Patience,
    attested: Mutex<Option<Arc<Attested>>>,
    time: std::sync::Mutex<Option<(i64, Instant)>>,
    requests: Semaphore,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("broker", &self.target.authority).finish_non_exhaustive()
    }
}

struct Attested {
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
        target.map(|target| Self::with(initdata, tee, target, Patience::default())).transpose()
    }

    pub(super) fn with(
        initdata: &VerifiedInitdata,
        tee: Arc<dyn Tee>,
        target: Target,
        patience: Patience,
    ) -> Result<Self, Refusal> {
        let key_id = match initdata.policy() {
            Some(_) => None,
            None => {
                let key_id = initdata.config()?.key_id.as_str().parse();
                Some(key_id.map_err(|error| Refusal::new(Code::InitdataInvalid, chain(&error)))?)
            }
        };
        let key = EphemeralKey::generate().map_err(|error| Refusal::new(Code::Internal, chain(&error)))?;
        let (body, sealed_spec) = (initdata.body().to_owned(), initdata.sealed_spec());
        Ok(Self {
            guest: Guest { initdata: body, sealed_spec, tee, key },
            key_id,
            target,
            patience,
            attested: Mutex::new(None),
            time: std::sync::Mutex::new(None),
            requests: Semaphore::new(MAX_REQUESTS),
        })
    }

    /// Proves what this guest is to the broker and receives the key of its one sealed spec. Asking again is
    /// the same release.
    pub async fn spec_key(&self) -> Result<SpecKey, Refusal> {
        let opened = self.resource(self.key_id()?).await?;
        SpecKey::from_bytes(&opened)
            .map_err(|_| protocol(format!("the key has {} bytes instead of 32", opened.len())))
    }

    /// Asks the broker for a resource; attests first where that hasn't happened or has lost its effect.
    pub async fn resource(&self, uri: &ResourceUri) -> Result<Zeroizing<Vec<u8>>, Refusal> {
        let path = uri.http_path();
        let answer = self.ask(Method::GET, &path, Bytes::new()).await?;
        let answer: JweFlattened = http::parsed(&path, &answer)?;
        self.guest.key.open(&answer).map_err(|error| protocol(format!("{uri}: {}", chain(&error))))
    }

    /// Tells the broker that the spec key arrived and opened the sealed spec.
    pub async fn confirm(&self) -> Result<(), Refusal> {
        let confirmation = Confirmation { uri: self.key_id()?.to_string() };
        let body = http::written(CONFIRM_PATH, &confirmation)?;
        self.ask(Method::POST, CONFIRM_PATH, body).await.map(|_| ())
    }

    /// Now is not before this, in seconds since the epoch, by the broker's word over authenticated TLS.
    pub fn broker_time(&self) -> Option<i64> {
        let time = self.time.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        time.map(|(issued, at)| {
            issued.saturating_add(i64::try_from(at.elapsed().as_secs()).unwrap_or(i64::MAX))
        })
    }

    fn key_id(&self) -> Result<&ResourceUri, Refusal> {
        self.key_id
            .as_ref()
            .ok_or_else(|| Refusal::new(Code::Mode, "the guest's initdata names no sealed spec, so no key"))
    }

    /// One request, and what it takes to get it answered.
    async fn ask(&self, method: Method, path: &str, body: Bytes) -> Result<Bytes, Refusal> {
        let _turn = self.requests.acquire().await.map_err(|_| Refusal::new(Code::Internal, "no turn"))?;
        let (mut attest_again, mut ask_again) = (ATTEST_AGAIN, ASK_AGAIN);
        let mut stale = None;
        loop {
            let failure = match self.attested(stale.take()).await {
                Ok((attested, mut client)) => match client.request(&method, path, &body, MAX_ANSWER).await {
                    Ok(answer) => return Ok(answer),
                    Err(failure) => {
                        if failure.again == Again::Attested {
                            stale = Some(attested);
                        }
                        failure
                    }
                },
                Err(failure) => failure,
            };
            match failure.again {
                Again::Attested if attest_again > 0 => attest_again -= 1,
                Again::Lost if ask_again > 0 => {
                    ask_again -= 1;
                    sleep(self.patience.pause).await;
                }
                _ => return Err(failure.refusal),
            }
        }
    }

    /// The attestation in force, other than `stale`, and a client for it. Whoever comes while one is made
    /// waits for it.
    async fn attested(&self, stale: Option<Arc<Attested>>) -> Result<(Arc<Attested>, Client<'_>), Failure> {
        let mut current = self.attested.lock().await;
        if let Some(attested) = current.as_ref()
            && attested.until > Instant::now()
            && !stale.is_some_and(|stale| Arc::ptr_eq(&stale, attested))
        {
            let client = Client::new(&self.target, &self.patience);
            let client = client.attested(attested.session.clone(), attested.token.clone());
            return Ok((attested.clone(), client));
        }
        *current = None;
        let start = Instant::now();
        let mut client = Client::new(&self.target, &self.patience);
        let token = handshake::attest(&mut client, &self.guest).await?;
        if self.target.is_authenticated()
            && let Some(issued) = handshake::issued(&token)
        {
            let mut time = self.time.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            *time = Some((issued, Instant::now()));
        }
        // The cookie does where a token is too long to be sent back.
        let sendable =
            |token: &String| token.len() <= MAX_TOKEN_HEADER && token.bytes().all(|b| b.is_ascii_graphic());
        let token = Some(token).filter(sendable);
        let session = client.session().map(ToOwned::to_owned);
        let client = client.attested(session.clone(), token.clone());
        let attested = Arc::new(Attested { token, session, until: start + LIFETIME });
        *current = Some(attested.clone());
        Ok((attested, client))
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;

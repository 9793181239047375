//! AMD's key distribution service and mirrors of it, in order. Whatever they answer is checked before it
//! counts; one that says "not now" is left alone for as long as it asks, within reason.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hyper::StatusCode;
use tokio::time::Instant;

use crate::http::{Answer, Base, HttpError, Patience};
use crate::item::{Item, ItemError};
use crate::key::Key;

/// AMD's own.
pub const AMD_KDS: &str = "https://kdsintf.amd.com";

/// Longest time that a service is left alone because it asked for it.
const LONGEST_CLOSURE: Duration = Duration::from_secs(3600);
/// Where it named no time.
const CLOSURE: Duration = Duration::from_secs(30);

/// Services to ask, the first one first.
#[derive(Debug)]
pub(crate) struct Kds {
    services: Vec<Service>,
    patience: Patience,
}

#[derive(Debug)]
struct Service {
    base: Base,
    closed_until: Mutex<Option<Instant>>,
}

/// Why none of them gave anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KdsError {
    /// None is configured, or they don't hand out such things.
    NotAsked,
    /// All say that there is none.
    NotFound(String),
    /// At least one may have it another time, or gave something that isn't it.
    Failed(String),
}

/// Why one of them gave nothing.
#[derive(Debug, thiserror::Error)]
enum ServiceError {
    #[error("has none")]
    NotFound,
    #[error("asked not to be asked for {} s", .0.as_secs())]
    Closed(Duration),
    #[error("answers {0}")]
    Status(StatusCode),
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error("gave something else: {0}")]
    Item(#[from] ItemError),
}

impl Kds {
    pub(crate) fn new(bases: Vec<Base>, patience: Patience) -> Self {
        let service = |base| Service { base, closed_until: Mutex::default() };
        Self { services: bases.into_iter().map(service).collect(), patience }
    }

    pub(crate) fn is_configured(&self) -> bool {
        !self.services.is_empty()
    }

    /// Asks one service after the other until one gives what `check` takes.
    pub(crate) async fn fetch(
        &self,
        key: &Key,
        check: impl Fn(&[u8]) -> Result<Item, ItemError>,
    ) -> Result<Item, KdsError> {
        let Some(path) = key.kds_path() else { return Err(KdsError::NotAsked) };
        let mut problems = Vec::new();
        let mut all_without = true;
        for service in &self.services {
            match service.fetch(&path, key.limit() * 3 / 2, &self.patience, &check).await {
                Ok(item) => return Ok(item),
                Err(error) => {
                    all_without &= matches!(error, ServiceError::NotFound);
                    problems.push(format!("{}: {error}", service.base.name()));
                }
            }
        }
        match (problems.is_empty(), all_without) {
            (true, _) => Err(KdsError::NotAsked),
            (false, true) => Err(KdsError::NotFound(problems.join("; "))),
            (false, false) => Err(KdsError::Failed(problems.join("; "))),
        }
    }
}

impl Service {
    async fn fetch(
        &self,
        path: &str,
        limit: usize,
        patience: &Patience,
        check: &impl Fn(&[u8]) -> Result<Item, ItemError>,
    ) -> Result<Item, ServiceError> {
        let mut pauses = patience.pauses.into_iter();
        loop {
            self.open()?;
            let error = match self.base.get(path, limit, patience).await {
                Ok(Answer { status: StatusCode::OK, body, .. }) => return Ok(check(&body)?),
                Ok(Answer { status: StatusCode::NOT_FOUND, .. }) => return Err(ServiceError::NotFound),
                Ok(Answer { status, retry_after, .. }) if may_pass(status) => {
                    let busy = status == StatusCode::TOO_MANY_REQUESTS;
                    match (retry_after, pauses.next()) {
                        (None, Some(pause)) => tokio::time::sleep(pause).await,
                        (Some(asked), Some(_)) if asked <= patience.longest_pause => {
                            tokio::time::sleep(asked).await;
                        }
                        (asked, _) if busy || asked.is_some() => self.close(asked.unwrap_or(CLOSURE)),
                        _ => return Err(ServiceError::Status(status)),
                    }
                    continue;
                }
                Ok(Answer { status, .. }) => return Err(ServiceError::Status(status)),
                Err(error @ HttpError::TooLong(_)) => return Err(error.into()),
                Err(error) => error,
            };
            match pauses.next() {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return Err(error.into()),
            }
        }
    }

    fn open(&self) -> Result<(), ServiceError> {
        let mut closed = self.closed_until.lock().unwrap_or_else(PoisonError::into_inner);
        match *closed {
            Some(until) if until > Instant::now() => Err(ServiceError::Closed(until - Instant::now())),
            _ => {
                *closed = None;
                Ok(())
            }
        }
    }

    fn close(&self, asked: Duration) {
        let until = Instant::now() + asked.clamp(Duration::from_secs(1), LONGEST_CLOSURE);
        *self.closed_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
    }
}

fn may_pass(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 500 | 502 | 503 | 504)
}

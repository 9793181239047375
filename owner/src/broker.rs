//! The broker's interface for owners, over TLS pinned to the identity's CA.

use anyhow::{Context as _, Result, anyhow, bail};
use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, StatusCode};
use protocols::broker::{Accepted, HEALTH_PATH, Health};
use protocols::rcar::KbsError;
use protocols::refusal::Refusal;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::http::{Ask, HttpError, Server};
use crate::identity::Identity;
use crate::tls;

const LIMIT: usize = 256 * 1024;

/// A broker that only the pinned CA vouches for.
pub(crate) struct Broker {
    server: Server,
}

impl Broker {
    /// The identity's broker.
    pub(crate) fn of(identity: &Identity) -> Result<Self> {
        let configuration = || tls::pinned(&identity.guest.ca).context("broker's pinned CA");
        Ok(Self { server: Server::new(&identity.broker_url, configuration)? })
    }

    /// Hands over a signed statement.
    pub(crate) async fn post(&self, path: &str, statement: &impl Serialize) -> Result<Accepted> {
        let body = Bytes::from(serde_json::to_vec(statement)?);
        let headers = vec![(CONTENT_TYPE, HeaderValue::from_static("application/json"))];
        self.ask(Ask { method: Method::POST, path, headers, body, limit: LIMIT }).await
    }

    /// Whether it is up, and whom it trusts.
    pub(crate) async fn health(&self) -> Result<Health> {
        self.ask(Ask {
            method: Method::GET,
            path: HEALTH_PATH,
            headers: Vec::new(),
            body: Bytes::new(),
            limit: LIMIT,
        })
        .await
    }

    async fn ask<T: DeserializeOwned>(&self, ask: Ask<'_>) -> Result<T> {
        let name = self.server.name();
        let answer = self.server.ask(&ask).await.map_err(next_step)?;
        if answer.status == StatusCode::OK {
            return serde_json::from_slice(&answer.body).with_context(|| {
                format!("broker {name}: answer can't be read; is it a Sealpod broker of this version?")
            });
        }
        let detail =
            serde_json::from_slice::<KbsError>(&answer.body).map(|error| error.detail).unwrap_or_default();
        match Refusal::parse(&detail) {
            // The line is the message; the code can be explained.
            Some(refusal) => bail!("{refusal} (more: sealpod explain {})", refusal.code),
            None => {
                bail!("broker {name} answered {} to {}; is it a Sealpod broker?", answer.status, ask.path)
            }
        }
    }
}

fn next_step(error: HttpError) -> anyhow::Error {
    let step = match &error {
        HttpError::Certificate { .. } => {
            "the server is not the broker that this identity pins, or its certificate is for another name; \
             if the broker was set up anew, make a new identity with its CA"
        }
        HttpError::Resolve { .. } | HttpError::Connect { .. } | HttpError::Exchange { .. } => {
            "is the broker running, and the address in identity.toml right?"
        }
        _ => return anyhow!(error).context("broker"),
    };
    anyhow!("broker {error}; {step}")
}

//! The few HTTP/1.1 requests of a handshake: one connection, one cookie, bounded answers. The broker's
//! refusals are passed on as they came.

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, COOKIE, HOST, HeaderMap, SET_COOKIE};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use protocols::rcar::{KbsError, SESSION_COOKIE};
use protocols::refusal::{Code, Refusal};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::transport::Target;
use super::{Patience, protocol};

const MAX_HEAD: usize = 64 * 1024;
const MAX_HEADERS: usize = 64;
const MAX_COOKIE: usize = 256;

pub(super) struct Client<'a> {
    target: &'a Target,
    patience: &'a Patience,
    sender: Option<SendRequest<Full<Bytes>>>,
    session: Option<String>,
    token: Option<String>,
}

/// A request that gave nothing.
pub(super) struct Failure {
    pub(super) refusal: Refusal,
    pub(super) again: Again,
}

/// What could help.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Again {
    /// Nothing.
    Never,
    /// Another handshake: the broker said so, or 401 without a refusal of ours, which with the stock broker
    /// can be anything.
    Attested,
    /// The same once more: request or answer were lost on their way.
    Lost,
}

impl Failure {
    fn lost(detail: impl Into<String>) -> Self {
        Self { refusal: protocol(detail), again: Again::Lost }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let again = match refusal.code {
            Code::Nonce | Code::Session => Again::Attested,
            _ => Again::Never,
        };
        Self { refusal, again }
    }
}

impl<'a> Client<'a> {
    pub(super) fn new(target: &'a Target, patience: &'a Patience) -> Self {
        Self { target, patience, sender: None, session: None, token: None }
    }

    /// For requests after the handshake.
    pub(super) fn attested(self, session: Option<String>, token: Option<String>) -> Self {
        Self { session, token, ..self }
    }

    /// The session's cookie, once the broker has set it.
    pub(super) fn session(&self) -> Option<&str> {
        self.session.as_deref()
    }

    pub(super) async fn post<T: DeserializeOwned>(
        &mut self,
        path: &str,
        body: &impl Serialize,
        limit: usize,
    ) -> Result<T, Failure> {
        let body = written(path, body)?;
        Ok(parsed(path, &self.request(&Method::POST, path, &body, limit).await?)?)
    }

    /// The body of the answer.
    pub(super) async fn request(
        &mut self,
        method: &Method,
        path: &str,
        body: &Bytes,
        limit: usize,
    ) -> Result<Bytes, Failure> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, &self.target.authority)
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, "application/json");
        if let Some(session) = &self.session {
            request = request.header(COOKIE, format!("{SESSION_COOKIE}={session}"));
        }
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request
            .body(Full::new(body.clone()))
            .map_err(|error| Refusal::new(Code::Internal, format!("request for {path}: {error}")))?;
        let patience = self.patience;
        let sender = self.sender().await?;
        let answer = timeout(patience.answer, async {
            let response = sender.send_request(request).await.map_err(|error| {
                let detail = format!("the connection ended during the request for {path}: {error}");
                // What isn't HTTP won't be the next time.
                if error.is_parse() { protocol(detail).into() } else { Failure::lost(detail) }
            })?;
            read(response, limit).await
        });
        let (status, headers, body) =
            answer.await.map_err(|_| protocol(format!("no answer to the request for {path} in time")))??;
        if !status.is_success() {
            return Err(refused(path, status, &body));
        }
        if let Some(session) = session(&headers)? {
            self.session = Some(session);
        }
        Ok(body)
    }

    /// The open connection, or a new one if the broker closed it between two requests.
    async fn sender(&mut self) -> Result<&mut SendRequest<Full<Bytes>>, Refusal> {
        let open = match &mut self.sender {
            Some(sender) => sender.ready().await.is_ok(),
            None => false,
        };
        if !open {
            let stream = self.target.connect(self.patience).await?;
            let (sender, connection) = http1::Builder::new()
                .max_buf_size(MAX_HEAD)
                .max_headers(MAX_HEADERS)
                .handshake(TokioIo::new(stream))
                .await
                .map_err(|error| protocol(format!("HTTP can't start: {error}")))?;
            // Ends with the sender, and says nothing that the request's own error doesn't.
            drop(tokio::spawn(connection));
            self.sender = Some(sender);
        }
        self.sender.as_mut().ok_or_else(|| Refusal::new(Code::Internal, "no connection"))
    }
}

pub(super) fn written(path: &str, body: &impl Serialize) -> Result<Bytes, Refusal> {
    let body = serde_json::to_vec(body);
    body.map(Into::into).map_err(|error| Refusal::new(Code::Internal, format!("request for {path}: {error}")))
}

pub(super) fn parsed<T: DeserializeOwned>(path: &str, body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body)
        .map_err(|error| protocol(format!("the body for {path} is not the expected JSON: {error}")))
}

async fn read(response: Response<Incoming>, limit: usize) -> Result<(StatusCode, HeaderMap, Bytes), Failure> {
    let (head, body) = response.into_parts();
    let body = Limited::new(body, limit).collect().await.map_err(|error| {
        let detail = format!("the body can't be read: {error}");
        // Anything else is a body that is longer than it may be.
        if error.is::<hyper::Error>() { Failure::lost(detail) } else { protocol(detail).into() }
    })?;
    Ok((head.status, head.headers, body.to_bytes()))
}

/// The broker's own refusal line where there is one.
fn refused(path: &str, status: StatusCode, body: &[u8]) -> Failure {
    let again = if status == StatusCode::UNAUTHORIZED { Again::Attested } else { Again::Never };
    let Ok(error) = serde_json::from_slice::<KbsError>(body) else {
        return Failure { refusal: protocol(format!("status {} for {path}", status.as_u16())), again };
    };
    match Refusal::parse(&error.detail) {
        Some(refusal) => refusal.into(),
        None => {
            let refusal = protocol(format!("status {} for {path}: {}", status.as_u16(), error.detail));
            Failure { refusal, again }
        }
    }
}

fn session(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    for header in headers.get_all(SET_COOKIE) {
        let Some((name, rest)) = header.to_str().ok().and_then(|text| text.split_once('=')) else { continue };
        if name != SESSION_COOKIE {
            continue;
        }
        let value = rest.split(';').next().unwrap_or_default().trim();
        let token = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if value.is_empty() || value.len() > MAX_COOKIE || !value.bytes().all(token) {
            return Err(protocol("the session cookie is malformed"));
        }
        return Ok(Some(value.to_owned()));
    }
    Ok(None)
}

//! Bodies: bounded, whole, and wiped once read.

use axum::body::Body;
use axum::http::StatusCode;
use axum::http::header::CONTENT_LENGTH;
use axum::http::request::Parts;
use http_body_util::BodyExt;
use protocols::refusal::Code;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use crate::refused::Refused;

/// Reads a JSON body of at most `most` bytes. `code` is what a malformed one is refused with.
pub(crate) async fn json<T: DeserializeOwned>(
    parts: &Parts,
    body: Body,
    most: usize,
    code: Code,
) -> Result<T, Refused> {
    let bytes = bytes(parts, body, most, code).await?;
    serde_json::from_slice(&bytes)
        .map_err(|error| {
            // The error's own text may quote the body, which may hold a secret: only the place is told.
            let place = format!("line {} column {}", error.line(), error.column());
            let kind = match error.classify() {
                serde_json::error::Category::Data => "does not have the expected fields",
                _ => "is not JSON",
            };
            Refused::new(code, format!("the request's body {kind} ({place})"))
        })
        .map_err(|refused| refused.with_status(StatusCode::BAD_REQUEST))
}

/// Reads a body of at most `most` bytes.
pub(crate) async fn bytes(
    parts: &Parts,
    mut body: Body,
    most: usize,
    code: Code,
) -> Result<Zeroizing<Vec<u8>>, Refused> {
    let too_long = || {
        Refused::new(code, format!("the request's body is longer than {most} bytes"))
            .with_status(StatusCode::PAYLOAD_TOO_LARGE)
    };
    let announced =
        parts.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > most) {
        return Err(too_long());
    }
    // Room from the start where the length is known: a buffer that grows leaves copies of secrets behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(announced.unwrap_or(4096)));
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            Refused::new(code, "the request's body was cut off").because(error.to_string())
        })?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > most {
            return Err(too_long());
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

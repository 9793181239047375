//! The launch itself, between a paused QEMU and the broker: capabilities → session → (QEMU starts) → measurement →
//! secret → the guest runs. Blobs pass through as they came.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use protocols::refusal::{Code, Refusal};
use protocols::sev::{
    MEASUREMENTS_PATH, MeasurementAnswer, MeasurementRequest, SESSIONS_PATH, SessionAnswer, SessionRequest,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};

use super::broker::Broker;
use super::command_line::POLICY_ES;
use super::config::{self, ConfigError};
use crate::qmp::{Capabilities, Client, Patience, QmpError};

/// Longest file for QEMU in base64: a certificate is 2084 bytes.
const MAX_FILE: usize = 8 * 1024;
/// Longest part of a secret packet in base64.
const MAX_PACKET: usize = 32 * 1024;
/// A session's name.
const SESSION_DIGITS: usize = 32;

/// Why a guest was not launched.
#[derive(Debug, Error)]
pub enum LaunchError {
    /// The broker refused, or can't be asked.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// QEMU refused, or makes no sense.
    #[error(transparent)]
    Qmp(#[from] QmpError),
    /// The platform file.
    #[error(transparent)]
    Platform(#[from] ConfigError),
    /// The platform file isn't one.
    #[error("platform file {path}: {detail}; 'sealpod-relay sev-platform' prints one")]
    NotAPlatform {
        /// The file.
        path: String,
        /// What is wrong.
        detail: String,
    },
    /// The guest was started with another policy than the session's.
    #[error("the guest's policy is {found:#x}, the session's is {wanted:#x}: qemu changed it")]
    Policy {
        /// `query-sev` says.
        found: u32,
        /// The broker said.
        wanted: u32,
    },
}

/// What the second half of a launch has to know of the first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// The broker's name for it.
    pub session: String,
    /// The guest policy that it is for.
    pub policy: u32,
}

/// Capabilities from a file of the operator's.
///
/// # Errors
/// [`LaunchError`] that names the file.
pub fn platform(path: &Path) -> Result<Capabilities, LaunchError> {
    let bad = |detail: String| LaunchError::NotAPlatform { path: path.display().to_string(), detail };
    let capabilities: Capabilities =
        serde_json::from_str(&config::read(path)?).map_err(|error| bad(error.to_string()))?;
    capabilities.check().map_err(|error| bad(error.to_string()))?;
    Ok(capabilities)
}

/// Asks the broker for a session.
///
/// # Errors
/// The broker's refusal; [`Code::BrokerProtocol`] for an answer that can't be passed on to QEMU.
pub async fn open_session(
    broker: &Broker,
    init_data: String,
    es: bool,
    platform: Capabilities,
) -> Result<SessionAnswer, Refusal> {
    let Capabilities { pdh, cert_chain, cpu0_id, .. } = platform;
    let request = SessionRequest { init_data, es, pdh, cert_chain, cpu0_id };
    let answer: SessionAnswer = broker.post(SESSIONS_PATH, &request).await?;
    let wrong = |what: &str| Err(Refusal::new(Code::BrokerProtocol, format!("session answer: {what}")));
    let digits = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if answer.session.len() != SESSION_DIGITS || !answer.session.bytes().all(digits) {
        return wrong("session is not 32 hexadecimal digits");
    }
    if !blob(&answer.godh, MAX_FILE) {
        return wrong("godh is not base64 of a certificate's length");
    }
    if !blob(&answer.session_blob, MAX_FILE) {
        return wrong("session_blob is not base64 of a session's length");
    }
    if (answer.policy & POLICY_ES != 0) != es {
        return wrong("its policy is for the other one of SEV and SEV-ES than was asked for");
    }
    Ok(answer)
}

/// From a paused, measured guest to a running one. `run` is false where the caller wants it paused further on.
///
/// # Errors
/// [`LaunchError`]; the guest has no secret then, or doesn't run, and must be ended.
pub async fn attest<S: AsyncRead + AsyncWrite + Unpin>(
    monitor: S,
    patience: Patience,
    broker: &Broker,
    session: &Session,
    run: bool,
) -> Result<(), LaunchError> {
    let mut qemu = Client::greet(monitor, patience).await?;
    let launch = qemu.sev_launch().await?;
    // The broker holds the same against its session; here it says which program changed it.
    if launch.policy != session.policy {
        return Err(LaunchError::Policy { found: launch.policy, wanted: session.policy });
    }
    let measurement = qemu.sev_measurement().await?;
    let request = MeasurementRequest {
        session: session.session.clone(),
        api_major: launch.api_major,
        api_minor: launch.api_minor,
        build: launch.build,
        policy: launch.policy,
        measurement: measurement.as_str().to_owned(),
    };
    let answer: MeasurementAnswer = broker.post(MEASUREMENTS_PATH, &request).await?;
    if !blob(&answer.packet_header, MAX_FILE) || !blob(&answer.secret, MAX_PACKET) {
        let detail = "measurement answer: packet_header or secret is not base64 of a packet's length";
        return Err(Refusal::new(Code::BrokerProtocol, detail).into());
    }
    qemu.sev_inject(&answer.packet_header, &answer.secret).await?;
    if run {
        qemu.cont().await?;
    }
    Ok(())
}

fn blob(text: &str, longest: usize) -> bool {
    (1..=longest).contains(&text.len()) && STANDARD.decode(text).is_ok()
}

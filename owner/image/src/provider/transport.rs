//! One question to a provider and its answer, by whichever way it is reached. Blocks: wrapping and unwrapping
//! are done from threads of all kinds, so each question runs on a thread of its own with a runtime of its own.

use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;
use zeroize::Zeroizing;

use super::address::Address;
use super::config::Transport;
use super::message::MessageError;
use super::{command, grpc, ttrpc};

/// How long a provider may take, which may ask a person or a service far away.
const TIME_LIMIT: Duration = Duration::from_secs(60);

/// What a provider is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Wrap a layer's key.
    Wrap,
    /// Unwrap one.
    Unwrap,
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub(super) enum TransportError {
    #[error("command {path} {problem}")]
    Command { path: PathBuf, problem: String },
    #[error("{address}: {problem}")]
    Rpc { address: String, problem: String },
    #[error("{path}: {problem}")]
    Tls { path: PathBuf, problem: String },
    #[error("{0}")]
    Message(#[from] MessageError),
    #[error("no answer within {} s", TIME_LIMIT.as_secs())]
    Time,
    #[error("no thread or runtime to ask it from: {0}")]
    Runtime(String),
}

impl TransportError {
    pub(super) fn rpc(address: &Address, problem: impl Into<String>) -> Self {
        Self::Rpc { address: address.to_string(), problem: problem.into() }
    }
}

/// Asks, and waits for the answer.
pub(super) fn ask(
    transport: &Transport,
    operation: Operation,
    request: &[u8],
) -> Result<Zeroizing<Vec<u8>>, TransportError> {
    let runtime = |error: &dyn std::fmt::Display| TransportError::Runtime(error.to_string());
    std::thread::scope(|scope| {
        let asking = std::thread::Builder::new().name("key-provider".into()).spawn_scoped(scope, || {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|error| runtime(&error))?
                // Made inside: its timer is the runtime's.
                .block_on(async {
                    tokio::time::timeout(TIME_LIMIT, exchange(transport, operation, request)).await
                })
                .unwrap_or(Err(TransportError::Time))
        });
        let asking = asking.map_err(|error| runtime(&error))?;
        asking.join().unwrap_or_else(|_| Err(runtime(&"it panicked")))
    })
}

async fn exchange(
    transport: &Transport,
    operation: Operation,
    request: &[u8],
) -> Result<Zeroizing<Vec<u8>>, TransportError> {
    match transport {
        Transport::Command(command) => command::ask(command, request).await,
        Transport::Grpc(address, tls) => grpc::ask(address, tls.as_ref(), operation, request).await,
        Transport::Ttrpc(address) => ttrpc::ask(address, operation, request, TIME_LIMIT).await,
    }
}

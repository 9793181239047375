//! The agent's ttrpc client over the guest's vsock, as the Kata runtime connects: `CONNECT 1024` on a unix socket,
//! then one connection that everything is multiplexed on.

use std::path::Path;
use std::time::Duration;

use protocols::agent_ttrpc::AgentServiceClient;
use protocols::health::{CheckRequest, VersionCheckResponse, health_check_response::ServingStatus};
use protocols::health_ttrpc::HealthClient;
use protocols::refusal::Refusal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use ttrpc::context::{Context, with_duration};

/// `OK ` and a port, or what else a vsock multiplexer may say in a line.
const LONGEST_ANSWER: usize = 64;

/// What goes wrong with a request to the agent.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The connection could not be made.
    #[error("cannot connect to the agent at {path} port {port}")]
    Connect {
        /// The guest's vsock socket.
        path: std::path::PathBuf,
        /// The guest's port.
        port: u32,
        /// Why.
        source: std::io::Error,
    },
    /// The agent refused, with a code that `sealpod explain` knows.
    #[error("{rpc}: {refusal}")]
    Refused {
        /// The request.
        rpc: &'static str,
        /// Code and detail.
        refusal: Refusal,
    },
    /// The agent answered with another error.
    #[error("{rpc}: the agent answered {code:?}: {message}")]
    Status {
        /// The request.
        rpc: &'static str,
        /// ttrpc's status code.
        code: ttrpc::Code,
        /// The agent's words.
        message: String,
    },
    /// No answer came: time-out, or the connection broke.
    #[error("{rpc}: no answer from the agent: {detail}")]
    Lost {
        /// The request.
        rpc: &'static str,
        /// Why.
        detail: String,
    },
}

impl AgentError {
    fn from_ttrpc(rpc: &'static str, error: &ttrpc::Error) -> AgentError {
        let ttrpc::Error::RpcStatus(status) = error else {
            return AgentError::Lost { rpc, detail: error.to_string() };
        };
        match Refusal::parse(status.message()) {
            Some(refusal) => AgentError::Refused { rpc, refusal },
            None => AgentError::Status { rpc, code: status.code(), message: status.message().to_owned() },
        }
    }

    /// The refusal, if it is one.
    #[must_use]
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            AgentError::Refused { refusal, .. } => Some(refusal),
            _ => None,
        }
    }

    /// ttrpc's status code, if the agent answered with one and no refusal.
    #[must_use]
    pub fn code(&self) -> Option<ttrpc::Code> {
        match self {
            AgentError::Status { code, .. } => Some(*code),
            _ => None,
        }
    }
}

/// One connection to the agent. Clones share it.
#[derive(Clone)]
pub struct AgentClient {
    agent: AgentServiceClient,
    health: HealthClient,
}

impl std::fmt::Debug for AgentClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AgentClient")
    }
}

/// Calls one RPC of the agent with a time-out (`Duration::ZERO`: none) and names it in the error.
macro_rules! rpc {
    ($client:expr, $method:ident, $request:expr, $timeout:expr) => {
        $client
            .call(stringify!($method), $client.agent().$method($crate::client::context($timeout), $request))
            .await
    };
}
pub(crate) use rpc;

/// A request's context: a time-out, or none.
pub(crate) fn context(timeout: Duration) -> Context {
    if timeout.is_zero() { Context::default() } else { with_duration(timeout) }
}

impl AgentClient {
    /// Connects through a vsock multiplexer's socket.
    ///
    /// # Errors
    /// [`AgentError::Connect`], also when nobody listens on the guest's port yet.
    pub async fn connect(path: &Path, port: u32) -> Result<AgentClient, AgentError> {
        let failed = |source| AgentError::Connect { path: path.to_owned(), port, source };
        let mut stream = UnixStream::connect(path).await.map_err(failed)?;
        handshake(&mut stream, port).await.map_err(failed)?;
        Ok(AgentClient::over(stream))
    }

    /// Speaks ttrpc on a stream that is connected to the agent: the "remote hypervisor" way.
    #[must_use]
    pub fn over(stream: UnixStream) -> AgentClient {
        let client = ttrpc::r#async::Client::new(stream.into());
        AgentClient { agent: AgentServiceClient::new(client.clone()), health: HealthClient::new(client) }
    }

    /// The generated client, for requests that the driver doesn't make.
    #[must_use]
    pub fn agent(&self) -> &AgentServiceClient {
        &self.agent
    }

    /// Health `Check`: an error unless the agent serves.
    ///
    /// # Errors
    /// [`AgentError`]; `Status` with `UNAVAILABLE` if it answers that it doesn't serve.
    pub async fn check(&self, timeout: Duration) -> Result<(), AgentError> {
        let answer =
            self.call("check", self.health.check(context(timeout), &CheckRequest::default())).await?;
        match answer.status.enum_value_or_default() {
            ServingStatus::SERVING => Ok(()),
            other => Err(AgentError::Status {
                rpc: "check",
                code: ttrpc::Code::UNAVAILABLE,
                message: format!("{other:?}"),
            }),
        }
    }

    /// Health `Version`.
    ///
    /// # Errors
    /// [`AgentError`].
    pub async fn version(&self, timeout: Duration) -> Result<VersionCheckResponse, AgentError> {
        self.call("version", self.health.version(context(timeout), &CheckRequest::default())).await
    }

    pub(crate) async fn call<T>(
        &self,
        rpc: &'static str,
        answer: impl Future<Output = ttrpc::Result<T>>,
    ) -> Result<T, AgentError> {
        answer.await.map_err(|error| AgentError::from_ttrpc(rpc, &error))
    }
}

/// `CONNECT <port>\n` → `OK <host port>\n`. Byte by byte: what follows the newline belongs to ttrpc.
async fn handshake(stream: &mut UnixStream, port: u32) -> std::io::Result<()> {
    stream.write_all(format!("CONNECT {port}\n").as_bytes()).await?;
    let mut answer = Vec::new();
    loop {
        match stream.read_u8().await? {
            b'\n' => break,
            byte if answer.len() < LONGEST_ANSWER => answer.push(byte),
            _ => return Err(std::io::Error::other("the answer to CONNECT is too long")),
        }
    }
    if answer.starts_with(b"OK ") {
        Ok(())
    } else {
        Err(std::io::Error::other(format!("CONNECT was answered {:?}", String::from_utf8_lossy(&answer))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::UnixListener;

    async fn answered(answer: &'static [u8]) -> Result<(), String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("vm.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 13];
            stream.read_exact(&mut request).await.unwrap();
            assert_eq!(&request, b"CONNECT 1024\n");
            stream.write_all(answer).await.unwrap();
        });
        let mut stream = UnixStream::connect(&path).await.unwrap();
        let outcome = handshake(&mut stream, 1024).await.map_err(|error| error.to_string());
        server.await.unwrap();
        if outcome.is_ok() {
            let mut rest = String::new();
            stream.read_to_string(&mut rest).await.unwrap();
            assert_eq!(rest, "ttrpc", "bytes behind the newline must be left");
        }
        outcome
    }

    #[tokio::test]
    async fn the_handshake_takes_its_line_and_no_more() {
        answered(b"OK 1073741824\nttrpc").await.unwrap();
    }

    #[tokio::test]
    async fn other_answers_are_errors() {
        assert!(answered(b"NO\n").await.unwrap_err().contains("NO"));
        assert!(answered(b"").await.is_err());
        assert!(answered(&[b'O'; 100]).await.unwrap_err().contains("too long"));
    }
}

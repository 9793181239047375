//! A client of QEMU's monitor (QMP, docs/interop/qmp-spec in QEMU): greeting, one command at a time, its answer.
//! QEMU's bytes are bounded as a stranger's: length and nesting of a line, lines between a command and its answer,
//! time. Events are skipped. After an error other than QEMU's own refusal the connection is not used again.

mod sev;
#[cfg(test)]
mod tests;
pub mod wire;

use std::time::Duration;

use serde_json::{Value, json};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

pub use sev::{Capabilities, Launch, Measurement};
use wire::{MAX_LINE, Message, WireError};

/// Lines that may come between a command and its answer.
const MAX_EVENTS: usize = 256;
const BLOCK: usize = 4096;
/// What errors before the first command name.
const GREETING: &str = "greeting";

/// What goes wrong with a command.
#[derive(Debug, Error)]
pub enum QmpError {
    /// QEMU refused the command.
    #[error("qemu refused '{command}': {class}: {desc}")]
    Refused {
        /// The command.
        command: &'static str,
        /// QEMU's class of errors.
        class: String,
        /// QEMU's words, cut and without control characters.
        desc: String,
    },
    /// A line that is not QMP.
    #[error("qemu's answer to '{command}' can't be read: {why}")]
    Wire {
        /// The command.
        command: &'static str,
        /// Why.
        why: WireError,
    },
    /// QMP, but not what comes at this place.
    #[error("qemu's answer to '{command}' is out of order: {what}")]
    Order {
        /// The command.
        command: &'static str,
        /// What came.
        what: &'static str,
    },
    /// An answer without the field, or with one that makes no sense.
    #[error("qemu's answer to '{command}': {field} {rule}")]
    Field {
        /// The command.
        command: &'static str,
        /// The field.
        field: &'static str,
        /// What it should be.
        rule: &'static str,
    },
    /// No answer in time.
    #[error(
        "qemu does not answer '{command}' within {seconds} s; raise [seconds] in relay.toml if it is busy"
    )]
    Silent {
        /// The command.
        command: &'static str,
        /// How long was waited.
        seconds: u64,
    },
    /// The connection ended.
    #[error("qemu hung up during '{command}'; its own error output says why")]
    Closed {
        /// The command.
        command: &'static str,
    },
    /// The connection failed.
    #[error("the connection to qemu failed during '{command}'")]
    Io {
        /// The command.
        command: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// A command after an error.
    #[error("'{command}' was not sent: the connection to qemu is out of step")]
    Broken {
        /// The command.
        command: &'static str,
    },
}

/// How long QEMU may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// To its first answer: it sets the guest up before.
    pub start: Duration,
    /// To each further one.
    pub answer: Duration,
}

/// A connection in step.
#[derive(Debug)]
pub struct Client<S> {
    stream: S,
    /// Bytes that came after the last line.
    pending: Vec<u8>,
    next_id: u64,
    patience: Patience,
    broken: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// Waits for QEMU's greeting and ends the negotiation.
    ///
    /// # Errors
    /// [`QmpError`] that names the greeting or `qmp_capabilities`.
    pub async fn greet(stream: S, patience: Patience) -> Result<Self, QmpError> {
        let mut client = Self { stream, pending: Vec::new(), next_id: 0, patience, broken: false };
        let greeting = timeout(patience.start, client.line(GREETING)).await;
        match greeting.map_err(|_| silent(GREETING, patience.start))?? {
            Message::Greeting => {}
            _ => return Err(QmpError::Order { command: GREETING, what: "something else came first" }),
        }
        // QEMU answers once its main loop runs, hence once the guest is set up.
        client.within(patience.start, "qmp_capabilities", None).await?;
        Ok(client)
    }

    /// Runs a command and returns what it returned.
    ///
    /// # Errors
    /// [`QmpError`]; after any but [`QmpError::Refused`] every further command is [`QmpError::Broken`].
    pub async fn execute(
        &mut self,
        command: &'static str,
        arguments: Option<Value>,
    ) -> Result<Value, QmpError> {
        self.within(self.patience.answer, command, arguments).await
    }

    async fn within(
        &mut self,
        patience: Duration,
        command: &'static str,
        arguments: Option<Value>,
    ) -> Result<Value, QmpError> {
        if std::mem::replace(&mut self.broken, true) {
            return Err(QmpError::Broken { command });
        }
        let outcome = timeout(patience, self.exchange(command, arguments)).await;
        let outcome = outcome.unwrap_or_else(|_| Err(silent(command, patience)));
        self.broken = !matches!(outcome, Ok(_) | Err(QmpError::Refused { .. }));
        outcome
    }

    async fn exchange(&mut self, command: &'static str, arguments: Option<Value>) -> Result<Value, QmpError> {
        let id = self.next_id;
        self.next_id += 1;
        let mut request = json!({ "execute": command, "id": id });
        if let Some(arguments) = arguments {
            request["arguments"] = arguments;
        }
        let line = format!("{request}\n");
        self.stream.write_all(line.as_bytes()).await.map_err(|source| QmpError::Io { command, source })?;
        let order = |what| Err(QmpError::Order { command, what });
        for _ in 0..=MAX_EVENTS {
            match self.line(command).await? {
                Message::Event => {}
                Message::Greeting => return order("a second greeting"),
                Message::Return { id: answered, .. } | Message::Error { id: answered, .. }
                    if answered != Some(id) =>
                {
                    return order("it is for another command");
                }
                Message::Return { value, .. } => return Ok(value),
                Message::Error { class, desc, .. } => return Err(QmpError::Refused { command, class, desc }),
            }
        }
        order("nothing but events came")
    }

    async fn line(&mut self, command: &'static str) -> Result<Message, QmpError> {
        let mut searched = 0;
        loop {
            if let Some(at) = self.pending[searched..].iter().position(|byte| *byte == b'\n') {
                let rest = self.pending.split_off(searched + at + 1);
                let line = std::mem::replace(&mut self.pending, rest);
                return wire::parse(&line).map_err(|why| QmpError::Wire { command, why });
            }
            searched = self.pending.len();
            if searched > MAX_LINE {
                return Err(QmpError::Wire { command, why: WireError::Long });
            }
            let mut block = [0; BLOCK];
            let read = self.stream.read(&mut block).await;
            match read.map_err(|source| QmpError::Io { command, source })? {
                0 => return Err(QmpError::Closed { command }),
                length => self.pending.extend_from_slice(&block[..length]),
            }
        }
    }
}

fn silent(command: &'static str, patience: Duration) -> QmpError {
    QmpError::Silent { command, seconds: patience.as_secs() }
}

//! A process' two output streams, read side by side until both end, as containerd's shim copies them.

use protocols::agent::ReadStreamRequest;
use std::time::Duration;
use tokio::sync::mpsc::Sender;
use tokio::task::JoinHandle;

use super::{KEPT, Output, Stream};
use crate::client::{AgentClient, rpc};

/// The shim's read size.
const READ: u32 = 8192;

/// Reads one stream to its end: its first [`KEPT`] bytes; everything goes to `output` as it comes.
pub(super) fn read(
    client: AgentClient,
    process: (String, String),
    container: String,
    stream: Stream,
    output: Option<Sender<Output>>,
) -> JoinHandle<Vec<u8>> {
    tokio::spawn(async move {
        let (container_id, exec_id) = process;
        let request = ReadStreamRequest { container_id, exec_id, len: READ, ..Default::default() };
        let mut kept = Vec::new();
        loop {
            let answer = match stream {
                Stream::Stdout => rpc!(client, read_stdout, &request, Duration::ZERO),
                Stream::Stderr => rpc!(client, read_stderr, &request, Duration::ZERO),
            };
            // Errors end a stream as its end does: the process or the guest is gone, and waiting tells.
            let Ok(answer) = answer else { return kept };
            if answer.data.is_empty() {
                return kept;
            }
            let room = KEPT.saturating_sub(kept.len());
            kept.extend_from_slice(&answer.data[..answer.data.len().min(room)]);
            if let Some(output) = &output {
                let piece = Output { container: container.clone(), stream, data: answer.data };
                // A reader that went away doesn't stop the process.
                let _ = output.send(piece).await;
            }
        }
    })
}

//! What the host writes to a process, and how large it says the window is.

use std::sync::Arc;

use protocols::refusal::Code;

use super::{Container, Instance, Target};
use crate::agent::Agent;
use crate::error::{Error, Result};
use crate::process::Process;

impl Agent {
    /// Writes to a process' input, and waits until it is written.
    pub async fn write_stdin(&self, id: &str, exec: &str, bytes: &[u8]) -> Result<()> {
        let denied = || {
            Error::refused(Code::AttachDenied, "the sealed spec grants the host no stdin of this container")
        };
        let (instance, process) = self.process(id, exec)?.ok_or_else(denied)?;
        if !instance.rights.stdin {
            return Err(denied());
        }
        let written = process.streams.stdin.write(bytes, &process.watched).await;
        written.map_err(|error| Error::Internal(error.to_string()))
    }

    /// Lets a process read the end of its input.
    pub async fn close_stdin(&self, id: &str, exec: &str) -> Result<()> {
        if let Some((instance, process)) = self.process(id, exec)?
            && instance.rights.stdin
        {
            process.streams.stdin.close().await;
        }
        Ok(())
    }

    /// Tells a process the size of its terminal's window.
    pub fn resize(&self, id: &str, exec: &str, rows: u32, columns: u32) -> Result<()> {
        let no_terminal = || Error::Unavailable("the process has no terminal".into());
        let (instance, process) = self.process(id, exec)?.ok_or_else(no_terminal)?;
        let terminal = process.streams.terminal.as_ref().ok_or_else(no_terminal)?;
        if !instance.rights.resize {
            let detail = "the sealed spec doesn't let the host resize the terminal";
            return Err(Error::refused(Code::ResizeDenied, detail));
        }
        let cells = |count: u32| u16::try_from(count).unwrap_or(u16::MAX);
        terminal.resize(cells(rows), cells(columns)).map_err(Error::step("resizing the terminal"))
    }

    /// `None`: the pause container, which has no process.
    fn process(&self, id: &str, exec: &str) -> Result<Option<(Arc<Instance>, Arc<Process>)>> {
        match self.containers.find(id)? {
            Container::Pause(_) => Ok(None),
            Container::Instance(instance) => {
                let process = instance.process(Target::parse(id, exec))?;
                Ok(Some((instance, process)))
            }
        }
    }
}

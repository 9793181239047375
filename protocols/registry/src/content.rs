//! What is pushed: something that can be read again from any byte, because uploads break.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::body::{Outgoing, Pulse};

/// Chunks between disk and network, and their size.
const QUEUE: usize = 4;
const CHUNK: usize = 256 << 10;

/// The bytes of a blob.
pub trait Content: Send + Sync {
    /// A reader of the bytes from `from` on. It is read on a thread where it may block.
    fn open(&self, from: u64) -> io::Result<Box<dyn Read + Send>>;
}

impl Content for Bytes {
    fn open(&self, from: u64) -> io::Result<Box<dyn Read + Send>> {
        let from = usize::try_from(from).unwrap_or(usize::MAX).min(self.len());
        Ok(Box::new(io::Cursor::new(self.slice(from..))))
    }
}

/// A file that holds a blob and nothing else.
#[derive(Clone, Debug)]
pub struct FileContent(pub PathBuf);

impl Content for FileContent {
    fn open(&self, from: u64) -> io::Result<Box<dyn Read + Send>> {
        let mut file = File::open(&self.0)?;
        file.seek(SeekFrom::Start(from))?;
        Ok(Box::new(file))
    }
}

/// Why a content couldn't be read, told past the HTTP library, which has no words for it.
#[derive(Clone, Default)]
pub(crate) struct Trouble(Arc<Mutex<Option<String>>>);

impl Trouble {
    pub(crate) fn take(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn set(&self, reason: String) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
    }
}

/// The next `length` bytes of a reader as a request's body. `last`: the content must end there.
pub(crate) fn stream(
    mut reader: Box<dyn Read + Send>,
    length: u64,
    last: bool,
    pulse: &Pulse,
) -> (Outgoing, Trouble) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let trouble = Trouble::default();
    let told = trouble.clone();
    tokio::task::spawn_blocking(move || {
        let mut rest = length;
        while rest > 0 {
            let mut chunk = Vec::with_capacity(CHUNK.min(usize::try_from(rest).unwrap_or(CHUNK)));
            let want = rest.min(CHUNK as u64);
            match (&mut reader).take(want).read_to_end(&mut chunk) {
                Ok(_) if chunk.len() as u64 == want => rest -= want,
                Ok(_) => {
                    told.set(format!("it ended {} bytes too early", rest - chunk.len() as u64));
                    return;
                }
                Err(error) => {
                    told.set(error.to_string());
                    return;
                }
            }
            // Whoever doesn't want it any more has a reason of its own.
            if sender.blocking_send(Ok(Bytes::from(chunk))).is_err() {
                return;
            }
        }
        if last && !matches!(reader.read(&mut [0]), Ok(0)) {
            told.set("it is longer than its size".into());
        }
    });
    (Outgoing::Stream { receiver, remaining: length, pulse: pulse.clone() }, trouble)
}

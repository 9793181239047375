//! A layer on its way: a thread a stage, a few buffers that go round. Memory is the same for any layer, and
//! each pass over the bytes (cipher, MAC, digests, inflating) runs beside the others.

mod inflate;
mod stages;

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use thiserror::Error;

use crate::observer::Meter;

pub(crate) use inflate::Inflate;
pub(crate) use stages::{Hash, Write};

/// Large enough that a hand-over costs nothing beside the hashing, small enough for the cache.
const BUFFER: usize = 256 * 1024;
/// One filled and one worked on for each stage, with some play.
const BUFFERS: usize = 10;

/// One pass over a layer's bytes, in order.
pub(crate) trait Pass: Send {
    /// The next bytes; what follows sees them as they are left.
    fn bytes(&mut self, bytes: &mut [u8]) -> Result<(), PassError>;

    /// There are no more.
    fn end(&mut self) -> Result<(), PassError> {
        Ok(())
    }
}

/// Why a layer didn't get through.
#[derive(Debug, Error)]
pub enum PassError {
    /// The source broke off.
    #[error("reading failed: {0}")]
    Read(#[source] io::Error),
    /// The destination broke off.
    #[error("writing failed: {0}")]
    Write(#[source] io::Error),
    /// Not as long as its descriptor says.
    #[error("it has {found} bytes, its descriptor says {expected}")]
    Size {
        /// By its descriptor.
        expected: u64,
        /// Read; more may have followed.
        found: u64,
    },
    /// Not the compression that its media type says.
    #[error("it can't be decompressed as its media type says: {0}")]
    Compression(#[source] io::Error),
    /// A bomb, or nothing that fits a disk.
    #[error("it unpacks to more than {0} bytes")]
    TooLong(u64),
    /// Another stage failed first.
    #[error("stopped")]
    Stopped,
}

/// A buffer with bytes in it.
struct Chunk {
    buffer: Vec<u8>,
    length: usize,
}

/// Reads `size` bytes through all stages. The first stage runs with the reading, the others on threads of
/// their own; within a stage the passes follow each other.
pub(crate) fn run(
    mut reader: impl Read + Send,
    size: u64,
    stages: &mut [&mut [&mut dyn Pass]],
    meter: &dyn Meter,
) -> Result<(), PassError> {
    let (pool_in, pool) = sync_channel::<Chunk>(BUFFERS);
    for _ in 0..BUFFERS {
        let _ = pool_in.send(Chunk { buffer: vec![0; BUFFER], length: 0 });
    }
    std::thread::scope(|scope| {
        let mut stages = stages.iter_mut();
        let first = stages.next();
        let (mut output, mut input) = sync_channel::<Chunk>(BUFFERS);
        let head = output;
        let mut threads = Vec::new();
        for passes in stages {
            let next;
            (output, next) = sync_channel::<Chunk>(BUFFERS);
            let from = std::mem::replace(&mut input, next);
            threads.push(scope.spawn(move || middle(&from, passes, &output)));
        }
        let recycle = scope.spawn(move || {
            // What comes out at the end goes back to the reader, as long as it wants any.
            while let Ok(chunk) = input.recv() {
                if chunk.length > 0 {
                    let _ = pool_in.send(chunk);
                }
            }
        });
        let passes = first.map_or(&mut [][..], |passes| &mut **passes);
        let mut outcome = read(&mut reader, size, passes, &pool, &head, meter);
        drop((head, pool));
        for thread in threads {
            let ended = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            // A stage that was stopped says nothing about why.
            if matches!(outcome, Ok(()) | Err(PassError::Stopped))
                && !matches!(ended, Err(PassError::Stopped))
            {
                outcome = match (outcome, ended) {
                    (Err(stopped), Ok(())) => Err(stopped),
                    (_, ended) => ended,
                };
            }
        }
        let _ = recycle.join();
        outcome
    })
}

fn read(
    reader: &mut impl Read,
    size: u64,
    passes: &mut [&mut dyn Pass],
    pool: &Receiver<Chunk>,
    output: &SyncSender<Chunk>,
    meter: &dyn Meter,
) -> Result<(), PassError> {
    let mut found = 0;
    loop {
        let mut chunk = pool.recv().map_err(|_| PassError::Stopped)?;
        chunk.length = fill(reader, &mut chunk.buffer).map_err(PassError::Read)?;
        if chunk.length == 0 {
            break;
        }
        found += chunk.length as u64;
        if found > size {
            return Err(PassError::Size { expected: size, found });
        }
        meter.bytes(chunk.length as u64);
        for pass in &mut *passes {
            pass.bytes(&mut chunk.buffer[..chunk.length])?;
        }
        output.send(chunk).map_err(|_| PassError::Stopped)?;
    }
    if found != size {
        return Err(PassError::Size { expected: size, found });
    }
    passes.iter_mut().try_for_each(|pass| pass.end())?;
    // An empty chunk: the end is the reader's, not a stage's that stopped.
    output.send(Chunk { buffer: Vec::new(), length: 0 }).map_err(|_| PassError::Stopped)
}

fn middle(
    input: &Receiver<Chunk>,
    passes: &mut [&mut dyn Pass],
    output: &SyncSender<Chunk>,
) -> Result<(), PassError> {
    loop {
        let mut chunk = input.recv().map_err(|_| PassError::Stopped)?;
        let last = chunk.length == 0;
        for pass in &mut *passes {
            if last { pass.end()? } else { pass.bytes(&mut chunk.buffer[..chunk.length])? }
        }
        // At the end nobody may be left who takes it.
        if output.send(chunk).is_err() && !last {
            return Err(PassError::Stopped);
        }
        if last {
            return Ok(());
        }
    }
}

/// As much as fits; less only at the end.
fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::Digest;
    use crate::observer::Silent;

    struct Fails(usize);
    impl Pass for Fails {
        fn bytes(&mut self, _: &mut [u8]) -> Result<(), PassError> {
            self.0 = self.0.checked_sub(1).ok_or(PassError::TooLong(7))?;
            Ok(())
        }
    }

    struct Flip;
    impl Pass for Flip {
        fn bytes(&mut self, bytes: &mut [u8]) -> Result<(), PassError> {
            bytes.iter_mut().for_each(|byte| *byte ^= 0xff);
            Ok(())
        }
    }

    #[test]
    fn in_order_at_any_size() {
        for size in [0, 1, BUFFER - 1, BUFFER, BUFFER + 1, BUFFER * (BUFFERS + 3) + 5] {
            let bytes: Vec<u8> = (0..size).map(|at| (at / 251) as u8).collect();
            let flipped: Vec<u8> = bytes.iter().map(|byte| byte ^ 0xff).collect();
            let (mut before, mut after, mut flip, mut out) = (Hash::new(), Hash::new(), Flip, Vec::new());
            let mut write = Write::new(&mut out);
            run(
                &bytes[..],
                size as u64,
                &mut [&mut [&mut before], &mut [&mut flip, &mut after], &mut [&mut write]],
                &Silent,
            )
            .unwrap();
            assert_eq!(before.digest(), Digest::of(&bytes));
            assert_eq!(after.digest(), Digest::of(&flipped));
            assert!(out == flipped, "{size}");
        }
    }

    #[test]
    fn sizes_that_lie() {
        let bytes = vec![1; BUFFER * 3];
        for lie in [0, 1, bytes.len() as u64 - 1, bytes.len() as u64 + 1, u64::MAX] {
            let mut hash = Hash::new();
            let error = run(&bytes[..], lie, &mut [&mut [], &mut [&mut hash]], &Silent).unwrap_err();
            assert!(matches!(error, PassError::Size { expected, .. } if expected == lie), "{error}");
        }
    }

    #[test]
    fn a_stage_that_fails_stops_the_others() {
        let bytes = vec![1; BUFFER * BUFFERS * 3];
        for at in [0, 1, BUFFERS + 5] {
            for stage in 0..3 {
                let mut fails = [Fails(usize::MAX), Fails(usize::MAX), Fails(usize::MAX)];
                fails[stage].0 = at;
                let [first, second, third] = &mut fails;
                let error = run(
                    &bytes[..],
                    bytes.len() as u64,
                    &mut [&mut [first], &mut [second], &mut [third]],
                    &Silent,
                )
                .unwrap_err();
                assert!(matches!(error, PassError::TooLong(7)), "stage {stage} at {at}: {error}");
            }
        }
    }
}

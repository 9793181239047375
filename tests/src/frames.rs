//! ttrpc by the byte: frames and requests that no generated client would send.
//!
//! A frame is ten bytes of header (length, stream, both big-endian u32; kind; flags) and the message; a request
//! is a protobuf message of service (1), method (2), payload (3) and time-out (4).

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// Bytes of a frame's header.
pub const HEADER: usize = 10;
/// The largest message that a peer takes.
pub const LARGEST: usize = 4_194_304;
/// Kind of a request's frame.
pub const REQUEST: u8 = 1;
/// Kind of a response's frame.
pub const RESPONSE: u8 = 2;

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Which exchange it belongs to: odd, rising.
    pub stream: u32,
    /// [`REQUEST`], [`RESPONSE`] or what a hostile peer writes.
    pub kind: u8,
    /// Flags of streaming calls.
    pub flags: u8,
    /// The message.
    pub message: Vec<u8>,
}

impl Frame {
    /// A request of `service` and `method` (names as in the protocol, `grpc.AgentService` and `CreateSandbox`).
    #[must_use]
    pub fn request(stream: u32, service: &str, method: &str, payload: &[u8]) -> Self {
        let mut message = Vec::new();
        field(&mut message, 1, service.as_bytes());
        field(&mut message, 2, method.as_bytes());
        field(&mut message, 3, payload);
        Self { stream, kind: REQUEST, flags: 0, message }
    }

    /// The frame's bytes, with the length that the header should have.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        self.bytes_that_claim(u32::try_from(self.message.len()).unwrap_or(u32::MAX))
    }

    /// The frame's bytes with a length of the caller's.
    #[must_use]
    pub fn bytes_that_claim(&self, length: u32) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER + self.message.len());
        bytes.extend(length.to_be_bytes());
        bytes.extend(self.stream.to_be_bytes());
        bytes.extend([self.kind, self.flags]);
        bytes.extend(&self.message);
        bytes
    }

    /// The status code of a response; 0 where there is none.
    #[must_use]
    pub fn status(&self) -> u64 {
        fields(&self.message)
            .into_iter()
            .find(|(number, _)| *number == 1)
            .and_then(|(_, status)| match status {
                Value::Bytes(status) => fields(&status).into_iter().find_map(|(number, value)| match value {
                    Value::Number(code) if number == 1 => Some(code),
                    _ => None,
                }),
                Value::Number(_) => None,
            })
            .unwrap_or(0)
    }
}

/// Appends a length-delimited field.
pub fn field(message: &mut Vec<u8>, number: u64, bytes: &[u8]) {
    varint(message, number << 3 | 2);
    varint(message, bytes.len() as u64);
    message.extend(bytes);
}

/// Appends a number field.
pub fn number(message: &mut Vec<u8>, number: u64, value: u64) {
    varint(message, number << 3);
    varint(message, value);
}

fn varint(message: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        message.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    message.push(value as u8);
}

enum Value {
    Number(u64),
    Bytes(Vec<u8>),
}

/// The fields of a message, up to what isn't one.
fn fields(mut message: &[u8]) -> Vec<(u64, Value)> {
    let mut found = Vec::new();
    while let Some(tag) = take_varint(&mut message) {
        let value = match tag & 7 {
            0 => take_varint(&mut message).map(Value::Number),
            2 => take_varint(&mut message).and_then(|length| {
                let length = usize::try_from(length).ok()?;
                let (bytes, rest) = message.split_at_checked(length)?;
                message = rest;
                Some(Value::Bytes(bytes.to_vec()))
            }),
            _ => None,
        };
        let Some(value) = value else { break };
        found.push((tag >> 3, value));
    }
    found
}

fn take_varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = message.split_first()?;
        *message = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// A connection of raw bytes.
#[derive(Debug)]
pub struct Raw(UnixStream);

impl Raw {
    /// Connects to `port` of the guest through its vsock socket.
    ///
    /// # Errors
    /// When nobody listens there.
    pub fn connect(vsock: &Path, port: u32, patience: Duration) -> Result<Self> {
        let mut stream = UnixStream::connect(vsock).context("the guest's vsock socket")?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        stream.write_all(format!("CONNECT {port}\n").as_bytes())?;
        let mut answer = Vec::new();
        let mut byte = [0];
        while byte != *b"\n" && answer.len() < 64 {
            stream.read_exact(&mut byte).context("the answer to CONNECT")?;
            answer.extend(byte);
        }
        ensure!(answer.starts_with(b"OK "), "CONNECT was answered {:?}", String::from_utf8_lossy(&answer));
        Ok(Self(stream))
    }

    /// Writes bytes; an agent that hung up is no error of ours.
    ///
    /// # Errors
    /// When the bytes can't be written for another reason, as when the agent doesn't read for too long.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<bool> {
        match self.0.write_all(bytes) {
            Ok(()) => Ok(true),
            Err(error) => match error.kind() {
                io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::WriteZero => {
                    Ok(false)
                }
                _ => Err(error),
            },
        }
    }

    /// The next frame; none once the agent has hung up.
    ///
    /// # Errors
    /// When nothing comes for too long.
    pub fn read(&mut self) -> io::Result<Option<Frame>> {
        let mut header = [0; HEADER];
        match self.0.read_exact(&mut header) {
            Ok(()) => {}
            Err(error)
                if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error),
        }
        let [a, b, c, d, e, f, g, h, kind, flags] = header;
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        let mut message = vec![0; length.min(LARGEST)];
        self.0.read_exact(&mut message)?;
        Ok(Some(Frame { stream: u32::from_be_bytes([e, f, g, h]), kind, flags, message }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_laid_out_as_peers_read_it() {
        let frame = Frame::request(3, "grpc.Health", "Check", &[]);
        let bytes = frame.bytes();
        assert_eq!(&bytes[..HEADER], [0, 0, 0, 22, 0, 0, 0, 3, 1, 0]);
        assert_eq!(&bytes[HEADER..], b"\x0a\x0bgrpc.Health\x12\x05Check\x1a\x00");
    }

    #[test]
    fn a_status_is_found_in_a_response() {
        let mut status = Vec::new();
        number(&mut status, 1, 12);
        field(&mut status, 2, b"unimplemented");
        let mut message = Vec::new();
        field(&mut message, 1, &status);
        let frame = Frame { stream: 1, kind: RESPONSE, flags: 0, message };
        assert_eq!(frame.status(), 12);
        assert_eq!(Frame { message: b"\x12\x03abc".to_vec(), ..frame }.status(), 0);
    }
}

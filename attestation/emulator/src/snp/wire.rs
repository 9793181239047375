//! What the guest's stand-in for the kernel driver and the emulated processor say to each other over vsock:
//! length-prefixed frames, one answer a call. Private to this crate; both ends are always of one build.

use std::io::{self, Read, Write};

/// The vsock port on the host that the guest's end connects to.
pub const PORT: u32 = 4051;

/// Bytes of a report request (MSG_REPORT_REQ).
pub const REPORT_REQUEST: usize = 96;
/// Bytes of a derived key request (MSG_KEY_REQ as the kernel passes it on).
pub const KEY_REQUEST: usize = 32;
/// Pages of certificates that a guest can ask for (the kernel's SEV_FW_BLOB_MAX_SIZE).
pub const CERTIFICATE_PAGES_MAX: u32 = 4;
const PAGE: usize = 4096;

const CALL_MAX: usize = 8 + REPORT_REQUEST;
const ANSWER_HEADER: usize = 16;
/// Bytes of a decrypted response message at most.
pub const MESSAGE_MAX: usize = 4000;
const ANSWER_MAX: usize = ANSWER_HEADER + MESSAGE_MAX + CERTIFICATE_PAGES_MAX as usize * PAGE;

/// A guest request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// SNP_GUEST_REQUEST with MSG_REPORT_REQ.
    Report([u8; REPORT_REQUEST]),
    /// SNP_EXTENDED_GUEST_REQUEST with MSG_REPORT_REQ and room for this many pages of certificates.
    ExtendedReport([u8; REPORT_REQUEST], u32),
    /// SNP_GUEST_REQUEST with MSG_KEY_REQ.
    DerivedKey([u8; KEY_REQUEST]),
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answer {
    /// SW_EXITINFO2: the host's error in the upper half, the firmware's in the lower; zero is success.
    pub exit_info: u64,
    /// Pages that the certificates need, when the room was too small.
    pub pages: u32,
    /// The response message.
    pub message: Vec<u8>,
    /// The certificates table.
    pub certificates: Vec<u8>,
}

impl Call {
    /// Writes one frame.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let (kind, pages, request): (u32, u32, &[u8]) = match self {
            Self::Report(request) => (1, 0, request),
            Self::ExtendedReport(request, pages) => (2, *pages, request),
            Self::DerivedKey(request) => (3, 0, request),
        };
        let mut frame = Vec::with_capacity(CALL_MAX);
        frame.extend_from_slice(&kind.to_le_bytes());
        frame.extend_from_slice(&pages.to_le_bytes());
        frame.extend_from_slice(request);
        write_frame(out, &frame)
    }

    /// Reads one frame; `None` at the end of the stream.
    pub fn read(input: &mut impl Read) -> io::Result<Option<Self>> {
        let Some(frame) = read_frame(input, CALL_MAX)? else { return Ok(None) };
        let (header, request) = frame.split_at_checked(8).ok_or_else(malformed)?;
        let (kind, pages) = (word(header), word(&header[4..]));
        let report = || request.try_into().map_err(|_| malformed());
        match (kind, pages) {
            (1, 0) => Ok(Some(Self::Report(report()?))),
            (2, ..=CERTIFICATE_PAGES_MAX) => Ok(Some(Self::ExtendedReport(report()?, pages))),
            (3, 0) => Ok(Some(Self::DerivedKey(request.try_into().map_err(|_| malformed())?))),
            _ => Err(malformed()),
        }
    }
}

impl Answer {
    /// Writes one frame.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let mut frame = Vec::with_capacity(ANSWER_HEADER + self.message.len() + self.certificates.len());
        frame.extend_from_slice(&self.exit_info.to_le_bytes());
        frame.extend_from_slice(&self.pages.to_le_bytes());
        frame.extend_from_slice(&(self.message.len() as u32).to_le_bytes());
        frame.extend_from_slice(&self.message);
        frame.extend_from_slice(&self.certificates);
        write_frame(out, &frame)
    }

    /// Reads one frame; the end of the stream is an error, for an answer was owed.
    pub fn read(input: &mut impl Read) -> io::Result<Self> {
        let frame = read_frame(input, ANSWER_MAX)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let (header, rest) = frame.split_at_checked(ANSWER_HEADER).ok_or_else(malformed)?;
        let (low, high) = (u64::from(word(header)), u64::from(word(&header[4..])));
        let length = word(&header[12..]) as usize;
        let (message, certificates) =
            rest.split_at_checked(length).filter(|_| length <= MESSAGE_MAX).ok_or_else(malformed)?;
        Ok(Self {
            exit_info: high << 32 | low,
            pages: word(&header[8..]),
            message: message.to_vec(),
            certificates: certificates.to_vec(),
        })
    }
}

fn write_frame(out: &mut impl Write, frame: &[u8]) -> io::Result<()> {
    let length = u32::try_from(frame.len()).map_err(|_| malformed())?;
    // One write, so that a frame is one packet.
    let mut bytes = length.to_le_bytes().to_vec();
    bytes.extend_from_slice(frame);
    out.write_all(&bytes)?;
    out.flush()
}

fn read_frame(input: &mut impl Read, limit: usize) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    let mut filled = 0;
    while filled < length.len() {
        match input.read(&mut length[filled..]) {
            Ok(0) if filled == 0 => return Ok(None),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let length = word(&length) as usize;
    if length > limit {
        return Err(malformed());
    }
    let mut frame = vec![0; length];
    input.read_exact(&mut frame)?;
    Ok(Some(frame))
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a frame between guest and emulated processor is malformed")
}

fn word(bytes: &[u8]) -> u32 {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn calls_and_answers_survive_the_wire() {
        let calls = [
            Call::Report([1; REPORT_REQUEST]),
            Call::ExtendedReport([2; REPORT_REQUEST], 3),
            Call::DerivedKey([3; KEY_REQUEST]),
        ];
        let mut stream = Vec::new();
        for call in &calls {
            call.write(&mut stream).unwrap();
        }
        let mut input = &stream[..];
        for call in calls {
            assert_eq!(Call::read(&mut input).unwrap(), Some(call));
        }
        assert_eq!(Call::read(&mut input).unwrap(), None);

        let answer = Answer {
            exit_info: 0x1_0000_0000,
            pages: 2,
            message: vec![7; MESSAGE_MAX],
            certificates: vec![8; 4 * PAGE],
        };
        let mut stream = Vec::new();
        answer.write(&mut stream).unwrap();
        assert_eq!(Answer::read(&mut &stream[..]).unwrap(), answer);
    }

    #[test]
    fn oversized_frames_are_refused_before_they_are_read() {
        let huge = u32::MAX.to_le_bytes();
        assert_eq!(Call::read(&mut &huge[..]).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(Answer::read(&mut &huge[..]).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_stream_that_ends_inside_a_frame_is_an_error() {
        let mut stream = Vec::new();
        Call::Report([1; REPORT_REQUEST]).write(&mut stream).unwrap();
        for length in 1..stream.len() {
            let kind = Call::read(&mut &stream[..length]).unwrap_err().kind();
            assert_eq!(kind, io::ErrorKind::UnexpectedEof);
        }
        assert!(Answer::read(&mut &[][..]).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let mut framed = (bytes.len() as u32).to_le_bytes().to_vec();
            framed.extend_from_slice(&bytes);
            let _ = Call::read(&mut &framed[..]);
            let _ = Answer::read(&mut &framed[..]);
        }
    }
}

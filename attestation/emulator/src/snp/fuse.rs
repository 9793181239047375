//! The part of the FUSE and CUSE wire protocol that a character device with ioctls needs
//! (`linux/fuse.h`, protocol 7.31; kernel documentation, "FUSE" and "CUSE").

/// Bytes for one message from the kernel: more than any that this device gets.
pub const MESSAGE_MAX: usize = 64 * 1024;

const IN_HEADER: usize = 40;
const OUT_HEADER: u32 = 16;
const MAJOR: u32 = 7;
const MINOR: u32 = 31;
const UNRESTRICTED_IOCTL: u32 = 1;

const OPEN: u32 = 14;
const RELEASE: u32 = 18;
const INTERRUPT: u32 = 36;
const IOCTL: u32 = 39;
const CUSE_INIT: u32 = 4096;

const IOCTL_COMPAT: u32 = 1;
const IOCTL_32BIT: u32 = 1 << 3;
const IOCTL_RETRY: u32 = 1 << 2;

/// A message from the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request<'a> {
    /// What an answer is matched by.
    pub unique: u64,
    /// What is asked.
    pub operation: Operation<'a>,
}

/// What the kernel asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation<'a> {
    /// Make the device.
    Initialise {
        /// Protocol version of the kernel.
        major: u32,
        /// Its minor part.
        minor: u32,
    },
    /// A process opens the device.
    Open,
    /// The last descriptor of an opening is closed.
    Release,
    /// The process that waits for an answer was interrupted.
    Interrupt,
    /// An ioctl.
    Ioctl(Ioctl<'a>),
    /// Anything else.
    Other(u32),
}

/// An ioctl as the kernel passes it on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ioctl<'a> {
    /// The command.
    pub command: u32,
    /// Its argument: an address in the caller's memory.
    pub argument: u64,
    /// The caller is a 32-bit process.
    pub compat: bool,
    /// What the kernel copied from the caller, as asked for by the last retry.
    pub input: &'a [u8],
    /// Bytes that the kernel will copy to the caller at most.
    pub output: usize,
}

/// A range of the caller's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// Its address.
    pub base: u64,
    /// Its bytes.
    pub length: u64,
}

/// What an ioctl comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Ask again with these ranges of the caller's memory.
    Retry {
        /// To copy from.
        input: Vec<Range>,
        /// To copy to.
        output: Vec<Range>,
    },
    /// The ioctl returns; `output` fills the ranges of the last retry, from the first on.
    Done {
        /// Zero or a negative errno.
        result: i32,
        /// Bytes for the caller.
        output: Vec<u8>,
    },
}

/// A message that is not what the protocol says.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a FUSE message from the kernel is malformed: {0}")]
pub struct Malformed(&'static str);

impl<'a> Request<'a> {
    /// Reads one message.
    pub fn parse(message: &'a [u8]) -> Result<Self, Malformed> {
        let (header, body) =
            message.split_at_checked(IN_HEADER).ok_or(Malformed("shorter than its header"))?;
        if word(header) as usize != message.len() {
            return Err(Malformed("another length than its header says"));
        }
        let operation = match word(&header[4..]) {
            CUSE_INIT => {
                let body = at_least(body, 16)?;
                Operation::Initialise { major: word(body), minor: word(&body[4..]) }
            }
            OPEN => Operation::Open,
            RELEASE => Operation::Release,
            INTERRUPT => Operation::Interrupt,
            IOCTL => Operation::Ioctl(Ioctl::parse(body)?),
            other => Operation::Other(other),
        };
        Ok(Self { unique: long(&header[8..]), operation })
    }
}

impl<'a> Ioctl<'a> {
    /// `struct fuse_ioctl_in`: handle u64, flags u32, command u32, argument u64, input u32, output u32.
    fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        let (fixed, input) = at_least(body, 32)?.split_at(32);
        let flags = word(&fixed[8..]);
        if word(&fixed[24..]) as usize != input.len() {
            return Err(Malformed("an ioctl's input has another length than it says"));
        }
        Ok(Self {
            command: word(&fixed[12..]),
            argument: long(&fixed[16..]),
            compat: flags & (IOCTL_COMPAT | IOCTL_32BIT) != 0,
            input,
            output: word(&fixed[28..]) as usize,
        })
    }
}

/// Answers [`Operation::Initialise`]: a device named `name` that may ask for any of its callers' memory.
pub fn initialised(unique: u64, name: &str) -> Vec<u8> {
    let mut body = Vec::new();
    // Version, unused, flags, largest read and write, device number (chosen by the kernel), spare.
    for value in [MAJOR, MINOR, 0, UNRESTRICTED_IOCTL, 4096, 4096, 0, 0] {
        body.extend_from_slice(&value.to_le_bytes());
    }
    body.extend_from_slice(&[0; 40]);
    body.extend_from_slice(format!("DEVNAME={name}\0").as_bytes());
    answer(unique, 0, &body)
}

/// Answers [`Operation::Open`]: handle u64, flags u32, padding u32.
pub fn opened(unique: u64) -> Vec<u8> {
    answer(unique, 0, &[0; 16])
}

/// Answers with an errno, or with nothing but success when it is zero.
pub fn plain(unique: u64, errno: i32) -> Vec<u8> {
    answer(unique, -errno, &[])
}

/// Answers [`Operation::Ioctl`]: result i32, flags u32, number of input and output ranges u32, then the
/// ranges or the output.
pub fn ioctl(unique: u64, outcome: &Outcome) -> Vec<u8> {
    let mut body = Vec::new();
    match outcome {
        Outcome::Retry { input, output } => {
            for value in [0, IOCTL_RETRY, input.len() as u32, output.len() as u32] {
                body.extend_from_slice(&value.to_le_bytes());
            }
            for range in input.iter().chain(output) {
                body.extend_from_slice(&range.base.to_le_bytes());
                body.extend_from_slice(&range.length.to_le_bytes());
            }
        }
        Outcome::Done { result, output } => {
            body.extend_from_slice(&result.to_le_bytes());
            body.extend_from_slice(&[0; 12]);
            body.extend_from_slice(output);
        }
    }
    answer(unique, 0, &body)
}

/// `struct fuse_out_header`: length u32, negative errno i32, unique u64.
fn answer(unique: u64, error: i32, body: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(OUT_HEADER as usize + body.len());
    message.extend_from_slice(&(OUT_HEADER + body.len() as u32).to_le_bytes());
    message.extend_from_slice(&error.to_le_bytes());
    message.extend_from_slice(&unique.to_le_bytes());
    message.extend_from_slice(body);
    message
}

fn at_least(bytes: &[u8], length: usize) -> Result<&[u8], Malformed> {
    if bytes.len() < length { Err(Malformed("shorter than its operation")) } else { Ok(bytes) }
}

fn word(bytes: &[u8]) -> u32 {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

fn long(bytes: &[u8]) -> u64 {
    u64::from(word(bytes)) | u64::from(word(&bytes[4..])) << 32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A message as the kernel builds it.
    fn message(opcode: u32, body: &[u8]) -> Vec<u8> {
        let mut message = ((IN_HEADER + body.len()) as u32).to_le_bytes().to_vec();
        message.extend_from_slice(&opcode.to_le_bytes());
        message.extend_from_slice(&77_u64.to_le_bytes());
        message.extend_from_slice(&[0; 24]);
        message.extend_from_slice(body);
        message
    }

    fn ioctl_body(flags: u32, input: &[u8], output: u32) -> Vec<u8> {
        let mut body = 5_u64.to_le_bytes().to_vec();
        body.extend_from_slice(&flags.to_le_bytes());
        body.extend_from_slice(&0xc020_5300_u32.to_le_bytes());
        body.extend_from_slice(&0x7fff_1234_5678_u64.to_le_bytes());
        body.extend_from_slice(&(input.len() as u32).to_le_bytes());
        body.extend_from_slice(&output.to_le_bytes());
        body.extend_from_slice(input);
        body
    }

    #[test]
    fn initialisation_names_the_device() {
        let request = message(CUSE_INIT, &[7, 0, 0, 0, 38, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
        let request = Request::parse(&request).unwrap();
        assert_eq!(request, Request { unique: 77, operation: Operation::Initialise { major: 7, minor: 38 } });
        let reply = initialised(77, "sev-guest");
        assert_eq!(reply.len(), 16 + 72 + "DEVNAME=sev-guest\0".len());
        assert_eq!(word(&reply) as usize, reply.len());
        assert_eq!(long(&reply[8..]), 77);
        assert_eq!(word(&reply[16 + 12..]), 1, "unrestricted ioctls");
        assert!(reply.ends_with(b"DEVNAME=sev-guest\0"));
    }

    #[test]
    fn an_ioctl_is_read_with_its_input() {
        let bytes = message(IOCTL, &ioctl_body(2, &[1, 2, 3], 4000));
        let Operation::Ioctl(ioctl) = Request::parse(&bytes).unwrap().operation else {
            panic!("not an ioctl")
        };
        assert_eq!(ioctl.command, 0xc020_5300);
        assert_eq!(ioctl.argument, 0x7fff_1234_5678);
        assert_eq!((ioctl.input, ioctl.output, ioctl.compat), (&[1, 2, 3][..], 4000, false));
        let bytes = message(IOCTL, &ioctl_body(1, &[], 0));
        assert!(matches!(
            Request::parse(&bytes).unwrap().operation,
            Operation::Ioctl(Ioctl { compat: true, .. })
        ));
    }

    #[test]
    fn a_retry_lists_input_ranges_then_output_ranges() {
        let range = |base, length| Range { base, length };
        let outcome = Outcome::Retry {
            input: vec![range(0x1000, 32)],
            output: vec![range(0x1000, 32), range(0x2000, 4000)],
        };
        let reply = ioctl(9, &outcome);
        assert_eq!(reply.len(), 16 + 16 + 3 * 16);
        assert_eq!(
            (word(&reply[16..]), word(&reply[20..]), word(&reply[24..]), word(&reply[28..])),
            (0, 4, 1, 2)
        );
        let ranges: Vec<_> = reply[32..].chunks_exact(16).map(|raw| (long(raw), long(&raw[8..]))).collect();
        assert_eq!(ranges, [(0x1000, 32), (0x1000, 32), (0x2000, 4000)]);
    }

    #[test]
    fn a_result_carries_errno_and_output() {
        let reply = ioctl(9, &Outcome::Done { result: -5, output: vec![1, 2] });
        assert_eq!(word(&reply[4..]), 0, "the message itself succeeded");
        assert_eq!(word(&reply[16..]) as i32, -5);
        assert_eq!(reply[20..], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(word(&plain(1, 38)[4..]) as i32, -38);
    }

    #[test]
    fn messages_with_wrong_lengths_are_refused() {
        let mut long = message(OPEN, &[0; 8]);
        long.push(0);
        assert!(Request::parse(&long).is_err());
        assert!(Request::parse(&long[..39]).is_err());
        assert!(Request::parse(&message(CUSE_INIT, &[0; 15])).is_err());
        assert!(Request::parse(&message(IOCTL, &ioctl_body(0, &[], 0)[..31])).is_err());
        let mut body = ioctl_body(0, &[1, 2, 3], 0);
        body.pop();
        assert!(Request::parse(&message(IOCTL, &body)).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn arbitrary_messages_never_panic(opcode in prop_oneof![Just(OPEN), Just(IOCTL), Just(CUSE_INIT), any::<u32>()], body in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = Request::parse(&message(opcode, &body));
            let _ = Request::parse(&body);
        }
    }
}

//! The kernel's `sev-guest` driver as its callers see it (kernel documentation, "The Definitive SEV Guest
//! API"; Linux 6.1 `drivers/virt/coco/sev-guest`): which bytes it reads and writes, in which case it fails
//! how. Only what is behind it is emulated.

use crate::snp::fuse::{Ioctl, Outcome, Range};
use crate::snp::wire::{Answer, CERTIFICATE_PAGES_MAX, Call, KEY_REQUEST, REPORT_REQUEST};
use nix::errno::Errno;
use std::io;
use std::time::Duration;

/// `SNP_GET_REPORT`.
pub const GET_REPORT: u32 = 0xc020_5300;
/// `SNP_GET_DERIVED_KEY`.
pub const GET_DERIVED_KEY: u32 = 0xc020_5301;
/// `SNP_GET_EXT_REPORT`.
pub const GET_EXTENDED_REPORT: u32 = 0xc020_5302;

/// `struct snp_guest_request_ioctl`.
const ARGUMENT: usize = 32;
/// `struct snp_ext_report_req`: the report request, certificates' address u64 and length u32, padding.
const EXTENDED_REQUEST: usize = REPORT_REQUEST + 16;
const CERTIFICATES_LENGTH_AT: usize = REPORT_REQUEST + 8;
/// `struct snp_report_resp`.
const REPORT_RESPONSE: usize = 4000;
/// `struct snp_derived_key_resp`.
const KEY_RESPONSE: usize = 64;
const PAGE: u32 = 4096;

/// What `exitinfo2` holds until the firmware was called.
const EXIT_INFO_UNSET: u64 = 0xff;
/// The call never reached the firmware.
const NO_FIRMWARE_CALL: u64 = 0xffff_ffff;
const INVALID_LENGTH: u64 = 1 << 32;
const BUSY: u64 = 2 << 32;
const RETRY_DELAY: Duration = Duration::from_secs(2);
const RETRY_LIMIT: Duration = Duration::from_secs(60);

/// What the driver stands on: the way to the secure processor, and time.
pub trait Platform {
    /// Makes one guest request.
    fn call(&mut self, call: &Call) -> io::Result<Answer>;
    /// Waits before a request is made again.
    fn wait(&mut self, delay: Duration);
}

/// The driver's state.
#[derive(Debug)]
pub struct Driver<P> {
    platform: P,
    /// After a failure the kernel wipes its message key, for its next use could repeat an IV.
    disabled: bool,
}

/// A request that failed: the errno and `exitinfo2`.
struct Failure(Errno, u64);

impl<P: Platform> Driver<P> {
    /// A driver on `platform`.
    pub fn new(platform: P) -> Self {
        Self { platform, disabled: false }
    }

    /// Serves one round of an ioctl: the caller's argument is fetched first, then the request that it points
    /// to, then room for certificates.
    pub fn ioctl(&mut self, ioctl: &Ioctl<'_>) -> Outcome {
        if ioctl.compat {
            return failed(Errno::ENOTTY);
        }
        let Some((argument, request)) = ioctl.input.split_at_checked(ARGUMENT) else {
            let argument = Range { base: ioctl.argument, length: ARGUMENT as u64 };
            return Outcome::Retry { input: vec![argument], output: vec![argument] };
        };
        if argument[0] == 0 {
            return failed(Errno::EINVAL);
        }
        if self.disabled {
            return failed(Errno::ENOTTY);
        }
        let (request_length, response_length) = match ioctl.command {
            GET_REPORT => (REPORT_REQUEST, REPORT_RESPONSE),
            GET_DERIVED_KEY => (KEY_REQUEST, KEY_RESPONSE),
            GET_EXTENDED_REPORT => (EXTENDED_REQUEST, REPORT_RESPONSE),
            _ => return with_exit_info(Errno::ENOTTY, argument, EXIT_INFO_UNSET),
        };
        let (request_at, response_at) = (long(&argument[8..]), long(&argument[16..]));
        if request_at == 0 || response_at == 0 {
            return with_exit_info(Errno::EINVAL, argument, EXIT_INFO_UNSET);
        }
        let mut ranges = Ranges {
            argument: Range { base: ioctl.argument, length: ARGUMENT as u64 },
            request: Range { base: request_at, length: request_length as u64 },
            response: Range { base: response_at, length: response_length as u64 },
            certificates: None,
        };
        if request.len() != request_length {
            return ranges.retry();
        }
        if ioctl.command == GET_EXTENDED_REPORT {
            let (address, length) =
                (long(&request[REPORT_REQUEST..]), word(&request[CERTIFICATES_LENGTH_AT..]));
            if address != 0 && length != 0 {
                if length > CERTIFICATE_PAGES_MAX * PAGE || !length.is_multiple_of(PAGE) {
                    return with_exit_info(Errno::EINVAL, argument, EXIT_INFO_UNSET);
                }
                ranges.certificates = Some(Range { base: address, length: u64::from(length) });
            }
        }
        if ioctl.output as u64 != ranges.output_length() {
            return ranges.retry();
        }
        self.perform(ioctl.command, argument, request, &ranges)
    }

    fn perform(&mut self, command: u32, argument: &[u8], request: &[u8], ranges: &Ranges) -> Outcome {
        let room = ranges.certificates.map_or(0, |range| range.length as u32 / PAGE);
        let Some(call) = call(command, request, room) else {
            return with_exit_info(Errno::EINVAL, argument, EXIT_INFO_UNSET);
        };
        match self.request(&call) {
            Ok(answer) => {
                // On success the kernel writes the response only; the ranges before it get their own bytes back.
                let mut output = [argument, request].concat();
                append(&mut output, &answer.message, ranges.response.length);
                if let Some(certificates) = ranges.certificates {
                    append(&mut output, &answer.certificates, certificates.length);
                }
                Outcome::Done { result: 0, output }
            }
            Err(Refused::Room(pages)) => {
                let mut output = set_exit_info(argument, INVALID_LENGTH);
                output.extend_from_slice(request);
                let at = ARGUMENT + CERTIFICATES_LENGTH_AT;
                output[at..at + 4].copy_from_slice(&(pages * PAGE).to_le_bytes());
                Outcome::Done { result: -(Errno::EIO as i32), output }
            }
            Err(Refused::Failed(Failure(errno, exit_info))) => {
                self.disabled = true;
                with_exit_info(errno, argument, exit_info)
            }
        }
    }

    fn request(&mut self, call: &Call) -> Result<Answer, Refused> {
        let answer = self.until_not_busy(call).map_err(Refused::Failed)?;
        match (answer.exit_info, call) {
            (0, _) => Ok(answer),
            (INVALID_LENGTH, Call::ExtendedReport(request, _)) => {
                // The kernel makes the same request without certificates, to keep the message sequence going.
                let pages = answer.pages;
                let again = self.until_not_busy(&Call::Report(*request)).map_err(Refused::Failed)?;
                match again.exit_info {
                    0 => Err(Refused::Room(pages)),
                    other => Err(Refused::Failed(Failure(Errno::EIO, other))),
                }
            }
            (other, _) => Err(Refused::Failed(Failure(Errno::EIO, other))),
        }
    }

    fn until_not_busy(&mut self, call: &Call) -> Result<Answer, Failure> {
        let mut waited = Duration::ZERO;
        loop {
            let answer = self.platform.call(call).map_err(|_| Failure(Errno::EIO, NO_FIRMWARE_CALL))?;
            if answer.exit_info != BUSY {
                return Ok(answer);
            }
            if waited > RETRY_LIMIT {
                return Err(Failure(Errno::ETIMEDOUT, BUSY));
            }
            self.platform.wait(RETRY_DELAY);
            waited += RETRY_DELAY;
        }
    }
}

enum Refused {
    /// The certificates need this many pages.
    Room(u32),
    Failed(Failure),
}

/// The caller's memory that an ioctl touches.
struct Ranges {
    argument: Range,
    request: Range,
    response: Range,
    certificates: Option<Range>,
}

impl Ranges {
    fn output(&self) -> Vec<Range> {
        // The order matters: an answer fills the ranges from the first on, and failures write only the first
        // or the first two.
        let mut output = vec![self.argument, self.request, self.response];
        output.extend(self.certificates);
        output
    }

    fn output_length(&self) -> u64 {
        self.output().iter().map(|range| range.length).sum()
    }

    fn retry(&self) -> Outcome {
        Outcome::Retry { input: vec![self.argument, self.request], output: self.output() }
    }
}

fn call(command: u32, request: &[u8], room: u32) -> Option<Call> {
    Some(match command {
        GET_REPORT => Call::Report(request.try_into().ok()?),
        GET_DERIVED_KEY => Call::DerivedKey(request.try_into().ok()?),
        _ => Call::ExtendedReport(request.get(..REPORT_REQUEST)?.try_into().ok()?, room),
    })
}

/// The message or table, cut or padded with zeros to the caller's buffer.
fn append(output: &mut Vec<u8>, bytes: &[u8], length: u64) {
    let end = output.len() + length as usize;
    output.extend_from_slice(bytes);
    output.resize(end, 0);
}

fn failed(errno: Errno) -> Outcome {
    Outcome::Done { result: -(errno as i32), output: Vec::new() }
}

fn with_exit_info(errno: Errno, argument: &[u8], exit_info: u64) -> Outcome {
    Outcome::Done { result: -(errno as i32), output: set_exit_info(argument, exit_info) }
}

fn set_exit_info(argument: &[u8], exit_info: u64) -> Vec<u8> {
    let mut argument = argument.to_vec();
    argument[24..32].copy_from_slice(&exit_info.to_le_bytes());
    argument
}

fn word(bytes: &[u8]) -> u32 {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

fn long(bytes: &[u8]) -> u64 {
    u64::from(word(bytes)) | u64::from(word(&bytes[4..])) << 32
}

#[cfg(test)]
mod tests;

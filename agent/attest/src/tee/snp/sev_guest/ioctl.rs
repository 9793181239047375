//! The ioctl itself: Linux' `include/uapi/linux/sev-guest.h`, `SNP_GET_EXT_REPORT`.
#![expect(unsafe_code, reason = "an ioctl passes pointers to the kernel")]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use super::{Answer, Exchange};

/// Size of a response, with its report at [`REPORT_OFFSET`].
pub(super) const RESPONSE_LENGTH: usize = 4000;
/// After status, size and 24 reserved bytes.
pub(super) const REPORT_OFFSET: usize = 32;

/// `_IOWR('S', 0x2, struct snp_guest_request_ioctl)`.
const SNP_GET_EXT_REPORT: libc::c_ulong = 0xC020_5302;

/// `struct snp_guest_request_ioctl`.
#[repr(C)]
struct Argument {
    msg_version: u8,
    padding: [u8; 7],
    request: u64,
    response: u64,
    exitinfo2: u64,
}

/// `struct snp_ext_report_req`, which starts with `struct snp_report_req`.
#[repr(C)]
struct Request {
    data: [u8; 64],
    vmpl: u32,
    reserved: [u8; 28],
    certificates: u64,
    certificates_length: u32,
    padding: u32,
}

/// `struct snp_report_resp`.
#[repr(C, align(8))]
struct Response([u8; RESPONSE_LENGTH]);

const _: () = assert!(size_of::<Argument>() == 32);
const _: () = assert!(size_of::<Request>() == 112);
const _: () = assert!(size_of::<Response>() == RESPONSE_LENGTH);

/// `/dev/sev-guest`, open.
pub(super) struct Device(File);

impl Device {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(OpenOptions::new().read(true).write(true).open(path)?))
    }
}

impl Exchange for Device {
    fn extended_report(&self, data: &[u8; 64], vmpl: u32, certificates: u32) -> io::Result<Answer> {
        let mut table = vec![0u8; certificates as usize];
        let mut response = Box::new(Response([0; RESPONSE_LENGTH]));
        let mut request = Request {
            data: *data,
            vmpl,
            reserved: [0; 28],
            certificates: table.as_mut_ptr() as u64,
            certificates_length: certificates,
            padding: 0,
        };
        let mut argument = Argument {
            msg_version: 1,
            padding: [0; 7],
            request: (&raw mut request) as u64,
            response: (&raw mut *response) as u64,
            exitinfo2: 0,
        };
        // SAFETY: the argument and the three buffers it points to (request, response, table) have the
        // sizes of the kernel's structures, live across the call, and are borrowed by nothing else. The
        // kernel writes at most `certificates_length` bytes into the table.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), SNP_GET_EXT_REPORT, &raw mut argument) };
        let error = io::Error::last_os_error();
        let answer = Answer {
            firmware_error: argument.exitinfo2 as u32,
            vmm_error: (argument.exitinfo2 >> 32) as u32,
            certificates_length: request.certificates_length,
            certificates: table,
            response: Box::new(response.0),
        };
        // The kernel fails the call and fills exitinfo2 when firmware or VMM refused: that says more.
        if result < 0 && argument.exitinfo2 == 0 { Err(error) } else { Ok(answer) }
    }
}

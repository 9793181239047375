//! Asks `/dev/sev-guest` for a report and for an extended report, as the agent does, and prints them.
//!
//! Static and able to be PID 1's child in the test initrd: put it in as `/sealpod-agent` to try the device
//! by hand. As PID 1 it powers the machine off at the end.

#![expect(unsafe_code, reason = "an ioctl passes addresses to the kernel")]

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use std::fs::OpenOptions;
use std::os::fd::AsRawFd;

#[repr(C)]
struct Argument {
    version: u8,
    request: u64,
    response: u64,
    exit_info: u64,
}

#[repr(C)]
struct Request {
    data: [u8; 64],
    vmpl: u32,
    reserved: [u8; 28],
    certificates: u64,
    certificates_length: u32,
}

nix::ioctl_readwrite!(
    /// `SNP_GET_REPORT`
    get_report, b'S', 0, Argument
);
nix::ioctl_readwrite!(
    /// `SNP_GET_EXT_REPORT`
    get_extended_report, b'S', 2, Argument
);

fn main() {
    let pid_1 = std::process::id() == 1;
    if pid_1 {
        let mounted = mount(Some("devtmpfs"), "/dev", Some("devtmpfs"), MsFlags::empty(), None::<&str>);
        println!("mounting /dev: {mounted:?}");
    }
    if let Err(error) = run() {
        println!("print-report: {error}");
    }
    if pid_1 {
        // The serial port sends what it has while this sleeps.
        std::thread::sleep(std::time::Duration::from_secs(1));
        let _ = reboot(RebootMode::RB_POWER_OFF);
    }
}

fn run() -> std::io::Result<()> {
    let device = OpenOptions::new().read(true).write(true).open("/dev/sev-guest")?;
    println!("request sizes: {} and {}", size_of::<Argument>(), size_of::<Request>());
    let mut response = vec![0_u8; 4000];
    let ask = |extended: bool, version: u8, vmpl: u32, certificates: &mut Vec<u8>, response: &mut Vec<u8>| {
        let mut request = Request {
            data: [0x5a; 64],
            vmpl,
            reserved: [0; 28],
            certificates: if certificates.is_empty() { 0 } else { certificates.as_mut_ptr() as u64 },
            certificates_length: certificates.len() as u32,
        };
        let mut argument = Argument {
            version,
            request: (&raw mut request) as u64,
            response: response.as_mut_ptr() as u64,
            exit_info: 0x7777,
        };
        // SAFETY: the argument points to a request of the size that the command reads, to 4000 bytes for the
        // response, and to as many bytes for certificates as it says; all outlive the call.
        let result = unsafe {
            if extended {
                get_extended_report(device.as_raw_fd(), &raw mut argument)
            } else {
                get_report(device.as_raw_fd(), &raw mut argument)
            }
        };
        (result, argument.exit_info, request.certificates_length)
    };
    let status =
        |response: &[u8]| (hex::encode(&response[..8]), hex::encode(&response[0x20 + 0x90..0x20 + 0xc0]));

    let mut none = Vec::new();
    println!("report: {:?}", ask(false, 1, 0, &mut none, &mut response));
    println!("  status, size, launch digest: {:?}", status(&response));
    println!("  report: {}", hex::encode(&response[32..32 + 1184]));
    println!("message version 0: {:?}", ask(false, 0, 0, &mut none, &mut response));
    println!("level 4: {:?}", ask(false, 1, 4, &mut none, &mut response));
    println!("  status: {:?}", status(&response).0);
    println!("extended, no room: {:?}", ask(true, 1, 0, &mut none, &mut response));
    println!("extended, one page: {:?}", ask(true, 1, 0, &mut vec![0; 4096], &mut response));
    println!("extended, 100 bytes: {:?}", ask(true, 1, 0, &mut vec![0; 100], &mut response));
    let mut certificates = vec![0; 8192];
    println!("extended, two pages: {:?}", ask(true, 1, 0, &mut certificates, &mut response));
    println!("  status, size, launch digest: {:?}", status(&response));
    println!("  certificates: {}", hex::encode(&certificates[..96]));
    // SAFETY: an unmapped address makes the kernel return EFAULT.
    let unmapped = unsafe { get_report(device.as_raw_fd(), std::ptr::null_mut()) };
    println!("no argument: {:?}", unmapped == Err(Errno::EFAULT));
    Ok(())
}

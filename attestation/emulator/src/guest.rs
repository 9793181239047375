//! The guest's side: PID 1 of the test initrd, which makes what the emulated TEE shows to a guest and becomes
//! the agent. That is `/dev/sev-guest`, behind which a CUSE daemon forwards to the host, or the files of
//! `efi_secret`, where QEMU brought an injected secret along.

use crate::sev::secrets;
use crate::snp::driver::{Driver, Platform};
use crate::snp::fuse::{self, MESSAGE_MAX, Operation, Request};
use crate::snp::wire::{Answer, Call, PORT};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, VsockAddr, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// The argument that makes this program the daemon.
pub const DAEMON: &str = "serve-device";
/// What PID 1 becomes.
const AGENT: &str = "/sealpod-agent";
const DEVICE: &str = "sev-guest";
const DEVICE_PATH: &str = "/dev/sev-guest";
const HOST_CID: u32 = 2;
const SECURITY: &str = "/sys/kernel/security";
const TABLES: &str = "/sys/firmware/acpi/tables";
/// [`crate::sev::front::TABLE`]
const SECRET_TABLE: &str = "/sys/firmware/acpi/tables/SPSV";
/// What stands before the contents of an ACPI table.
const ACPI_HEADER: usize = 36;
/// Far above what a loaded machine without KVM needs.
const DEVICE_TIMEOUT: Duration = Duration::from_secs(60);
const ANSWER_TIMEOUT_SECONDS: i64 = 60;

/// Why the guest's side can't start.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// A step of starting failed.
    #[error("{step}: {source}")]
    Step {
        /// What was tried.
        step: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The kernel speaks another protocol.
    #[error("the kernel's CUSE protocol is {0}.{1}; this program needs 7.16 or later")]
    Protocol(u32, u32),
    /// The daemon ended, or runs without a device.
    #[error("{DEVICE_PATH} did not appear; does the kernel have CONFIG_CUSE=y (kernel-config/test.config)?")]
    NoDevice,
}

/// PID 1: makes the device, then becomes the agent with the arguments that the kernel gave. Returns only if
/// that fails.
pub fn become_agent(program: &OsStr, arguments: impl Iterator<Item = OsString>) -> GuestError {
    match start(program) {
        Ok(()) => step("starting /sealpod-agent")(Command::new(AGENT).args(arguments).exec()),
        Err(error) => error,
    }
}

fn start(program: &OsStr) -> Result<(), GuestError> {
    if show_secrets()? { Ok(()) } else { make_device(program) }
}

/// What the kernel does in an SEV guest that has a secret. The mounts stay: the agent leaves them be.
fn show_secrets() -> Result<bool, GuestError> {
    let mounted = |kind: &str, at: &'static str| {
        mount(
            Some(kind),
            at,
            Some(kind),
            MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
            None::<&str>,
        )
    };
    mounted("sysfs", "/sys").map_err(|errno| step("mounting /sys")(errno.into()))?;
    let table = match fs::read(SECRET_TABLE) {
        Ok(table) => Zeroizing::new(table),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            umount2("/sys", MntFlags::MNT_DETACH).map_err(|errno| step("unmounting /sys")(errno.into()))?;
            return Ok(false);
        }
        Err(error) => return Err(step("reading the injected secret")(error)),
    };
    let invalid =
        |error| step("reading the injected secret")(io::Error::new(io::ErrorKind::InvalidData, error));
    let entries = secrets::parse(table.get(ACPI_HEADER..).unwrap_or_default()).map_err(invalid)?;
    mounted("tmpfs", SECURITY).map_err(|errno| step("mounting /sys/kernel/security")(errno.into()))?;
    secrets::show(&entries, Path::new(SECURITY)).map_err(step("making the secret's files"))?;
    // On hardware there is no second place where it could be read.
    mounted("tmpfs", TABLES).map_err(|errno| step("hiding the injected secret")(errno.into()))?;
    Ok(true)
}

fn make_device(program: &OsStr) -> Result<(), GuestError> {
    mount(Some("devtmpfs"), "/dev", Some("devtmpfs"), MsFlags::MS_NOSUID, None::<&str>)
        .map_err(|errno| step("mounting /dev")(errno.into()))?;
    // Its own process group: what the agent does to its own must not reach the daemon.
    Command::new(program)
        .arg(DAEMON)
        .process_group(0)
        .spawn()
        .map_err(step("starting the device's daemon"))?;
    let started = Instant::now();
    while !Path::new(DEVICE_PATH).exists() {
        if started.elapsed() > DEVICE_TIMEOUT {
            return Err(GuestError::NoDevice);
        }
        thread::sleep(Duration::from_millis(1));
    }
    // The agent mounts /dev itself, as it does in production; the device is in every devtmpfs.
    umount2("/dev", MntFlags::MNT_DETACH).map_err(|errno| step("unmounting /dev")(errno.into()))
}

/// The daemon: serves `/dev/sev-guest` until the kernel goes away.
pub fn serve_device() -> Result<(), GuestError> {
    let mut channel =
        OpenOptions::new().read(true).write(true).open("/dev/cuse").map_err(step("opening /dev/cuse"))?;
    let mut driver = Driver::new(Host { connection: None });
    let mut buffer = vec![0; MESSAGE_MAX];
    loop {
        let length = match channel.read(&mut buffer) {
            Ok(length) => length,
            // The request was taken back before it was read, or a signal came.
            Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => continue,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(step("reading from /dev/cuse")(error)),
        };
        let Some(reply) = reply(&mut driver, &buffer[..length])? else { continue };
        match channel.write_all(&reply) {
            // The caller died before its answer.
            Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => {}
            result => result.map_err(step("writing to /dev/cuse"))?,
        }
    }
}

/// The answer to one message of the kernel; `None` if none is owed.
fn reply<P: Platform>(driver: &mut Driver<P>, message: &[u8]) -> Result<Option<Vec<u8>>, GuestError> {
    let request = Request::parse(message)
        .map_err(|error| step("reading from /dev/cuse")(io::Error::new(io::ErrorKind::InvalidData, error)))?;
    let unique = request.unique;
    Ok(Some(match request.operation {
        Operation::Initialise { major: 7, minor: 16.. } => fuse::initialised(unique, DEVICE),
        Operation::Initialise { major, minor } => return Err(GuestError::Protocol(major, minor)),
        Operation::Open => fuse::opened(unique),
        Operation::Release => fuse::plain(unique, 0),
        Operation::Ioctl(ioctl) => fuse::ioctl(unique, &driver.ioctl(&ioctl)),
        // The driver has neither read nor write; the kernel then says EINVAL.
        Operation::Other(READ | WRITE) => fuse::plain(unique, Errno::EINVAL as i32),
        Operation::Interrupt | Operation::Other(_) => fuse::plain(unique, Errno::ENOSYS as i32),
    }))
}

const READ: u32 = 15;
const WRITE: u32 = 16;

/// The emulated processor on the host, over vsock.
struct Host {
    connection: Option<File>,
}

impl Platform for Host {
    fn call(&mut self, call: &Call) -> io::Result<Answer> {
        if self.connection.is_none() {
            self.connection = Some(connect()?);
        }
        let result = match &mut self.connection {
            Some(stream) => call.write(stream).and_then(|()| Answer::read(stream)),
            None => Err(io::ErrorKind::NotConnected.into()),
        };
        if result.is_err() {
            self.connection = None;
        }
        result
    }

    fn wait(&mut self, delay: Duration) {
        thread::sleep(delay);
    }
}

fn connect() -> io::Result<File> {
    let socket = socket::socket(AddressFamily::Vsock, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let limit = TimeVal::seconds(ANSWER_TIMEOUT_SECONDS);
    socket::setsockopt(&socket, sockopt::ReceiveTimeout, &limit)?;
    socket::setsockopt(&socket, sockopt::SendTimeout, &limit)?;
    socket::connect(std::os::fd::AsRawFd::as_raw_fd(&socket), &VsockAddr::new(HOST_CID, PORT))?;
    Ok(File::from(socket))
}

fn step(step: &'static str) -> impl Fn(io::Error) -> GuestError {
    move |source| GuestError::Step { step, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Never;

    impl Platform for Never {
        fn call(&mut self, _call: &Call) -> io::Result<Answer> {
            panic!("no call is due")
        }

        fn wait(&mut self, _delay: Duration) {
            panic!("no wait is due")
        }
    }

    fn message(opcode: u32, body: &[u8]) -> Vec<u8> {
        let mut message = ((40 + body.len()) as u32).to_le_bytes().to_vec();
        message.extend_from_slice(&opcode.to_le_bytes());
        message.extend_from_slice(&[0; 32]);
        message.extend_from_slice(body);
        message
    }

    fn errno(opcode: u32) -> i32 {
        let reply = reply(&mut Driver::new(Never), &message(opcode, &[0; 48])).unwrap().unwrap();
        -i32::from_le_bytes(reply[4..8].try_into().unwrap())
    }

    #[test]
    fn operations_that_the_real_device_lacks_fail_as_there() {
        assert_eq!(errno(READ), Errno::EINVAL as i32);
        assert_eq!(errno(WRITE), Errno::EINVAL as i32);
        assert_eq!(errno(40), Errno::ENOSYS as i32, "poll: the kernel then takes its default");
        assert_eq!(errno(36), Errno::ENOSYS as i32, "interrupt: the kernel then sends no more of them");
        assert_eq!((errno(14), errno(18)), (0, 0), "open, release");
    }

    #[test]
    fn an_older_kernel_is_named() {
        let old = message(4096, &[7, 0, 0, 0, 11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let error = reply(&mut Driver::new(Never), &old).unwrap_err();
        assert!(matches!(error, GuestError::Protocol(7, 11)), "{error}");
    }
}

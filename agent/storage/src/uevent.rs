//! The kernel's messages about devices (netlink, NETLINK_KOBJECT_UEVENT): read with bounds, believed only
//! as a reason to look into sysfs again. A container that may send to the same group gains nothing.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvfrom, socket,
};

/// Multicast group of the kernel's own messages; udev's are in group 2.
const KERNEL: u32 = 1;
/// The kernel's buffer is 2 KiB (UEVENT_BUFFER_SIZE).
const MAX_MESSAGE: usize = 8192;
const MAX_FIELDS: usize = 64;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// A device came.
    Add,
    /// A device went.
    Remove,
    /// Anything else.
    Other,
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uevent {
    /// What happened.
    pub action: Action,
    /// The device's directory below sysfs' root, as `/devices/…`.
    pub path: String,
    /// `block`, `pci`, …
    pub subsystem: String,
    /// Its node's name below `/dev`, if it has one.
    pub name: String,
}

impl Uevent {
    /// Reads a message; `None` for what is none of the kernel's.
    pub fn parse(message: &[u8]) -> Option<Self> {
        if message.len() > MAX_MESSAGE {
            return None;
        }
        let mut fields = message.split(|b| *b == 0).filter(|field| !field.is_empty()).take(MAX_FIELDS);
        // `add@/devices/…`; udev's messages begin with `libudev`.
        let header = std::str::from_utf8(fields.next()?).ok()?;
        let (_, header_path) = header.split_once('@')?;
        let (mut action, mut path, mut subsystem, mut name) = (None, None, None, None);
        for field in fields {
            let Some((key, value)) = std::str::from_utf8(field).ok().and_then(|f| f.split_once('=')) else {
                continue;
            };
            let slot = match key {
                "ACTION" => &mut action,
                "DEVPATH" => &mut path,
                "SUBSYSTEM" => &mut subsystem,
                "DEVNAME" => &mut name,
                _ => continue,
            };
            if slot.replace(value).is_some() {
                return None;
            }
        }
        let path = path.filter(|path| *path == header_path)?;
        if !path.starts_with('/') || path.split('/').any(|name| name == "..") {
            return None;
        }
        Some(Self {
            action: match action? {
                "add" => Action::Add,
                "remove" => Action::Remove,
                _ => Action::Other,
            },
            path: path.to_owned(),
            subsystem: subsystem.unwrap_or_default().to_owned(),
            name: name.unwrap_or_default().to_owned(),
        })
    }
}

/// A socket that hears the kernel's messages.
pub(crate) struct Listener {
    socket: OwnedFd,
}

impl Listener {
    pub(crate) fn new() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket =
            socket(AddressFamily::Netlink, SockType::Datagram, flags, SockProtocol::NetlinkKObjectUEvent)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, KERNEL))?;
        Ok(Self { socket })
    }

    /// Waits for one message of a device that came; `false` when none came in that time. Lost messages
    /// count as one: whoever waits looks again.
    pub(crate) fn something_came(&self, patience: Duration) -> bool {
        let patience = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
        let mut sockets = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        if !matches!(poll(&mut sockets, patience), Ok(1..)) {
            return false;
        }
        let mut came = false;
        let mut buffer = [0; MAX_MESSAGE];
        loop {
            match recvfrom::<NetlinkAddr>(self.socket.as_raw_fd(), &mut buffer) {
                Ok((length, _)) => {
                    let event = Uevent::parse(buffer.get(..length).unwrap_or_default());
                    came |= event.is_some_and(|event| event.action == Action::Add);
                }
                Err(Errno::EINTR) => {}
                Err(Errno::ENOBUFS) => came = true,
                Err(_) => return came,
            }
        }
    }

    /// Throws away what has come so far.
    #[cfg(test)]
    pub(crate) fn drain(&self) {
        let mut buffer = [0; MAX_MESSAGE];
        while recvfrom::<NetlinkAddr>(self.socket.as_raw_fd(), &mut buffer).is_ok() {}
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(fields: &[&str]) -> Vec<u8> {
        fields.iter().flat_map(|field| field.bytes().chain([0])).collect()
    }

    const GOOD: [&str; 6] = [
        "add@/devices/pci0000:00/0000:00:02.0/virtio0/block/vda",
        "ACTION=add",
        "DEVPATH=/devices/pci0000:00/0000:00:02.0/virtio0/block/vda",
        "SUBSYSTEM=block",
        "DEVNAME=vda",
        "SEQNUM=1000",
    ];

    #[test]
    fn a_kernels_message_is_read() {
        let event = Uevent::parse(&message(&GOOD)).unwrap();
        assert_eq!(
            (event.action, event.subsystem.as_str(), event.name.as_str()),
            (Action::Add, "block", "vda")
        );
        assert!(event.path.ends_with("/block/vda"));
    }

    #[test]
    fn other_messages_are_not() {
        let without = |at: usize| {
            let mut fields = GOOD.to_vec();
            fields.remove(at);
            message(&fields)
        };
        for at in 0..3 {
            assert_eq!(Uevent::parse(&without(at)), None, "{at}");
        }
        let with = |at: usize, field: &'static str| {
            let mut fields = GOOD.to_vec();
            fields[at] = field;
            message(&fields)
        };
        assert_eq!(Uevent::parse(&with(0, "libudev")), None);
        assert_eq!(Uevent::parse(&with(2, "DEVPATH=/devices/else")), None);
        let twice = [&GOOD[..], &["DEVNAME=vdb"]].concat();
        assert_eq!(Uevent::parse(&message(&twice)), None);
        let up = ["add@/devices/../x", "ACTION=add", "DEVPATH=/devices/../x"];
        assert_eq!(Uevent::parse(&message(&up)), None);
        assert_eq!(Uevent::parse(&vec![b'a'; MAX_MESSAGE + 1]), None);
    }

    #[test]
    fn silence_is_no_event() {
        let Ok(listener) = Listener::new() else { return };
        listener.drain();
        assert!(!listener.something_came(Duration::ZERO));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Uevent::parse(&bytes);
        }

        #[test]
        fn any_fields_are_read_or_refused(
            fields in prop::collection::vec("(add@|ACTION=|DEVPATH=|DEVNAME=)?[a-z/.=@]{0,20}", 0..80),
        ) {
            let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
            if let Some(event) = Uevent::parse(&message(&fields)) {
                prop_assert!(event.path.starts_with('/'));
            }
        }
    }
}

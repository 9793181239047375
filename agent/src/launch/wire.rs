//! Messages with file descriptors between the agent and its helper: JSON in one packet each.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Largest message in bytes.
const MAX_MESSAGE: usize = 64 * 1024;
/// Most descriptors in a message: the answer's socket and three streams.
const MAX_FDS: usize = 4;

/// Two ends that keep messages apart.
pub(super) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// Sends one message.
pub(super) fn send<T: Serialize>(socket: impl AsFd, message: &T, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let bytes = serde_json::to_vec(message)?;
    if bytes.len() > MAX_MESSAGE {
        return Err(io::Error::other(format!("a message of {} bytes is too long", bytes.len())));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::other("too many descriptors for a message"));
    }
    loop {
        match sendmsg(&socket, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL) {
            Err(Errno::INTR) => {}
            sent => return sent.map(|_| ()).map_err(Into::into),
        }
    }
}

/// Receives one message; `None` is the other side's end.
pub(super) fn receive<T: DeserializeOwned>(socket: impl AsFd) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let (bytes, fds) = receive_bytes(socket)?;
    if bytes.is_empty() {
        return Ok(None);
    }
    Ok(Some((serde_json::from_slice(&bytes)?, fds)))
}

/// Receives one message as it came; empty at the other side's end.
pub(super) fn receive_bytes(socket: impl AsFd) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut bytes = vec![0; MAX_MESSAGE];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let mut parts = [IoSliceMut::new(&mut bytes)];
        match recvmsg(&socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            // The other side went away without reading what it was sent.
            Err(Errno::CONNRESET) => return Ok((Vec::new(), Vec::new())),
            received => break received?,
        }
    };
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(io::Error::other("a message was cut off"));
    }
    bytes.truncate(received.bytes);
    let fds = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
        _ => None,
    });
    Ok((bytes, fds.flatten().collect()))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn a_message_arrives_whole_with_its_descriptors() {
        let (near, far) = pair().unwrap();
        let (mut reader, writer) = io::pipe().unwrap();
        send(&near, &vec!["x".repeat(10_000)], &[writer.as_fd()]).unwrap();
        send(&near, &vec!["second"], &[]).unwrap();
        drop(writer);
        let (first, mut fds) = receive::<Vec<String>>(&far).unwrap().unwrap();
        assert_eq!(first, ["x".repeat(10_000)]);
        let mut writer = std::fs::File::from(fds.remove(0));
        writer.write_all(b"through").unwrap();
        drop(writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
        assert_eq!(receive::<Vec<String>>(&far).unwrap().unwrap().0, ["second"]);
        drop(near);
        assert!(receive::<Vec<String>>(&far).unwrap().is_none());
    }

    #[test]
    fn a_message_beyond_the_bound_is_not_sent() {
        let (near, _far) = pair().unwrap();
        assert!(send(&near, &"x".repeat(MAX_MESSAGE), &[]).is_err());
    }
}

//! One stream between a unix socket on the host and a port in the guest: credit in both directions (virtio 1.2,
//! section 5.10.6.3), buffered writes, half-close.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::num::Wrapping;
use std::os::unix::net::UnixStream;

use super::packet::{Op, Packet, SHUTDOWN_RECEIVE, SHUTDOWN_SEND};

/// What the guest may send before the host's side has taken it, in bytes.
pub(super) const BUFFER: u32 = 256 * 1024;
const LONGEST_COMMAND: usize = "CONNECT 4294967295\n".len();

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// A host program connected and still writes `CONNECT <port>\n`.
    Command(Vec<u8>),
    /// The guest was asked.
    Requested,
    Open,
}

/// What became of a connection after a step.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Lives,
    /// Over: forget it, and tell the guest if it knows of it.
    Over,
}

#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    state: State,
    /// Edge-triggered: set by an event, cleared by `WouldBlock`.
    pub(super) readable: bool,
    pub(super) writable: bool,
    /// Bytes from the guest that the host's side has not taken.
    outgoing: VecDeque<u8>,
    forwarded: Wrapping<u32>,
    announced: Wrapping<u32>,
    received: Wrapping<u32>,
    sent: Wrapping<u32>,
    peer_buffer: u32,
    peer_forwarded: Wrapping<u32>,
    guest_sends_no_more: bool,
    guest_receives_no_more: bool,
    host_sends_no_more: bool,
    write_closed: bool,
}

impl Connection {
    pub(super) fn from_host(stream: UnixStream) -> Connection {
        Connection::new(stream, State::Command(Vec::new()))
    }

    pub(super) fn from_guest(stream: UnixStream, request: &Packet) -> Connection {
        let mut connection = Connection::new(stream, State::Open);
        connection.credit(request);
        connection
    }

    fn new(stream: UnixStream, state: State) -> Connection {
        Connection {
            stream,
            state,
            readable: true,
            writable: true,
            outgoing: VecDeque::new(),
            forwarded: Wrapping(0),
            announced: Wrapping(0),
            received: Wrapping(0),
            sent: Wrapping(0),
            peer_buffer: 0,
            peer_forwarded: Wrapping(0),
            guest_sends_no_more: false,
            guest_receives_no_more: false,
            host_sends_no_more: false,
            write_closed: false,
        }
    }

    pub(super) fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Reads more of `CONNECT <port>\n`, byte by byte so that nothing behind it is taken: the port once complete.
    pub(super) fn command(&mut self) -> Result<Option<u32>, Fate> {
        let State::Command(line) = &mut self.state else { return Ok(None) };
        loop {
            let mut byte = [0];
            match self.stream.read(&mut byte) {
                Ok(1) if byte[0] == b'\n' => break,
                Ok(1) if line.len() < LONGEST_COMMAND => line.push(byte[0]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.readable = false;
                    return Ok(None);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                _ => return Err(Fate::Over),
            }
        }
        let port = std::str::from_utf8(line)
            .ok()
            .and_then(|line| line.strip_prefix("CONNECT "))
            .and_then(|port| port.parse().ok());
        self.state = State::Requested;
        port.map(Some).ok_or(Fate::Over)
    }

    /// The guest accepted what the host asked for.
    pub(super) fn accepted(&mut self, packet: &Packet) -> Fate {
        if self.state != State::Requested {
            return Fate::Over;
        }
        self.state = State::Open;
        self.credit(packet);
        // The answer is ours, so it is not counted as forwarded.
        let answer = format!("OK {}\n", packet.host_port);
        match self.stream.write_all(answer.as_bytes()) {
            Ok(()) => Fate::Lives,
            Err(_) => Fate::Over,
        }
    }

    /// Takes the guest's view of credit from any packet.
    pub(super) fn credit(&mut self, packet: &Packet) {
        self.peer_buffer = packet.buf_alloc;
        self.peer_forwarded = Wrapping(packet.fwd_cnt);
    }

    /// Bytes that the guest can take now.
    fn room(&self) -> usize {
        let in_flight = (self.sent - self.peer_forwarded).0;
        self.peer_buffer.saturating_sub(in_flight) as usize
    }

    /// Whether [`Connection::read`] may find something to send.
    pub(super) fn may_read(&self) -> bool {
        self.state == State::Open
            && self.readable
            && !self.host_sends_no_more
            && (self.guest_receives_no_more || self.room() > 0)
    }

    /// Reads into `buffer` as much as the guest has credit for; a packet to send, if any.
    pub(super) fn read(&mut self, key: (u32, u32), buffer: &mut [u8]) -> Option<Packet> {
        if !self.may_read() {
            return None;
        }
        if self.guest_receives_no_more {
            // Nobody will take it; look no further until the guest closes its other side.
            self.readable = false;
            return None;
        }
        let wanted = buffer.len().min(self.room());
        loop {
            match self.stream.read(&mut buffer[..wanted]) {
                Ok(0) => break,
                Ok(length) => {
                    let length = u32::try_from(length).unwrap_or(0);
                    self.sent += length;
                    let mut packet = self.packet(Op::Data, key);
                    packet.length = length;
                    return Some(packet);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.readable = false;
                    return None;
                }
                Err(_) => break,
            }
        }
        self.host_sends_no_more = true;
        let mut packet = self.packet(Op::Shutdown, key);
        // A closed peer takes nothing either; one that only closed its writing side still listens.
        packet.flags = if self.hung_up() { SHUTDOWN_SEND | SHUTDOWN_RECEIVE } else { SHUTDOWN_SEND };
        Some(packet)
    }

    /// Whether the host's program closed its socket rather than only its writing side.
    fn hung_up(&self) -> bool {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        use std::os::fd::AsFd as _;
        let mut polled = [PollFd::new(self.stream.as_fd(), PollFlags::empty())];
        poll(&mut polled, PollTimeout::ZERO).is_ok()
            && polled[0]
                .revents()
                .is_some_and(|events| events.intersects(PollFlags::POLLHUP | PollFlags::POLLERR))
    }

    /// Data from the guest.
    pub(super) fn data(&mut self, bytes: &[u8]) -> Fate {
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.received += length;
        let beyond_credit = (self.received - self.forwarded).0 > BUFFER;
        if self.state != State::Open || self.guest_sends_no_more || beyond_credit {
            return Fate::Over;
        }
        self.outgoing.extend(bytes);
        self.flush()
    }

    /// The guest's `SHUTDOWN`.
    pub(super) fn shutdown(&mut self, flags: u32) -> Fate {
        self.guest_sends_no_more |= flags & SHUTDOWN_SEND != 0;
        self.guest_receives_no_more |= flags & SHUTDOWN_RECEIVE != 0;
        self.flush()
    }

    /// Writes what the host's side takes now.
    pub(super) fn flush(&mut self) -> Fate {
        while self.writable && !self.outgoing.is_empty() {
            let (front, _) = self.outgoing.as_slices();
            match self.stream.write(front) {
                Ok(length) => {
                    self.outgoing.drain(..length);
                    self.forwarded += u32::try_from(length).unwrap_or(0);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.writable = false,
                Err(_) => return Fate::Over,
            }
        }
        if self.outgoing.is_empty() && self.guest_sends_no_more {
            if self.guest_receives_no_more {
                return Fate::Over;
            }
            if !self.write_closed {
                self.write_closed = true;
                if self.stream.shutdown(std::net::Shutdown::Write).is_err() {
                    return Fate::Over;
                }
            }
        }
        Fate::Lives
    }

    /// Whether the guest waits for news of its credit: a quarter of the buffer has been taken since the last.
    pub(super) fn owes_credit(&self) -> bool {
        self.state == State::Open && (self.forwarded - self.announced).0 >= BUFFER / 4
    }

    /// A packet with our side of the credit in it.
    pub(super) fn packet(&mut self, op: Op, (host_port, guest_port): (u32, u32)) -> Packet {
        self.announced = self.forwarded;
        let mut packet = Packet::control(op, host_port, guest_port);
        packet.buf_alloc = BUFFER;
        packet.fwd_cnt = self.forwarded.0;
        packet
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: (u32, u32) = (4050, 9);

    fn open() -> (Connection, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut request = Packet::control(Op::Request, KEY.0, KEY.1);
        request.buf_alloc = 10;
        (Connection::from_guest(ours, &request), theirs)
    }

    #[test]
    fn never_more_than_the_guest_has_room_for() {
        let (mut connection, mut host) = open();
        host.write_all(b"0123456789abc").unwrap();
        let mut buffer = [0; 64];
        assert_eq!(connection.read(KEY, &mut buffer).unwrap().length, 10);
        assert!(connection.read(KEY, &mut buffer).is_none());
        let mut update = Packet::control(Op::CreditUpdate, KEY.0, KEY.1);
        (update.buf_alloc, update.fwd_cnt) = (10, 8);
        connection.credit(&update);
        assert_eq!(connection.read(KEY, &mut buffer).unwrap().length, 3);
        assert_eq!(&buffer[..3], b"abc");
        // A guest that shrinks its buffer below what is in flight has no room; it doesn't get all the rest.
        update.buf_alloc = 1;
        connection.credit(&update);
        assert_eq!(connection.room(), 0);
    }

    #[test]
    fn a_guest_that_sends_beyond_its_credit_is_cut() {
        let (mut connection, _host) = open();
        connection.writable = false;
        assert_eq!(connection.data(&vec![0; BUFFER as usize]), Fate::Lives);
        assert_eq!(connection.data(&[0]), Fate::Over);
    }

    #[test]
    fn half_close_works_both_ways() {
        let (mut connection, mut host) = open();
        host.shutdown(std::net::Shutdown::Write).unwrap();
        let packet = connection.read(KEY, &mut [0; 8]).unwrap();
        assert_eq!((packet.op, packet.flags), (Op::Shutdown, SHUTDOWN_SEND));
        assert_eq!(connection.data(b"reply"), Fate::Lives);
        assert_eq!(connection.shutdown(SHUTDOWN_SEND), Fate::Lives);
        let mut text = String::new();
        host.read_to_string(&mut text).unwrap();
        assert_eq!(text, "reply");
        assert_eq!(connection.shutdown(SHUTDOWN_RECEIVE), Fate::Over);
    }

    #[test]
    fn a_closed_host_socket_closes_both_directions() {
        let (mut connection, host) = open();
        drop(host);
        let packet = connection.read(KEY, &mut [0; 8]).unwrap();
        assert_eq!((packet.op, packet.flags), (Op::Shutdown, SHUTDOWN_SEND | SHUTDOWN_RECEIVE));
    }

    #[test]
    fn the_command_is_read_to_its_newline_only() {
        let (ours, mut host) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut connection = Connection::from_host(ours);
        host.write_all(b"CONNECT 10").unwrap();
        assert_eq!(connection.command(), Ok(None));
        host.write_all(b"24\nhello").unwrap();
        assert_eq!(connection.command(), Ok(Some(1024)));
        let mut response = Packet::control(Op::Response, 70, 1024);
        response.buf_alloc = 100;
        assert_eq!(connection.accepted(&response), Fate::Lives);
        connection.readable = true;
        let mut buffer = [0; 64];
        assert_eq!(connection.read((70, 1024), &mut buffer).unwrap().length, 5);
        let mut answer = [0; 6];
        host.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"OK 70\n");
        assert_eq!(connection.accepted(&response), Fate::Over);
    }

    #[test]
    fn other_commands_end_the_connection() {
        for line in ["HELLO\n", "CONNECT x\n", "CONNECT 99999999999\n", "CONNECT 1 and very much more text\n"]
        {
            let (ours, mut host) = UnixStream::pair().unwrap();
            ours.set_nonblocking(true).unwrap();
            host.write_all(line.as_bytes()).unwrap();
            assert_eq!(Connection::from_host(ours).command(), Err(Fate::Over), "{line}");
        }
    }
}

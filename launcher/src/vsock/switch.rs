//! The switch between the guest's packets and unix sockets: host programs connect to `vm.sock` and write
//! `CONNECT <port>\n`; the guest's connections to port P of the host arrive at `vm.sock_P`.

use std::collections::{HashMap, VecDeque};
use std::ffi::OsString;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};

use super::connection::{Connection, Fate};
use super::packet::{Foreign, HEADER, Op, Packet};

/// Connections at a time, both directions together.
const CONNECTIONS: usize = 512;
/// Control packets that wait for the guest. A guest that makes us answer without taking answers loses them.
const WAITING: usize = 2048;
/// Host ports of connections that the host opens start here, above anything that servers use.
const FIRST_HOST_PORT: u32 = 1 << 30;
const LISTENER: u64 = u64::MAX;

pub(super) struct Switch {
    guest_cid: u64,
    path: PathBuf,
    listener: UnixListener,
    epoll: Epoll,
    /// Tokens are never used twice, so a late event can't hit a younger connection.
    next_token: u64,
    next_host_port: u32,
    connections: HashMap<u64, Connection>,
    /// (host port, guest port) of connections that the guest knows.
    ports: HashMap<(u32, u32), u64>,
    keys: HashMap<u64, (u32, u32)>,
    waiting: VecDeque<Packet>,
    /// Whose turn it is to be read, so that one busy stream does not starve the others.
    turns: VecDeque<u64>,
}

impl Switch {
    pub(super) fn bind(path: &Path, guest_cid: u64) -> std::io::Result<Switch> {
        let listener = UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
        Ok(Switch {
            guest_cid,
            path: path.to_owned(),
            listener,
            epoll,
            next_token: 0,
            next_host_port: FIRST_HOST_PORT,
            connections: HashMap::new(),
            ports: HashMap::new(),
            keys: HashMap::new(),
            waiting: VecDeque::new(),
            turns: VecDeque::new(),
        })
    }

    /// Becomes readable when [`Switch::poll`] has something to do.
    pub(super) fn events(&self) -> std::os::fd::RawFd {
        self.epoll.0.as_raw_fd()
    }

    pub(super) fn guest_cid(&self) -> u64 {
        self.guest_cid
    }

    /// Looks at all sockets without waiting. While the guest can't take connections, new ones are closed.
    pub(super) fn poll(&mut self, guest_is_up: bool) {
        let mut events = [EpollEvent::empty(); 64];
        loop {
            let count = match self.epoll.wait(&mut events, EpollTimeout::ZERO) {
                Ok(count) => count,
                Err(nix::errno::Errno::EINTR) => continue,
                Err(_) => return,
            };
            for event in &events[..count] {
                if event.data() == LISTENER {
                    self.accept(guest_is_up);
                } else {
                    self.ready(event.data(), event.events());
                }
            }
            if count < events.len() {
                return;
            }
        }
    }

    fn accept(&mut self, guest_is_up: bool) {
        while let Ok((stream, _)) = self.listener.accept() {
            if guest_is_up
                && self.connections.len() < CONNECTIONS
                && stream.set_nonblocking(true).is_ok()
                && let Some(token) = self.insert(Connection::from_host(stream))
            {
                self.step(token);
            }
        }
    }

    fn insert(&mut self, connection: Connection) -> Option<u64> {
        let token = self.next_token;
        self.next_token += 1;
        let edges = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
        self.epoll.add(connection.stream(), EpollEvent::new(edges, token)).ok()?;
        self.connections.insert(token, connection);
        self.turns.push_back(token);
        Some(token)
    }

    fn ready(&mut self, token: u64, events: EpollFlags) {
        let Some(connection) = self.connections.get_mut(&token) else { return };
        let gone = EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR | EpollFlags::EPOLLRDHUP;
        connection.readable |= events.intersects(EpollFlags::EPOLLIN | gone);
        connection.writable |= events.intersects(EpollFlags::EPOLLOUT | gone);
        self.step(token);
    }

    /// Moves one connection on: its command, its buffered output, its credit.
    fn step(&mut self, token: u64) {
        let Some(connection) = self.connections.get_mut(&token) else { return };
        match connection.command() {
            Ok(Some(port)) => return self.request(token, port),
            Ok(None) => {}
            Err(_) => return self.end(token),
        }
        if connection.flush() == Fate::Over {
            return self.end(token);
        }
        self.announce(token);
    }

    fn announce(&mut self, token: u64) {
        let (Some(connection), Some(key)) = (self.connections.get_mut(&token), self.keys.get(&token)) else {
            return;
        };
        if connection.owes_credit() {
            let packet = connection.packet(Op::CreditUpdate, *key);
            self.queue(packet);
        }
    }

    /// Asks the guest for a connection to `port`.
    fn request(&mut self, token: u64, port: u32) {
        while self.ports.contains_key(&(self.next_host_port, port)) {
            self.next_host_port = self.next_host_port.wrapping_add(1).max(FIRST_HOST_PORT);
        }
        let key = (self.next_host_port, port);
        self.next_host_port = self.next_host_port.wrapping_add(1).max(FIRST_HOST_PORT);
        self.ports.insert(key, token);
        self.keys.insert(token, key);
        if let Some(connection) = self.connections.get_mut(&token) {
            let packet = connection.packet(Op::Request, key);
            self.queue(packet);
        }
    }

    /// Forgets a connection; the guest is told if it knows of it.
    fn end(&mut self, token: u64) {
        if let Some(key) = self.keys.get(&token).copied() {
            self.queue(Packet::control(Op::Reset, key.0, key.1));
        }
        self.forget(token);
    }

    fn forget(&mut self, token: u64) {
        if let Some(connection) = self.connections.remove(&token) {
            // Closing the descriptor takes it out of the epoll set as well, unless it was duplicated.
            let _ = self.epoll.delete(connection.stream());
        }
        if let Some(key) = self.keys.remove(&token) {
            self.ports.remove(&key);
        }
    }

    fn queue(&mut self, packet: Packet) {
        if self.waiting.len() < WAITING {
            self.waiting.push_back(packet);
        }
    }

    /// A packet from the guest: its header, and its data.
    pub(super) fn guest_sent(&mut self, header: &[u8; HEADER], data: &[u8]) {
        let packet = match Packet::from_guest(header, self.guest_cid) {
            Ok(packet) => packet,
            Err(Foreign::Address) => return,
            Err(Foreign::Unknown(packet)) => {
                return self.queue(Packet::control(Op::Reset, packet.host_port, packet.guest_port));
            }
        };
        let key = (packet.host_port, packet.guest_port);
        let Some(token) = self.ports.get(&key).copied() else {
            return match packet.op {
                Op::Request => self.requested(key, &packet),
                Op::Reset => {}
                _ => self.queue(Packet::control(Op::Reset, key.0, key.1)),
            };
        };
        let Some(connection) = self.connections.get_mut(&token) else { return };
        let fate = match packet.op {
            Op::Response => connection.accepted(&packet),
            Op::Reset => return self.forget(token),
            // The guest opens a connection that is open.
            Op::Request => Fate::Over,
            Op::Shutdown => {
                connection.credit(&packet);
                connection.shutdown(packet.flags)
            }
            Op::Data => {
                connection.credit(&packet);
                connection.data(data)
            }
            Op::CreditUpdate => {
                connection.credit(&packet);
                Fate::Lives
            }
            Op::CreditRequest => {
                connection.credit(&packet);
                let answer = connection.packet(Op::CreditUpdate, key);
                self.queue(answer);
                Fate::Lives
            }
        };
        match fate {
            Fate::Lives => self.announce(token),
            Fate::Over => self.end(token),
        }
    }

    /// The guest asks for a connection to `vm.sock_<host port>`.
    fn requested(&mut self, key: (u32, u32), request: &Packet) {
        let connected = if self.connections.len() < CONNECTIONS { self.dial(key.0).ok() } else { None };
        let token = connected.and_then(|stream| self.insert(Connection::from_guest(stream, request)));
        let Some(token) = token else {
            return self.queue(Packet::control(Op::Reset, key.0, key.1));
        };
        self.ports.insert(key, token);
        self.keys.insert(token, key);
        if let Some(connection) = self.connections.get_mut(&token) {
            let packet = connection.packet(Op::Response, key);
            self.queue(packet);
        }
    }

    /// Never waits: a listener whose queue is full counts as absent.
    fn dial(&self, port: u32) -> std::io::Result<UnixStream> {
        let mut path = OsString::from(&self.path);
        path.push(format!("_{port}"));
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let descriptor: OwnedFd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        connect(descriptor.as_raw_fd(), &UnixAddr::new(Path::new(&path))?)?;
        Ok(UnixStream::from(descriptor))
    }

    /// Whether [`Switch::next_for_guest`] may have something.
    pub(super) fn has_packet(&self) -> bool {
        !self.waiting.is_empty() || self.connections.values().any(Connection::may_read)
    }

    /// The next packet for the guest; its data is put into `buffer`.
    pub(super) fn next_for_guest(&mut self, buffer: &mut [u8]) -> Option<Packet> {
        if let Some(packet) = self.waiting.pop_front() {
            return Some(packet);
        }
        for _ in 0..self.turns.len() {
            let token = self.turns.pop_front()?;
            let (Some(connection), key) = (self.connections.get_mut(&token), self.keys.get(&token)) else {
                continue;
            };
            self.turns.push_back(token);
            let Some(key) = key else { continue };
            if let Some(packet) = connection.read(*key, buffer) {
                return Some(packet);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header(guest_port: u32, host_port: u32, op: u16, words: [u32; 4]) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[0..8].copy_from_slice(&3u64.to_le_bytes());
        bytes[8..16].copy_from_slice(&2u64.to_le_bytes());
        bytes[16..20].copy_from_slice(&guest_port.to_le_bytes());
        bytes[20..24].copy_from_slice(&host_port.to_le_bytes());
        bytes[24..28].copy_from_slice(&words[0].to_le_bytes());
        bytes[28..30].copy_from_slice(&1u16.to_le_bytes());
        bytes[30..32].copy_from_slice(&op.to_le_bytes());
        bytes[32..36].copy_from_slice(&words[1].to_le_bytes());
        bytes[36..40].copy_from_slice(&words[2].to_le_bytes());
        bytes[40..44].copy_from_slice(&words[3].to_le_bytes());
        bytes
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whatever a guest sends, the switch neither panics nor grows without bound.
        #[test]
        fn any_order_of_packets_is_survived(
            packets in proptest::collection::vec((0u32..4, 0u32..4, 0u16..9, any::<[u32; 4]>()), 0..200),
            data in proptest::collection::vec(any::<u8>(), 0..100),
        ) {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("vm.sock");
            let mut switch = Switch::bind(&path, 3).unwrap();
            let _listener = UnixListener::bind(directory.path().join("vm.sock_1")).unwrap();
            let mut buffer = vec![0; 4096];
            for (guest_port, host_port, op, words) in packets {
                switch.guest_sent(&header(guest_port, host_port, op, words), &data);
                switch.poll(true);
                prop_assert_eq!(switch.connections.len(), switch.keys.len());
                prop_assert!(switch.ports.len() <= 4);
                let _ = switch.next_for_guest(&mut buffer);
            }
        }
    }

    #[test]
    fn a_port_without_a_listener_is_reset() {
        let directory = tempfile::tempdir().unwrap();
        let mut switch = Switch::bind(&directory.path().join("vm.sock"), 3).unwrap();
        switch.guest_sent(&header(7, 4050, 1, [0; 4]), &[]);
        let answer = switch.next_for_guest(&mut []).unwrap();
        assert_eq!((answer.op, answer.host_port, answer.guest_port), (Op::Reset, 4050, 7));
    }

    #[test]
    fn a_guest_that_never_takes_its_answers_does_not_fill_the_host() {
        let directory = tempfile::tempdir().unwrap();
        let mut switch = Switch::bind(&directory.path().join("vm.sock"), 3).unwrap();
        for port in 0..3 * u32::try_from(WAITING).unwrap() {
            switch.guest_sent(&header(port, 4050, 1, [0; 4]), &[]);
        }
        assert_eq!(switch.waiting.len(), WAITING);
    }
}

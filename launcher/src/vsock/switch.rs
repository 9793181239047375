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

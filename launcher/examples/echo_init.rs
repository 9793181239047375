//! The first process of a test guest: echoes what arrives at its vsock port 1024, and sends a megabyte through port
//! 4050 of the host and back. `tests/boot.rs` boots it.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::sys::socket::{
    AddressFamily, Backlog, Shutdown, SockFlag, SockType, VsockAddr, accept, bind, connect, listen, shutdown,
    socket,
};

const HOST: u32 = 2;
const ANY: u32 = u32::MAX;

fn main() -> std::io::Result<()> {
    if std::process::id() != 1 {
        eprintln!("this is the first process of a test guest");
        return Ok(());
    }
    std::thread::spawn(|| {
        if let Err(error) = send_and_receive() {
            println!("echo-init: port 4050: {error}");
        }
    });
    let listener = stream()?;
    bind(listener.as_raw_fd(), &VsockAddr::new(ANY, 1024))?;
    listen(&listener, Backlog::new(64)?)?;
    loop {
        let descriptor = accept(listener.as_raw_fd())?;
        std::thread::spawn(move || echo(descriptor));
    }
}

fn stream() -> nix::Result<OwnedFd> {
    socket(AddressFamily::Vsock, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)
}

fn echo(descriptor: i32) {
    use nix::sys::socket::{MsgFlags, recv, send};
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = recv(descriptor, &mut buffer, MsgFlags::empty()) {
        let mut sent = 0;
        while sent < length {
            match send(descriptor, &buffer[sent..length], MsgFlags::empty()) {
                Ok(more) => sent += more,
                Err(_) => return,
            }
        }
    }
    let _ = nix::unistd::close(descriptor);
}

/// Half-close: all is written before anything comes back, and the end of writing is what makes the host answer.
fn send_and_receive() -> std::io::Result<()> {
    let socket = stream()?;
    connect(socket.as_raw_fd(), &VsockAddr::new(HOST, 4050))?;
    let mut file = File::from(socket);
    file.write_all(&vec![7; 1024 * 1024])?;
    shutdown(file.as_raw_fd(), Shutdown::Write)?;
    let mut back = Vec::new();
    file.read_to_end(&mut back)?;
    println!("echo-init: {} bytes came back", back.len());
    match connect(stream()?.as_raw_fd(), &VsockAddr::new(HOST, 4999)) {
        Ok(()) => println!("echo-init: port 4999 is open"),
        Err(error) => println!("echo-init: port 4999: {error}"),
    }
    Ok(())
}

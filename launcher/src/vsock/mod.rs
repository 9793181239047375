//! A virtio-vsock device for one guest (virtio 1.2, section 5.10) in threads of this process, offered to QEMU over
//! vhost-user: no kernel module, no further program, no `AF_VSOCK` on the host.

mod backend;
mod connection;
mod packet;
mod switch;

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use std::thread::JoinHandle;

use vhost::vhost_user::Listener;
use vhost_user_backend::VhostUserDaemon;
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;

use self::backend::{Backend, SOCKETS};
use self::switch::Switch;

/// The guest's context id. Each guest has a device of its own, so all can have the same.
const GUEST_CID: u64 = 3;

/// What goes wrong with the vsock device.
#[derive(Debug, thiserror::Error)]
pub enum VsockError {
    /// The socket for host programs could not be bound.
    #[error("cannot listen on {path} for connections to the guest")]
    Bind {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The device's threads or its socket for QEMU could not be made.
    #[error("cannot start the guest's vsock device: {0}")]
    Start(String),
}

/// The running device. Dropping it ends its threads.
#[derive(Debug)]
pub(crate) struct Device {
    path: PathBuf,
    thread: Option<JoinHandle<()>>,
}

impl Device {
    /// Listens for QEMU at `vhost` and for host programs at `vm`; `encrypted`: the guest's memory is.
    pub(crate) fn start(vhost: &Path, vm: &Path, encrypted: bool) -> Result<Device, VsockError> {
        let start = |error: &dyn std::fmt::Display| VsockError::Start(error.to_string());
        let switch =
            Switch::bind(vm, GUEST_CID).map_err(|source| VsockError::Bind { path: vm.to_owned(), source })?;
        let sockets = switch.events();
        let backend = Arc::new(RwLock::new(Backend::new(switch, encrypted)));
        let memory = GuestMemoryAtomic::new(GuestMemoryMmap::new());
        let mut daemon =
            VhostUserDaemon::new("vsock".to_owned(), backend, memory).map_err(|error| start(&error))?;
        for handler in daemon.get_epoll_handlers() {
            handler.register_listener(sockets, EventSet::IN, SOCKETS).map_err(|error| start(&error))?;
        }
        let mut listener = Listener::new(vhost, false).map_err(|error| start(&error))?;
        let thread = std::thread::Builder::new()
            .name("vsock device".to_owned())
            .spawn(move || {
                // Both end with QEMU's side of the socket; a guest that ends is not an error.
                if daemon.start(&mut listener).is_ok() {
                    let _ = daemon.wait();
                }
                for handler in daemon.get_epoll_handlers() {
                    handler.send_exit_event();
                }
            })
            .map_err(|error| start(&error))?;
        Ok(Device { path: vhost.to_owned(), thread: Some(thread) })
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // If QEMU never came, the thread still waits for it: come and go in its place.
        drop(UnixStream::connect(&self.path));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_qemu_never_opened_ends() {
        let directory = tempfile::tempdir().unwrap();
        let device =
            Device::start(&directory.path().join("vhost"), &directory.path().join("vm"), false).unwrap();
        drop(device);
    }

    #[test]
    fn connections_before_the_guest_is_up_are_closed() {
        use std::io::{Read as _, Write as _};
        let directory = tempfile::tempdir().unwrap();
        let vm = directory.path().join("vm");
        let _device = Device::start(&directory.path().join("vhost"), &vm, false).unwrap();
        let mut stream = UnixStream::connect(&vm).unwrap();
        let _ = stream.write_all(b"CONNECT 1024\n");
        assert!(matches!(stream.read(&mut [0; 8]), Ok(0) | Err(_)));
    }
}

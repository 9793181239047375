//! Resources for containers: the confidential data hub's services on one socket a container, and sealed
//! secrets in its environment and files.
//!
//! ```text
//! container ─▶ its own socket ─▶ Identity: may it? ─▶ the broker, through the guest's attestation
//! ```
//! The socket is the identity: whoever calls through it is that container and gets what is listed for it.
//! Software written for CoCo finds the socket at [`SOCKET`].

mod files;
mod identity;
mod jws;
mod sealed;
mod services;
mod socket;

pub use files::{unseal_directory, unseal_environment};
pub use identity::{Identity, Mount};
pub use sealed::{PREFIX, unseal};
pub use socket::{PeerCheck, Socket, serve};

/// Where the container sees its socket.
pub const SOCKET: &str = "/run/confidential-containers/cdh.sock";

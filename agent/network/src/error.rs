//! Why a request for the network is refused or failed.

use std::io;

/// Every message is safe for the host: it holds the host's own words and the kernel's.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// It would touch what stays inside the pod.
    #[error("{0} would divert traffic inside the pod")]
    Loopback(String),
    /// It can't be read.
    #[error("{0}")]
    Malformed(String),
    /// There is no such interface.
    #[error("no interface {0}")]
    NoInterface(String),
    /// The kernel says no.
    #[error("{step}: {reason}")]
    Kernel {
        /// What was being done.
        step: &'static str,
        /// The kernel's words.
        reason: String,
    },
    /// The program that does it isn't in the guest.
    #[error("the guest has no program '{0}'; use a guest image with iptables")]
    NoProgram(&'static str),
    /// The program couldn't be run.
    #[error("running '{program}': {source}")]
    Program {
        /// Its name.
        program: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The program says no.
    #[error("'{program}' ended with status {code}: {complaint}")]
    Rules {
        /// Its name.
        program: &'static str,
        /// How it ended.
        code: i32,
        /// The first line of what it complained of.
        complaint: String,
    },
}

pub(super) fn kernel(step: &'static str, error: &rtnetlink::Error) -> NetworkError {
    let reason = match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io().to_string(),
        other => other.to_string(),
    };
    NetworkError::Kernel { step, reason }
}

/// The kernel has it already.
pub(super) fn exists(error: &rtnetlink::Error) -> bool {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io().kind() == io::ErrorKind::AlreadyExists,
        _ => false,
    }
}

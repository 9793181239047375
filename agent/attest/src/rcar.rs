//! Key release and resources: RCAR (version 0.4.0) with the broker that initdata pins, over TLS that ends
//! there. The relay in between, if any, moves bytes.

mod handshake;
mod http;
mod session;
mod transport;

use std::time::Duration;

use protocols::refusal::{Code, Refusal};

pub use session::Session;
pub use transport::Transport;

/// How patient the client is.
#[derive(Clone, Debug)]
pub struct Patience {
    /// Tries to connect.
    pub attempts: u32,
    /// Pause after the first failed try; doubles up to two seconds.
    pub pause: Duration,
    /// For one connection with its TLS handshake.
    pub connect: Duration,
    /// For one answer of the broker.
    pub answer: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            attempts: 8,
            pause: Duration::from_millis(200),
            connect: Duration::from_secs(15),
            answer: Duration::from_secs(60),
        }
    }
}

fn protocol(detail: impl Into<String>) -> Refusal {
    Refusal::new(Code::BrokerProtocol, format!("the broker's answer can't be used: {}", detail.into()))
}

#[cfg(test)]
pub(crate) mod tests;

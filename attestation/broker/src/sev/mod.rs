//! SEV and SEV-ES, whose launches are attested and not their guests: the host's relay asks for a session, launches, sends
//! the platform's measurement and gets the packet with the guest's secret. Everything that comes from there is hostile.
//!
//! | step | module |
//! |---|---|
//! | bodies → bytes of the right length | `request` |
//! | a platform's certificates and a guest's initdata → a session | `session` |
//! | the platform's measurement → a decision as for any release → the secret | `measurement` |
//! | a guest that comes back with its connection key | `connection` |

mod connection;
mod measurement;
mod request;
mod session;

pub(crate) use connection::appraise;
pub(crate) use measurement::measure;
pub use request::{read_measurement, read_session};
pub(crate) use session::open;

use protocols::refusal::Code;
use verifier::sev::NoRandomness;

use crate::refused::Refused;

/// Random bytes of the system.
fn random(out: &mut [u8]) -> Result<(), NoRandomness> {
    getrandom::fill(out).map_err(|_| NoRandomness)
}

/// A random name: 32 hex digits.
fn random_id() -> Result<String, Refused> {
    let mut id = [0; 16];
    random(&mut id).map_err(|error| failed(&error))?;
    Ok(hex::encode(id))
}

/// What isn't the request's fault.
fn failed(error: &dyn std::error::Error) -> Refused {
    Refused::new(Code::Internal, "the broker can't go on with this launch").because(crate::chain(error))
}

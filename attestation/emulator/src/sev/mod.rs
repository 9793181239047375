//! SEV and SEV-ES before SNP: a platform's certificates, its firmware's launch commands, and a program in
//! front of QEMU that answers the monitor as one with such a guest would (AMD 55766, "SEV API").
//!
//! | module | what |
//! |---|---|
//! | [`certificate`] | AMD's binary certificates, written |
//! | [`platform`] | keys and chain of one processor: ARK → ASK → CEK → PEK → PDH, OCA beside |
//! | [`session`] | the guest owner's session blob, opened with the PDH |
//! | [`guest`] | LAUNCH_START … LAUNCH_FINISH: what may follow what, measurement, secret |
//! | [`secrets`] | what was injected, as files of the guest |
//! | [`words`] | QEMU's command line |
//! | [`monitor`] | QMP |
//! | [`front`] | all of it, then the real QEMU |

pub mod certificate;
mod crypto;
pub mod faults;
pub mod front;
pub mod guest;
pub mod monitor;
pub mod platform;
pub mod secrets;
pub mod session;
pub mod words;

pub use faults::Fault;
pub use guest::{Guest, Status};
pub use platform::Platform;

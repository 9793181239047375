//! Sealed logs: what a container prints, readable by the owner alone, as lines of text that any log
//! collector can carry.

mod key;

pub use key::{LogKey, LogKeyError, LogRecipient};

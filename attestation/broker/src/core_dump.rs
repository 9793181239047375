//! No core dumps: this process's memory holds the master key and every key on its way out.

use std::io;

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// Keeps the system from writing this process's memory to a file, and other processes of the same user
/// from reading it.
///
/// # Errors
/// What the system said; whoever holds keys goes no further then.
pub fn forbid() -> io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    // A core pattern that is a pipe ignores the limit; it heeds this.
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

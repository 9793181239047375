//! Containers: the pause container, which is nothing but a place to wait, and those of the sealed
//! specification. One lock a container, never held over a wait.

mod books;
mod cgroup;
mod create;
mod exec;
mod launch;
mod life;
mod rights;
mod streams;

pub use books::{Container, Containers, Instance, Keeps, Pause, Reserved, Stage, Target};
pub use create::CreateRequest;
pub(crate) use exec::told;
pub use launch::Plan;
pub use rights::{Rights, Signals};

/// Longest id of a container or an exec, as containerd bounds it.
const MAX_ID: usize = 128;

/// Whether a host's id can name files and cgroups.
pub fn valid_id(id: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    id.len() <= MAX_ID
        && id.bytes().all(plain)
        && id.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_name_one_file_each() {
        assert!(valid_id("6f1c0b2a9d"));
        assert!(valid_id("web-1.a_b"));
        for id in ["", ".", "..", "a/b", "-x", "a\0", "a b", &"x".repeat(129), "ü"] {
            assert!(!valid_id(id), "{id:?}");
        }
    }
}

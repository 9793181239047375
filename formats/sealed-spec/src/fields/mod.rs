//! What of a manifest stays public, what is sealed, and what becomes a placeholder.
//!
//! [`TABLE`] is the one place that says so; [`split`] applies it, and refuses every field it doesn't
//! know by path: a dropped field would be a pod that silently differs from what its owner wrote.

mod objects;
mod placeholder;
mod publish;
mod resolve;
mod split;
mod table;

pub use objects::{ObjectKind, Objects};
pub use placeholder::{Hook, PLACEHOLDER_IMAGE, PLACEHOLDER_PROGRAM, placeholder_argv, placeholder_command};
pub use publish::{Publication, SPEC_MOUNT, SPEC_VOLUME, config_map};
pub use split::{FieldError, Sources, Split, split, split_with};
pub use table::{Field, TABLE, Treatment};

#[cfg(test)]
#[path = "../fields_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "../fields_resolve_tests.rs"]
mod resolve_tests;

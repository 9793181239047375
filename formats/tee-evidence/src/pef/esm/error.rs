//! What can be wrong with an ESM blob.

use crate::pef::fdt::FdtError;

/// Why bytes are not an ESM blob.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EsmError {
    /// Not a device tree that we read.
    #[error("ESM blob")]
    Fdt(#[source] FdtError),
    /// A nested tree isn't one.
    #[error("ESM blob's files")]
    Files(#[source] FdtError),
    /// Not `ibm,esm`, or `ibm,esm-file` for the files.
    #[error("the device tree is not an ESM blob: 'compatible' says something else")]
    Compatible,
    /// A node or property that has to be there isn't.
    #[error("ESM blob has no '{0}'")]
    Missing(&'static str),
    /// A node or property that has no place there.
    #[error("ESM blob has '{name}' in {place}, where it has no place")]
    Unexpected {
        /// Its name.
        name: String,
        /// The node that it is in.
        place: String,
    },
    /// Another algorithm than the only ones.
    #[error("ESM blob names an algorithm other than SHA256, SHA512 and AES256-GCM")]
    Algorithm,
    /// A value of another length.
    #[error("ESM blob: '{name}' has {found} bytes instead of {expected}")]
    Length {
        /// Whose value.
        name: &'static str,
        /// Bytes that it has to have.
        expected: usize,
        /// Bytes that it has.
        found: usize,
    },
    /// A text with control characters, or too long.
    #[error("ESM blob: '{0}' is not one short line of printable ASCII")]
    Text(&'static str),
    /// A lockbox whose name is neither the origin's nor a number's.
    #[error("ESM blob has a lockbox named '{0}'")]
    LockboxName(String),
    /// The same key twice.
    #[error("ESM blob has two lockboxes for the key {0}; revoke one of them")]
    DuplicateKey(String),
    /// More than we read.
    #[error("ESM blob has too many {0}")]
    TooMany(&'static str),
    /// Larger than the ultravisor or we can read.
    #[error("ESM blob: {name} has {found} bytes, more than {most}")]
    TooLong {
        /// What.
        name: &'static str,
        /// Its bytes.
        found: usize,
        /// The most there may be.
        most: usize,
    },
    /// A file's name breaks its rule.
    #[error("file name '{0}' is not a letter and at most 30 letters, digits and ,._+-")]
    FileName(String),
}

//! Names of files in a blob, as the ultravisor takes them.

use std::fmt;
use std::str::FromStr;

use super::EsmError;
use crate::pef::fdt::is_node_name;

/// Name of a file in a blob: a letter, then letters, digits and `,._+-`, 31 at most.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileName(String);

impl FileName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as the ultravisor call takes it: 64 bytes, NUL after it.
    pub fn padded(&self) -> [u8; 64] {
        let mut bytes = [0; 64];
        bytes[..self.0.len()].copy_from_slice(self.0.as_bytes());
        bytes
    }
}

impl FromStr for FileName {
    type Err = EsmError;

    fn from_str(text: &str) -> Result<Self, EsmError> {
        if is_node_name(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err(EsmError::FileName(text.chars().take(64).collect::<String>().escape_default().to_string()))
        }
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

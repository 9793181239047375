//! Where a key file's password is.

use std::fmt;
use std::path::PathBuf;

use zeroize::Zeroizing;

use super::{AccessError, read};

/// What follows the colon after a key file's name.
#[derive(Clone, PartialEq, Eq)]
pub enum Password {
    /// The password itself; other users of the machine can see it while the program runs.
    Text(Zeroizing<String>),
    /// In a file.
    File(PathBuf),
    /// To be read from an open file descriptor.
    Descriptor(u32),
}

impl Password {
    /// `pass=…`, `file=…`, `fd=…`, or the password itself.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if let Some(file) = text.strip_prefix("file=") {
            return (!file.is_empty()).then(|| Self::File(file.into()));
        }
        if let Some(number) = text.strip_prefix("fd=") {
            return number.parse().ok().map(Self::Descriptor);
        }
        let password = text.strip_prefix("pass=").unwrap_or(text);
        Some(Self::Text(Zeroizing::new(password.to_owned())))
    }

    /// The password; a line's end after it isn't part of it.
    pub(super) fn read(&self) -> Result<Zeroizing<Vec<u8>>, AccessError> {
        let path = match self {
            Self::Text(text) => return Ok(Zeroizing::new(text.as_bytes().to_vec())),
            Self::File(path) => path.clone(),
            Self::Descriptor(number) => format!("/proc/self/fd/{number}").into(),
        };
        let mut bytes = read(&path)?;
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
            if bytes.last() == Some(&b'\r') {
                bytes.pop();
            }
        }
        Ok(bytes)
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(_) => formatter.write_str("Text(…)"),
            Self::File(path) => write!(formatter, "File({})", path.display()),
            Self::Descriptor(number) => write!(formatter, "Descriptor({number})"),
        }
    }
}

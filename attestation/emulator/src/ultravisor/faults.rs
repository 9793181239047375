//! What an ultravisor could hand out that it shouldn't, and what a host can do to a blob.

use std::str::FromStr;

/// One thing that goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// At most this many bytes a call; that is allowed.
    ShortReads(u8),
    /// Calls say that they hand out this many bytes.
    Length(i64),
    /// Calls fail with this.
    Error(i64),
    /// Files have no end.
    Endless,
    /// The host has swapped the ciphertexts of two files.
    SwappedFiles(String, String),
}

/// Name, value and meaning of each fault.
pub const KNOWN: [(&str, &str); 5] = [
    ("short-reads=<number>", "a call hands out at most this many bytes"),
    ("length=<number>", "calls say that they hand out this many bytes"),
    ("error=<number>", "calls fail with this, a negative number"),
    ("endless", "files have no end"),
    ("swapped-files=<name>:<name>", "the ciphertexts of two files are swapped"),
];

/// Not a fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("fault {0:?} is not NAME or NAME=VALUE as `sealpod-emulator faults` lists them under PEF")]
pub struct FaultError(String);

impl FromStr for Fault {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Self, FaultError> {
        read(text).ok_or_else(|| FaultError(text.to_owned()))
    }
}

fn read(text: &str) -> Option<Fault> {
    let Some((name, value)) = text.split_once('=') else {
        return (text == "endless").then_some(Fault::Endless);
    };
    Some(match name {
        "short-reads" => Fault::ShortReads(value.parse().ok()?),
        "length" => Fault::Length(value.parse().ok()?),
        "error" => Fault::Error(value.parse().ok().filter(|code| *code < 0)?),
        "swapped-files" => {
            let (one, other) = value.split_once(':')?;
            Fault::SwappedFiles(one.to_owned(), other.to_owned())
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_name_is_read() {
        for (name, _) in KNOWN {
            let text =
                name.replace("error=<number>", "error=-4").replace("<number>", "7").replace("<name>", "f");
            assert!(text.parse::<Fault>().is_ok(), "{text}");
        }
        for text in ["", "endless=1", "error=4", "short-reads=300", "swapped-files=a"] {
            assert!(text.parse::<Fault>().is_err(), "{text}");
        }
    }
}

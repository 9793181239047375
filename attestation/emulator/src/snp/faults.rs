//! Lies and failures that real hardware and honest hosts do not show at will, one at a time or together:
//! what an attacker who owns the host, or a chip with broken firmware, would present to a verifier.

use crate::snp::product::Tcb;
use std::str::FromStr;

pub(crate) mod broken;
mod known;

pub use known::{KNOWN, Known};

/// One thing that goes wrong. [`KNOWN`] names all of them as the command line does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The host answers this many requests with "busy" before it works.
    Busy(u32),
    /// The host says this many times that the room for certificates is too small, whatever it is.
    ShortBuffer(u32),
    /// The host says that the certificates need this many pages.
    Pages(u32),
    /// These bytes of reports are others than they should be, from this offset on, and are signed.
    Report(usize, Vec<u8>),
    /// A TCB version in reports is another, and is signed.
    Tcb(TcbField, Tcb),
    /// The platform hides its chip's key: reports are not signed.
    MaskedChipKey,
    /// What is wrong with the signature.
    Signature(SignatureFault),
    /// Reports end with this many bytes more or less.
    Length(i8),
    /// What is wrong with the signing key's certificate.
    Endorsement(EndorsementFault),
    /// What is wrong with the revocation list.
    Crl(CrlFault),
    /// What is wrong with the certificate table.
    Table(TableFault),
}

/// Which of a report's TCB versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TcbField {
    /// CURRENT_TCB.
    Current,
    /// REPORTED_TCB.
    Reported,
    /// COMMITTED_TCB.
    Committed,
    /// LAUNCH_TCB.
    Launch,
}

impl TcbField {
    pub(crate) fn offset(self) -> usize {
        match self {
            Self::Current => 0x038,
            Self::Reported => 0x180,
            Self::Committed => 0x1e0,
            Self::Launch => 0x1f0,
        }
    }
}

/// Signatures that are none, or that only a sloppy verifier takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignatureFault {
    /// One bit is wrong.
    Bit,
    /// All zero.
    Empty,
    /// r has the group's order added: equal modulo the order, and not canonical.
    HighR,
    /// The same for s.
    HighS,
    /// A byte behind r and s is not zero.
    Padding,
}

/// Certificates that don't fit the report or the profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndorsementFault {
    /// Signed by the authority of the other kind of keys: a VLEK by the ASK, a VCEK by the ASVK.
    OtherAuthority,
    /// The table calls a VCEK a VLEK and the reverse; the report says the truth.
    OtherKind,
    /// Expired yesterday.
    Expired,
    /// Valid from tomorrow on.
    NotYet,
    /// Without this extension below 1.3.6.1.4.1.3704.1.
    Without(String),
    /// With this extension, raw DER, in place of or besides the right ones.
    With(String, Vec<u8>),
    /// There is none in the table.
    Absent,
}

/// Revocation lists that must not be believed, or that revoke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrlFault {
    /// There is none in the table.
    Absent,
    /// The next one was due yesterday.
    Stale,
    /// Made tomorrow.
    Future,
    /// Signed by the ASK in the ARK's name.
    OtherSigner,
    /// It revokes the ASK.
    RevokesAsk,
    /// It revokes the ASVK.
    RevokesAsvk,
}

/// Certificate tables of a host that attacks the parser.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableFault {
    /// The second certificate starts inside the first.
    Overlap,
    /// The first certificate has almost 4 GiB.
    HugeLength,
    /// The first certificate starts beyond the table's end.
    FarOffset,
    /// No entry of zeros ends the table.
    Unterminated,
    /// The first entry stands there twice.
    Duplicate,
    /// No certificates at all.
    Empty,
}

impl Fault {
    /// Reports name this guest policy, whatever was launched.
    pub fn policy(policy: u64) -> Self {
        Self::Report(0x008, policy.to_le_bytes().to_vec())
    }

    /// Reports name this privilege level, whatever was asked.
    pub fn vmpl(vmpl: u32) -> Self {
        Self::Report(0x030, vmpl.to_le_bytes().to_vec())
    }

    /// Reports name this chip, whose certificate it isn't.
    pub fn chip_id(id: [u8; 64]) -> Self {
        Self::Report(0x1a0, id.to_vec())
    }

    /// Reports say that they are of this version.
    pub fn version(version: u32) -> Self {
        Self::Report(0x000, version.to_le_bytes().to_vec())
    }

    /// Reports say that this kind of key signed them: 0 VCEK, 1 VLEK, 7 none.
    pub fn signing_key(kind: u32) -> Self {
        Self::Report(0x048, (kind << 2).to_le_bytes().to_vec())
    }

    /// Reports name this TCB, whose certificate it isn't.
    pub fn reported_tcb(tcb: Tcb) -> Self {
        Self::Tcb(TcbField::Reported, tcb)
    }

    /// One bit of every signature is wrong.
    pub fn signature() -> Self {
        Self::Signature(SignatureFault::Bit)
    }
}

/// Not a fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FaultError {
    /// The name.
    #[error("fault {0:?} is unknown; `sealpod-emulator faults` lists them")]
    Unknown(String),
    /// The value.
    #[error("fault {name} takes {expected}, not {value:?}")]
    Value {
        /// The fault.
        name: &'static str,
        /// What its value must be.
        expected: &'static str,
        /// What it was.
        value: String,
    },
}

impl FromStr for Fault {
    type Err = FaultError;

    /// `NAME` or `NAME=VALUE`.
    fn from_str(text: &str) -> Result<Self, FaultError> {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        let known = KNOWN
            .iter()
            .find(|known| known.name == name)
            .ok_or_else(|| FaultError::Unknown(name.to_owned()))?;
        known.read(value).ok_or_else(|| FaultError::Value {
            name: known.name,
            expected: known.value.unwrap_or("no value"),
            value: value.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_has_one_name() {
        for (index, known) in KNOWN.iter().enumerate() {
            assert!(KNOWN[..index].iter().all(|other| other.name != known.name), "{}", known.name);
            let text = match known.value {
                None => known.name.to_owned(),
                Some(_) => format!("{}={}", known.name, known.example),
            };
            let fault: Fault = text.parse().unwrap();
            assert!(KNOWN[..index].iter().all(|other| other.read(other.example).as_ref() != Some(&fault)));
            assert!(text.replace('=', "").parse::<Fault>().is_err() || known.value.is_none(), "{text}");
        }
    }

    #[test]
    fn other_names_and_values_are_refused() {
        assert_eq!("busy=3".parse::<Fault>().unwrap(), Fault::Busy(3));
        assert_eq!("policy=0xb0000".parse::<Fault>().unwrap(), Fault::policy(0xb_0000));
        for (text, part) in [
            ("buzy=1", "`sealpod-emulator faults`"),
            ("busy", "takes a number"),
            ("busy=-1", "takes a number"),
            ("signature=1", "takes no value"),
            ("chip-id=00", "takes 128 hexadecimal digits"),
            ("report-bytes=2000:00", "takes OFFSET:BYTES"),
        ] {
            let message = text.parse::<Fault>().unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        }
    }
}

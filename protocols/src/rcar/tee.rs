//! Names of TEEs in the key broker protocol.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A TEE as the protocol names it. Emulated SNP is `snp` here: the guest can't tell, the broker can.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum TeeKind {
    /// AMD SEV-SNP.
    Snp,
    /// AMD SEV and SEV-ES.
    Sev,
    /// Power PEF: Sealpod's own extension of the protocol, which has no name for it.
    Pef,
    /// No TEE: the peers' smoke-test evidence, which Sealpod never makes and never accepts.
    Sample,
    /// A kind that the peers know and Sealpod does not.
    Other(String),
}

impl TeeKind {
    /// The name on the wire.
    pub fn name(&self) -> &str {
        match self {
            Self::Snp => "snp",
            Self::Sev => "sev",
            Self::Pef => "pef",
            Self::Sample => "sample",
            Self::Other(name) => name,
        }
    }
}

impl From<String> for TeeKind {
    fn from(name: String) -> Self {
        match name.as_str() {
            "snp" => Self::Snp,
            "sev" => Self::Sev,
            "pef" => Self::Pef,
            "sample" => Self::Sample,
            _ => Self::Other(name),
        }
    }
}

impl From<TeeKind> for String {
    fn from(kind: TeeKind) -> Self {
        kind.name().to_owned()
    }
}

impl fmt::Display for TeeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

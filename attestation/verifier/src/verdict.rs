//! What was found out about a piece of evidence: every value that a policy, an audit record or a person
//! may want, and the list of checks with what each of them looked at.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{CheckRecord, PefClaims, SampleClaims, SevClaims, SnpClaims};

/// A kind of TEE, as policies name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TeeKind {
    /// SEV-SNP, endorsed by AMD.
    Snp,
    /// SEV-SNP in software, endorsed by a root that this broker's configuration names.
    SnpEmulated,
    /// SEV without encrypted register state, endorsed by AMD.
    Sev,
    /// SEV with encrypted register state, endorsed by AMD.
    SevEs,
    /// SEV in software.
    SevEmulated,
    /// SEV-ES in software.
    SevEsEmulated,
    /// A secure VM of Power's Protected Execution Facility.
    Pef,
    /// The same with a TPM in software.
    PefEmulated,
    /// No TEE at all: proves nothing. Never in a policy of a sealed spec.
    Sample,
}

impl TeeKind {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Snp,
        Self::SnpEmulated,
        Self::Sev,
        Self::SevEs,
        Self::SevEmulated,
        Self::SevEsEmulated,
        Self::Pef,
        Self::PefEmulated,
        Self::Sample,
    ];

    /// The name in policies and verdicts.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Snp => "snp",
            Self::SnpEmulated => "snp-emulated",
            Self::Sev => "sev",
            Self::SevEs => "sev-es",
            Self::SevEmulated => "sev-emulated",
            Self::SevEsEmulated => "sev-es-emulated",
            Self::Pef => "pef",
            Self::PefEmulated => "pef-emulated",
            Self::Sample => "sample",
        }
    }

    /// The kind of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Is it a kind that proves nothing about hardware?
    pub const fn is_emulated(self) -> bool {
        match self {
            Self::Snp | Self::Sev | Self::SevEs | Self::Pef => false,
            Self::SnpEmulated
            | Self::SevEmulated
            | Self::SevEsEmulated
            | Self::PefEmulated
            | Self::Sample => true,
        }
    }
}

impl Serialize for TeeKind {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.name())
    }
}

/// Whose root the evidence leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// AMD's, by a fingerprint in this source.
    Amd,
    /// A configured one: proves nothing about hardware.
    Emulated {
        /// Its common name.
        common_name: String,
        /// SHA-256 of its certificate.
        fingerprint: [u8; 32],
    },
    /// The owner's, who enrolled these machines by their TPM keys: PEF has no maker's root.
    Enrolled {
        /// How many machines; it is one of them.
        machines: usize,
    },
    /// Another broker's, whose word stands for the evidence.
    Passport {
        /// Who that is.
        issuer: String,
        /// Whose root the evidence led to there, as it says.
        root: String,
    },
    /// Nobody's: sample evidence.
    Nobody,
}

impl std::fmt::Display for Trust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Amd => f.write_str("amd"),
            Self::Emulated { common_name, fingerprint } => {
                write!(f, "emulated ({common_name}, {})", hex::encode(fingerprint))
            }
            Self::Enrolled { machines } => write!(f, "enrolled by the owner ({machines} machine(s))"),
            Self::Passport { issuer, root } => write!(f, "passport of {issuer}: {root}"),
            Self::Nobody => f.write_str("nobody (sample evidence)"),
        }
    }
}

impl Serialize for Trust {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// What a kind of TEE says about a guest and its platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Claims {
    /// SEV-SNP.
    Snp(Box<SnpClaims>),
    /// SEV and SEV-ES.
    Sev(Box<SevClaims>),
    /// Power PEF.
    Pef(Box<PefClaims>),
    /// None.
    Sample(SampleClaims),
}

/// What is known about evidence that passed all checks that need no policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Kind of TEE.
    pub tee: TeeKind,
    /// Whose root.
    pub trust: Trust,
    /// What this kind says.
    #[serde(flatten)]
    pub claims: Claims,
    /// SHA-256 of the init-data that the guest was launched with: HOST_DATA, or what stands for it; zeros
    /// if there is none.
    #[serde(serialize_with = "hex_string")]
    pub init_data: [u8; 32],
    /// What the evidence is bound to, if it was made for a session.
    #[serde(serialize_with = "optional_hex_string")]
    pub report_data: Option<[u8; 64]>,
    /// Every check, in the order in which it was made.
    pub checks: Vec<CheckRecord>,
}

impl Verdict {
    /// The claims of SEV-SNP, if it is that.
    pub const fn snp(&self) -> Option<&SnpClaims> {
        match &self.claims {
            Claims::Snp(claims) => Some(claims),
            _ => None,
        }
    }

    /// The digest that policies compare with their list, where the kind has one: 48 bytes for SEV-SNP, 32
    /// for SEV and SEV-ES.
    pub fn launch_digest(&self) -> Option<&[u8]> {
        match &self.claims {
            Claims::Snp(claims) => Some(&claims.measurement),
            Claims::Sev(claims) => Some(&claims.measurement),
            Claims::Pef(_) | Claims::Sample(_) => None,
        }
    }
}

pub(crate) fn hex_string<S: Serializer>(bytes: &impl AsRef<[u8]>, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(&hex::encode(bytes))
}

#[expect(clippy::ref_option, reason = "serde passes fields by reference")]
pub(crate) fn optional_hex_string<S: Serializer>(
    bytes: &Option<impl AsRef<[u8]>>,
    s: S,
) -> Result<S::Ok, S::Error> {
    bytes.as_ref().map(hex::encode).serialize(s)
}

/// Exactly so many bytes in lower-case hexadecimal.
pub(crate) fn hex_array<'de, D: Deserializer<'de>, const N: usize>(d: D) -> Result<[u8; N], D::Error> {
    let text = String::deserialize(d)?;
    let mut bytes = [0; N];
    let lower = !text.bytes().any(|byte| byte.is_ascii_uppercase());
    match hex::decode_to_slice(&text, &mut bytes) {
        Ok(()) if lower => Ok(bytes),
        _ => Err(D::Error::custom(format!("not {N} bytes in lower-case hexadecimal"))),
    }
}

pub(crate) fn optional_hex_array<'de, D: Deserializer<'de>, const N: usize>(
    d: D,
) -> Result<Option<[u8; N]>, D::Error> {
    #[derive(Deserialize)]
    struct Hex<const N: usize>(#[serde(deserialize_with = "hex_array")] [u8; N]);
    Ok(Option::<Hex<N>>::deserialize(d)?.map(|Hex(bytes)| bytes))
}

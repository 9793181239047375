//! What was found out about a piece of evidence: every value that a policy, an audit record or a person
//! may want, and the list of checks with what each of them looked at.

use serde::{Serialize, Serializer};
use tee_evidence::snp::{FirmwareVersion, Product, SigningKey, Tcb};

/// A kind of TEE, as policies name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub enum TeeKind {
    /// SEV-SNP, endorsed by AMD.
    #[serde(rename = "snp")]
    Snp,
    /// SEV-SNP in software, endorsed by a root that this broker's configuration names.
    #[serde(rename = "snp-emulated")]
    SnpEmulated,
}

impl TeeKind {
    /// The name in policies and verdicts.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Snp => "snp",
            Self::SnpEmulated => "snp-emulated",
        }
    }

    /// The kind of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Snp, Self::SnpEmulated].into_iter().find(|kind| kind.name() == name)
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
}

impl std::fmt::Display for Trust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Amd => f.write_str("amd"),
            Self::Emulated { common_name, fingerprint } => {
                write!(f, "emulated ({common_name}, {})", hex::encode(fingerprint))
            }
        }
    }
}

impl Serialize for Trust {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// The four TCB versions of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct TcbVersions {
    /// What the signing key was derived for.
    pub reported: Tcb,
    /// What the platform can't be rolled back behind.
    pub committed: Tcb,
    /// What runs now.
    pub current: Tcb,
    /// What ran when the guest was launched.
    pub launch: Tcb,
}

/// How a check went. There is no third: what fails ends the appraisal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Made, and passed.
    Passed,
    /// Not made: the reader must not take it for made.
    NotChecked,
}

/// A check and what it looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CheckRecord {
    /// Its name.
    pub check: &'static str,
    /// How it went.
    pub outcome: Outcome,
    /// What it looked at.
    pub value: String,
}

/// What is known about evidence that passed all checks that need no policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Kind of TEE.
    pub tee: TeeKind,
    /// Whose root.
    pub trust: Trust,
    /// Processor.
    pub product: Product,
    /// Version of the report.
    pub report_version: u32,
    /// Which kind of key signed.
    pub signing_key: SigningKey,
    /// Cloud provider that a VLEK was made for.
    pub csp_id: Option<String>,
    /// The chip, hexadecimal; zero under a VLEK if the platform masks it.
    #[serde(serialize_with = "hex_string")]
    pub chip_id: [u8; 64],
    /// The launch digest.
    #[serde(serialize_with = "hex_string")]
    pub measurement: [u8; 48],
    /// SHA-256 of the init-data.
    #[serde(serialize_with = "hex_string")]
    pub host_data: [u8; 32],
    /// What the report is bound to.
    #[serde(serialize_with = "hex_string")]
    pub report_data: [u8; 64],
    /// This guest instance.
    #[serde(serialize_with = "hex_string")]
    pub report_id: [u8; 32],
    /// TCB versions.
    pub tcb: TcbVersions,
    /// Firmware that runs now.
    pub firmware: FirmwareVersion,
    /// Policy that the guest was launched with, and what its bits mean.
    pub policy: PolicyBits,
    /// Platform info as in the report.
    pub platform_info: u64,
    /// The firmware found no aliased memory.
    pub alias_check: bool,
    /// Privilege level that asked.
    pub vmpl: u32,
    /// Security version of the guest.
    pub guest_svn: u32,
    /// Key that signed the ID block; zero if there was none.
    #[serde(serialize_with = "hex_string")]
    pub id_key_digest: [u8; 48],
    /// Key that certified that one; `None` if the launch had none.
    #[serde(serialize_with = "optional_hex_string")]
    pub author_key_digest: Option<[u8; 48]>,
    /// Every check, in the order in which it was made.
    pub checks: Vec<CheckRecord>,
}

/// The guest policy for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct PolicyBits {
    /// As in the report.
    pub bits: u64,
    /// The host may read and write guest memory.
    pub debug: bool,
    /// A migration agent may export the guest.
    pub migrate_ma: bool,
    /// May run where SMT is on.
    pub smt: bool,
    /// Runs on one socket only.
    pub single_socket: bool,
}

fn hex_string<S: Serializer>(bytes: &impl AsRef<[u8]>, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(&hex::encode(bytes))
}

#[expect(clippy::ref_option, reason = "serde passes fields by reference")]
fn optional_hex_string<S: Serializer>(bytes: &Option<[u8; 48]>, s: S) -> Result<S::Ok, S::Error> {
    bytes.map(hex::encode).serialize(s)
}

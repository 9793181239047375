//! Release policy: which evidence a lineage's keys are released to. TOML for people, JSON inside the
//! signed statement; the same fields in both.

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

use super::StatementError;
use super::statement::number;
use crate::name;

const MAX_LAUNCH_DIGESTS: usize = 256;

/// A lineage's release policy. What it doesn't allow is refused.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleasePolicy {
    /// Revisions below it get no key.
    pub minimum_revision: u64,
    /// Kinds of TEE, at least one.
    pub tee: Vec<PolicyTee>,
    /// Launch digests with names, at least one.
    pub launch_digest: Vec<LaunchDigest>,
    /// What an SNP report has to show; needed where `tee` names SNP or its emulation.
    pub snp: SnpPolicy,
    /// How many releases.
    #[serde(default)]
    pub releases: Releases,
}

/// A kind of TEE in a policy. Emulated evidence never matches `snp`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyTee {
    /// SEV-SNP under AMD's roots.
    Snp,
    /// SNP evidence under a root that the broker's configuration names: tests and demo.
    SnpEmulated,
}

impl PolicyTee {
    /// The name in a policy.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Snp => "snp",
            Self::SnpEmulated => "snp-emulated",
        }
    }
}

/// One allowed launch.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LaunchDigest {
    /// For people; unique in its policy.
    pub name: String,
    /// 96 lower-case hex digits.
    pub digest: String,
}

/// What an SNP report has to show.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnpPolicy {
    /// Per component, for the reported, committed and launch TCB.
    pub minimum_tcb: MinimumTcb,
    /// Accept guests that the host may debug.
    #[serde(default)]
    pub allow_debug: bool,
    /// Accept guests with a migration agent.
    #[serde(default)]
    pub allow_migrate_ma: bool,
    /// Accept guests that may run on SMT siblings.
    #[serde(default = "yes")]
    pub allow_smt: bool,
    /// The privilege level that the report was asked for at, 0 to 3.
    #[serde(default)]
    pub vmpl: u8,
}

fn yes() -> bool {
    true
}

/// Lowest version of each TCB component, compared one by one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MinimumTcb {
    /// Boot loader of the AMD-SP.
    pub bootloader: u8,
    /// AMD-SP operating system.
    pub tee: u8,
    /// SNP firmware.
    pub snp: u8,
    /// Microcode.
    pub microcode: u8,
    /// FMC, which only Turin and later have; without it, no FMC version is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fmc: Option<u8>,
}

/// How often a key is released.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Releases {
    /// To each guest that matches.
    #[default]
    Unlimited,
}

impl ReleasePolicy {
    /// Reads the TOML form and validates it.
    pub fn from_toml(text: &str) -> Result<Self, PolicyError> {
        let policy: Self = toml::from_str(text).map_err(PolicyError::Toml)?;
        policy.validate().map_err(PolicyError::Value)?;
        Ok(policy)
    }

    /// The TOML form.
    pub fn to_toml(&self) -> Result<String, PolicyError> {
        toml::to_string_pretty(self).map_err(PolicyError::Write)
    }

    /// Refuses what would match nothing, or everything.
    pub fn validate(&self) -> Result<(), StatementError> {
        let wrong = |field, problem| Err(StatementError::Value { field, problem });
        number("minimum_revision", self.minimum_revision)?;
        if self.tee.is_empty() {
            return wrong("tee", "must name at least one kind");
        }
        if self.tee.iter().collect::<BTreeSet<_>>().len() != self.tee.len() {
            return wrong("tee", "names a kind twice");
        }
        if self.launch_digest.is_empty() || self.launch_digest.len() > MAX_LAUNCH_DIGESTS {
            return wrong("launch_digest", "must hold 1 to 256 entries; run 'sealpod measure'");
        }
        let mut names = BTreeSet::new();
        for LaunchDigest { name, digest } in &self.launch_digest {
            name::launch_digest(digest)?;
            if name.is_empty() || name.len() > 128 || !name.bytes().all(|b| b.is_ascii_graphic()) {
                return wrong("launch_digest.name", "must be 1 to 128 printable characters without spaces");
            }
            if !names.insert(name) {
                return wrong("launch_digest.name", "is used twice");
            }
        }
        if self.snp.vmpl > 3 {
            return wrong("snp.vmpl", "must be 0 to 3");
        }
        Ok(())
    }
}

/// Why a policy file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// Not TOML with these fields.
    #[error("release policy can't be read")]
    Toml(#[source] toml::de::Error),
    /// A value breaks a rule.
    #[error("release policy")]
    Value(#[source] StatementError),
    /// Writing failed.
    #[error("release policy can't be written as TOML")]
    Write(#[source] toml::ser::Error),
}

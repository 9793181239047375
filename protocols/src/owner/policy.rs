//! Release policy: which evidence a lineage's keys are released to. TOML for people, JSON inside the
//! signed statement; the same fields in both.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

use super::StatementError;
use super::statement::number;
use crate::name;

const MAX_LAUNCH_DIGESTS: usize = 256;
const MAX_LIST: usize = 256;

/// A lineage's release policy. What it doesn't allow is refused.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleasePolicy {
    /// Revisions below it get no key.
    pub minimum_revision: u64,
    /// Kinds of TEE, at least one.
    pub tee: Vec<PolicyTee>,
    /// Launch digests with names, at least one for each family of TEEs that reports one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub launch_digest: Vec<LaunchDigest>,
    /// What an SNP report has to show; there exactly if `tee` names SNP or its emulation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snp: Option<SnpPolicy>,
    /// What a SEV or SEV-ES launch has to show; there exactly if `tee` names one of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sev: Option<SevPolicy>,
    /// What is asked of PEF guests, if `tee` names PEF.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pef: Option<PefPolicy>,
    /// How many releases.
    #[serde(default)]
    pub releases: Releases,
}

/// A kind of TEE in a policy. Emulated evidence never matches a kind without `-emulated`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyTee {
    /// SEV-SNP under AMD's roots.
    Snp,
    /// SNP evidence under a root that the broker's configuration names: tests and demo.
    SnpEmulated,
    /// SEV without encrypted registers: the host can see and change what the guest computes with.
    Sev,
    /// SEV under a configured root.
    SevEmulated,
    /// SEV-ES: registers are encrypted, memory is still not protected against being changed.
    SevEs,
    /// SEV-ES under a configured root.
    SevEsEmulated,
    /// Power PEF, by a blob whose machines the owner enrolled.
    Pef,
    /// PEF by a blob for software TPM keys that the broker's configuration names.
    PefEmulated,
}

impl PolicyTee {
    /// Every kind.
    pub const ALL: [Self; 8] = [
        Self::Snp,
        Self::SnpEmulated,
        Self::Sev,
        Self::SevEmulated,
        Self::SevEs,
        Self::SevEsEmulated,
        Self::Pef,
        Self::PefEmulated,
    ];

    /// The name in a policy.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Snp => "snp",
            Self::SnpEmulated => "snp-emulated",
            Self::Sev => "sev",
            Self::SevEmulated => "sev-emulated",
            Self::SevEs => "sev-es",
            Self::SevEsEmulated => "sev-es-emulated",
            Self::Pef => "pef",
            Self::PefEmulated => "pef-emulated",
        }
    }

    /// Proves nothing about a machine.
    pub const fn is_emulated(self) -> bool {
        matches!(self, Self::SnpEmulated | Self::SevEmulated | Self::SevEsEmulated | Self::PefEmulated)
    }

    /// SNP, emulated or not.
    pub const fn is_snp(self) -> bool {
        matches!(self, Self::Snp | Self::SnpEmulated)
    }

    /// SEV or SEV-ES, emulated or not.
    pub const fn is_sev(self) -> bool {
        matches!(self, Self::Sev | Self::SevEmulated | Self::SevEs | Self::SevEsEmulated)
    }

    /// PEF, emulated or not.
    pub const fn is_pef(self) -> bool {
        matches!(self, Self::Pef | Self::PefEmulated)
    }
}

/// One allowed launch.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LaunchDigest {
    /// For people; unique in its policy.
    pub name: String,
    /// Lower-case hex digits: 96 for SNP, 64 for SEV and SEV-ES.
    pub digest: String,
}

/// What an SNP report has to show.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnpPolicy {
    /// Per component, for the reported, committed and launch TCB, of every product; counts only where
    /// `products` is empty.
    pub minimum_tcb: MinimumTcb,
    /// The same for one line of processors: their version numbers have nothing to do with each other. A line
    /// that isn't there is held to its product's first line (Genoa for Bergamo), if that is.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub products: BTreeMap<SnpProduct, MinimumTcb>,
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
    /// Processors that are not accepted: one line by its name, a product with all its lines by the name of its
    /// first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub denied_products: Vec<SnpProduct>,
    /// Chips that are not accepted: 128 hex digits each, Turin's with zeros at the end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub denied_chips: Vec<String>,
    /// Cloud providers whose VLEKs are accepted. None: only reports signed by the chip's own key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub vlek_csp_ids: Vec<String>,
    /// If not empty, one of these keys signed the ID block: 96 hex digits, SHA-384 of the key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub id_key_digests: Vec<String>,
    /// If not empty, one of these keys certified the ID key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub author_key_digests: Vec<String>,
    /// Lowest security version in the ID block; needs one of the two lists.
    #[serde(default, skip_serializing_if = "zero32")]
    pub minimum_guest_svn: u32,
    /// The platform must have checked its memory for aliases (BadRAM, CVE-2024-21944).
    #[serde(default)]
    pub require_alias_check: bool,
    /// Bits that the launch and current mitigation vectors of version 5 reports must both have.
    #[serde(default, skip_serializing_if = "zero64")]
    pub required_mitigations: u64,
    /// The guest's policy must keep it on one socket.
    #[serde(default)]
    pub require_single_socket: bool,
    /// The guest's policy must demand that ciphertexts are hidden from the host.
    #[serde(default)]
    pub require_ciphertext_hiding: bool,
    /// The guest's policy must demand that power readings are off.
    #[serde(default)]
    pub require_rapl_disabled: bool,
}

fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
fn zero32(number: &u32) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
fn zero64(number: &u64) -> bool {
    *number == 0
}

impl SnpPolicy {
    /// These minima, nothing that weakens a guest except SMT, VMPL 0, the chip's own key.
    pub fn new(minimum_tcb: MinimumTcb) -> Self {
        Self {
            minimum_tcb,
            products: BTreeMap::new(),
            allow_debug: false,
            allow_migrate_ma: false,
            allow_smt: true,
            vmpl: 0,
            denied_products: Vec::new(),
            denied_chips: Vec::new(),
            vlek_csp_ids: Vec::new(),
            id_key_digests: Vec::new(),
            author_key_digests: Vec::new(),
            minimum_guest_svn: 0,
            require_alias_check: false,
            required_mitigations: 0,
            require_single_socket: false,
            require_ciphertext_hiding: false,
            require_rapl_disabled: false,
        }
    }

    fn validate(&self) -> Result<(), StatementError> {
        if self.vmpl > 3 {
            return wrong("snp.vmpl", "must be 0 to 3");
        }
        if self.required_mitigations >= 1 << 53 {
            return wrong("snp.required_mitigations", "must be below 2^53");
        }
        list("snp.denied_chips", &self.denied_chips, |chip| lower_hex(chip, 128))?;
        list("snp.id_key_digests", &self.id_key_digests, |digest| lower_hex(digest, 96))?;
        list("snp.author_key_digests", &self.author_key_digests, |digest| lower_hex(digest, 96))?;
        list("snp.vlek_csp_ids", &self.vlek_csp_ids, |id| {
            !id.is_empty() && id.len() <= 128 && id.bytes().all(|b| b.is_ascii_graphic())
        })?;
        let signed = !self.id_key_digests.is_empty() || !self.author_key_digests.is_empty();
        if self.minimum_guest_svn > 0 && !signed {
            return wrong(
                "snp.minimum_guest_svn",
                "needs id_key_digests or author_key_digests: without a signed ID block the host picks it",
            );
        }
        Ok(())
    }
}

/// A line of SNP processors: those whose microcode is counted alike.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SnpProduct {
    /// EPYC 7003.
    Milan,
    /// EPYC 7003 with stacked cache.
    MilanX,
    /// EPYC 9004.
    Genoa,
    /// EPYC 9004 with stacked cache.
    GenoaX,
    /// EPYC 97x4 and 8004.
    Bergamo,
    /// EPYC 9005.
    Turin,
    /// EPYC 9005 with dense cores.
    TurinDense,
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

/// What a SEV or SEV-ES launch has to show. The guest's own policy is always the strictest there is: no
/// debugging, no key sharing, no sending.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SevPolicy {
    /// Lowest API version of the firmware, as in "1.51".
    pub minimum_api: ApiVersion,
    /// Lowest build of a firmware with exactly that API version.
    #[serde(default)]
    pub minimum_build: u8,
    /// What is injected into the guest.
    #[serde(default)]
    pub secret: SevSecret,
    /// Products that are not accepted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub denied_products: Vec<SevProduct>,
    /// Chips that are not accepted, whose keys got out for one: `chip` in their verdicts, 64 hex digits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub denied_chips: Vec<String>,
}

impl SevPolicy {
    /// These minima, a connection's key, and no product or chip denied.
    pub fn new(minimum_api: ApiVersion, minimum_build: u8) -> Self {
        let (secret, denied_products, denied_chips) = Default::default();
        Self { minimum_api, minimum_build, secret, denied_products, denied_chips }
    }
}

/// A product with SEV, by the name of its root.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SevProduct {
    /// EPYC 7001.
    Naples,
    /// EPYC 7002.
    Rome,
    /// EPYC 7003.
    Milan,
    /// EPYC 9004 and 8004.
    Genoa,
    /// EPYC 9005.
    Turin,
}

/// A SEV firmware's API version. Written "major.minor".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ApiVersion {
    /// Major.
    pub major: u8,
    /// Minor.
    pub minor: u8,
}

impl TryFrom<String> for ApiVersion {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        const FORM: &str = "an API version is written as in '1.51'";
        let (major, minor) = text.split_once('.').ok_or(FORM)?;
        let version =
            Self { major: major.parse().map_err(|_| FORM)?, minor: minor.parse().map_err(|_| FORM)? };
        // One version has one form.
        if String::from(version) == text { Ok(version) } else { Err(FORM) }
    }
}

impl From<ApiVersion> for String {
    fn from(version: ApiVersion) -> Self {
        format!("{}.{}", version.major, version.minor)
    }
}

/// What a SEV guest gets by injection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SevSecret {
    /// A key to prove itself to the broker with, which then releases spec key and resources.
    #[default]
    Connection,
    /// The spec key itself: the guest needs no broker, and gets no resources.
    Bundle,
}

/// What is asked of PEF guests.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PefPolicy {
    /// Release keys with limited releases to PEF guests as well, though one blob can boot any number of VMs
    /// and nothing tells them apart.
    #[serde(default)]
    pub allow_limited_releases: bool,
    /// If not empty, blobs that any other machine can open don't count: SHA-256 of each machine's key file,
    /// 64 hex digits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub machines: Vec<String>,
}

/// How often a key is released. Asking again with the same attested key is the same release.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Releases {
    /// To each guest that matches.
    #[default]
    Unlimited,
    /// To one guest, ever.
    Once,
    /// To so many guests within so much time.
    #[serde(untagged)]
    Window(ReleaseWindow),
}

/// A number of releases in a sliding window of time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleaseWindow {
    /// Guests.
    pub count: u32,
    /// Length of the window, in seconds.
    pub seconds: u32,
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
        number("minimum_revision", self.minimum_revision)?;
        if self.tee.is_empty() {
            return wrong("tee", "must name at least one kind");
        }
        if self.tee.iter().collect::<BTreeSet<_>>().len() != self.tee.len() {
            return wrong("tee", "names a kind twice");
        }
        let names = |family: fn(PolicyTee) -> bool| self.tee.iter().any(|tee| family(*tee));
        if names(PolicyTee::is_snp) != self.snp.is_some() {
            return wrong("snp", "must be there if 'tee' names snp or snp-emulated, and only then");
        }
        if names(PolicyTee::is_sev) != self.sev.is_some() {
            return wrong("sev", "must be there if 'tee' names sev or sev-es, and only then");
        }
        if self.pef.is_some() && !names(PolicyTee::is_pef) {
            return wrong("pef", "must be there only if 'tee' names pef");
        }
        self.snp.as_ref().map_or(Ok(()), SnpPolicy::validate)?;
        let machines = self.pef.iter().flat_map(|pef| &pef.machines).cloned().collect::<Vec<_>>();
        list("pef.machines", &machines, |digest| lower_hex(digest, 64))?;
        if let Some(sev) = &self.sev {
            list("sev.denied_chips", &sev.denied_chips, |chip| lower_hex(chip, 64))?;
        }
        self.validate_digests(names(PolicyTee::is_snp), names(PolicyTee::is_sev))?;
        if let Releases::Window(ReleaseWindow { count, seconds }) = self.releases
            && (count == 0 || seconds == 0)
        {
            return wrong("releases", "needs a count and seconds of at least 1");
        }
        if self.releases != Releases::Unlimited
            && names(PolicyTee::is_pef)
            && !self.pef.as_ref().is_some_and(|pef| pef.allow_limited_releases)
        {
            return wrong(
                "releases",
                "can't be limited for PEF, whose guests can't be told apart, unless pef.allow_limited_releases says so",
            );
        }
        Ok(())
    }

    fn validate_digests(&self, snp: bool, sev: bool) -> Result<(), StatementError> {
        if self.launch_digest.len() > MAX_LAUNCH_DIGESTS {
            return wrong("launch_digest", "must hold at most 256 entries");
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
        for (named, digits) in [(snp, 96), (sev, 64)] {
            if named != self.launch_digest.iter().any(|launch| launch.digest.len() == digits) {
                return wrong(
                    "launch_digest",
                    "must hold digests for SNP (96 digits) and for SEV (64) exactly if 'tee' names them; run 'sealpod measure'",
                );
            }
        }
        Ok(())
    }
}

fn wrong(field: &'static str, problem: &'static str) -> Result<(), StatementError> {
    Err(StatementError::Value { field, problem })
}

fn list(field: &'static str, values: &[String], good: impl Fn(&str) -> bool) -> Result<(), StatementError> {
    if values.len() > MAX_LIST {
        return wrong(field, "must hold at most 256 entries");
    }
    if values.iter().all(|value| good(value)) { Ok(()) } else { wrong(field, "holds a malformed entry") }
}

fn lower_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
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

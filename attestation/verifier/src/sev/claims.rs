//! What a launch of SEV or SEV-ES says, and what a policy demands of it.

use serde::{Deserialize, Serialize};
use tee_evidence::sev::{FirmwareApi, Policy};

use crate::verdict::hex_string;

/// A processor whose root is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
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
    /// None: the root is a configured one.
    Emulated,
}

impl SevProduct {
    /// The name in verdicts.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Naples => "naples",
            Self::Rome => "rome",
            Self::Milan => "milan",
            Self::Genoa => "genoa",
            Self::Turin => "turin",
            Self::Emulated => "emulated",
        }
    }
}

/// What a launch says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SevClaims {
    /// Processor.
    pub product: SevProduct,
    /// The chip: SHA-256 of its CEK certificate's signed part, hexadecimal.
    #[serde(serialize_with = "hex_string")]
    pub chip: [u8; 32],
    /// API version of the firmware that launched the guest.
    #[serde(serialize_with = "api")]
    pub api: FirmwareApi,
    /// Its build.
    pub build: u8,
    /// Policy that the guest was launched with, and what its bits mean.
    pub policy: SevPolicyBits,
    /// The launch digest.
    #[serde(serialize_with = "hex_string")]
    pub measurement: [u8; 32],
    /// The launch session: its nonce.
    #[serde(serialize_with = "hex_string")]
    pub session: [u8; 16],
    /// Why this is less than SEV-SNP.
    pub weaknesses: &'static str,
}

/// The guest policy for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct SevPolicyBits {
    /// As launched.
    pub bits: u32,
    /// The host may read and write guest memory.
    pub debug: bool,
    /// Other guests may share the key.
    pub key_sharing: bool,
    /// Registers are encrypted.
    pub es: bool,
    /// The guest may be sent to another platform.
    pub send: bool,
}

impl SevPolicyBits {
    pub(crate) const fn new(policy: Policy) -> Self {
        Self {
            bits: policy.0,
            debug: !policy.has(Policy::NODBG),
            key_sharing: !policy.has(Policy::NOKS),
            es: policy.es(),
            send: !policy.has(Policy::NOSEND),
        }
    }
}

/// What a policy demands of SEV and SEV-ES guests.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SevReference {
    /// Lowest API version of the firmware.
    pub minimum_api: FirmwareApi,
    /// Lowest build of a firmware that has exactly that API version.
    pub minimum_build: u8,
    /// Bits of the guest policy ([`Policy`]) that must be set; [`super::STRICT`] is what sessions are made with.
    pub required_bits: u32,
    /// Products that are not trusted any more.
    pub denied_products: Vec<SevProduct>,
    /// Chips that are not trusted any more: SHA-256 of the CEK certificate's signed part.
    pub denied_chips: Vec<[u8; 32]>,
}

/// What SEV (or SEV-ES) lacks of SEV-SNP: said in each verdict, so that nobody takes it for more.
pub const fn weaknesses(es: bool) -> &'static str {
    if es {
        "the host can replay, remap and corrupt guest memory (CVE-2021-26311, CVE-2020-12967)"
    } else {
        "the host can replay, remap and corrupt guest memory (CVE-2021-26311, CVE-2020-12967) and reads and \
         writes guest registers"
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
fn api<S: serde::Serializer>(api: &FirmwareApi, s: S) -> Result<S::Ok, S::Error> {
    s.collect_str(api)
}

//! What tokens say: an EAT attestation result (draft-ietf-rats-ear) as Trustee writes it.

use protocols::rcar::Jwk;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use verifier::{TeeKind, Trust, Verdict};

use super::Claims;

/// The profile's name.
pub(crate) const PROFILE: &str = "tag:github.com,2023:veraison/ear";

/// A token's payload.
#[derive(Serialize)]
pub(super) struct Issued<'a> {
    pub(super) aud: &'a [String],
    pub(super) eat_profile: &'static str,
    #[serde(rename = "ear.verifier-id")]
    pub(super) verifier: Verifier,
    pub(super) exp: u64,
    pub(super) iat: u64,
    pub(super) iss: &'a str,
    pub(super) jti: String,
    pub(super) nbf: u64,
    pub(super) submods: Submods<'a>,
}

#[derive(Serialize)]
pub(super) struct Verifier {
    developer: &'static str,
    build: &'static str,
}

impl Verifier {
    pub(super) const THIS: Self =
        Self { developer: "sealpod", build: concat!("sealpod-broker ", env!("CARGO_PKG_VERSION")) };
}

#[derive(Serialize)]
pub(super) struct Submods<'a> {
    cpu0: Submodule<'a>,
}

impl<'a> Submods<'a> {
    pub(super) fn of(claims: &'a Claims<'a>) -> Self {
        Self { cpu0: Submodule::of(claims) }
    }
}

/// The appraisal of the one attester there is. Only what was checked is claimed: which launch digests are
/// good is each lineage's release policy, so nothing is said about executables.
#[derive(Serialize)]
struct Submodule<'a> {
    #[serde(rename = "ear.status")]
    status: &'static str,
    #[serde(rename = "ear.trustworthiness-vector")]
    vector: Vector,
    #[serde(rename = "ear.appraisal-policy-id")]
    policy: &'static str,
    #[serde(rename = "ear.veraison.annotated-evidence")]
    evidence: Annotated<'a>,
}

/// AR4SI (draft-ietf-rats-ar4si) section 2.3: 2 affirming, 0 no claim, 32 hardware with known weaknesses, 97
/// hardware or instance not recognised.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Vector {
    instance_identity: i8,
    configuration: i8,
    executables: i8,
    file_system: i8,
    hardware: i8,
    runtime_opaque: i8,
    storage_opaque: i8,
    sourced_data: i8,
}

impl<'a> Submodule<'a> {
    fn of(claims: &'a Claims<'a>) -> Self {
        let (status, instance_identity, hardware) = assurance(claims.verdict);
        let vector = Vector {
            instance_identity,
            configuration: 0,
            executables: 0,
            file_system: 0,
            hardware,
            runtime_opaque: 0,
            storage_opaque: 0,
            sourced_data: 0,
        };
        Self { status, vector, policy: "sealpod:authenticity", evidence: Annotated(claims) }
    }
}

/// Status, instance and hardware for third parties, who don't know this broker's owners: that an owner enrolled a
/// machine is that owner's word, and says nothing to anyone else.
fn assurance(verdict: &Verdict) -> (&'static str, i8, i8) {
    match (verdict.tee, &verdict.trust) {
        (TeeKind::Snp, Trust::Amd) => ("none", 2, 2),
        (TeeKind::Sev | TeeKind::SevEs, Trust::Amd) => ("warning", 2, 32),
        (TeeKind::Pef, Trust::Enrolled { .. }) => ("none", 0, 0),
        _ => ("contraindicated", 97, 97),
    }
}

struct Annotated<'a>(&'a Claims<'a>);

impl Serialize for Annotated<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(rename_all = "kebab-case")]
        struct RuntimeData<'a> {
            nonce: &'a str,
            tee_pubkey: &'a Jwk,
        }
        let claims = self.0;
        let mut map = s.serialize_map(None)?;
        map.serialize_entry(claims.tee, claims.verdict)?;
        map.serialize_entry("report_data", &hex::encode(claims.report_data))?;
        let runtime = RuntimeData { nonce: claims.nonce, tee_pubkey: claims.tee_pubkey };
        map.serialize_entry("runtime_data_claims", &runtime)?;
        if let Some(init_data) = claims.init_data {
            map.serialize_entry("init_data", &hex::encode(init_data))?;
            map.serialize_entry("init_data_claims", &claims.init_data_claims)?;
        }
        map.end()
    }
}

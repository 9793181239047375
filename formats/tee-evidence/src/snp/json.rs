//! The JSON in which the key broker protocol carries SNP evidence: `primary_evidence` =
//! `{"attestation_report": {…}, "cert_chain": [{"cert_type", "data"}] | null}`, with the field names
//! and number arrays that stock attesters and verifiers use. Converted to and from the raw bytes.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::certs::{CertEntry, CertKind, CertificateTable};
use super::fields::{
    Cpuid, FirmwareVersion, GuestPolicy, KeyInfo, MitigationVectors, PlatformInfo, Tcb, TcbError,
};
use super::report::{RawReport, Report, ReportError, Signature};
use crate::guid::Guid;

/// Why JSON is not SNP evidence, or a report can't be written as JSON.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// Not the shape above.
    #[error("SNP evidence is not in the expected JSON form: {0}")]
    Shape(#[source] serde_json::Error),
    /// The report in it can't be one.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// A TCB version does not fit the report's product.
    #[error(transparent)]
    Tcb(#[from] TcbError),
    /// Fields that its version must have, or must not have.
    #[error("attestation report version {version} and its field '{field}' do not go together")]
    VersionField {
        /// The report's version.
        version: u32,
        /// The field there or not there.
        field: &'static str,
    },
    /// More certificates than a table can hold.
    #[error("SNP evidence carries {0} certificates or more bytes of them than a table can hold")]
    Certificates(usize),
    /// An unknown certificate type.
    #[error("certificate type '{0}' is neither a known name nor a GUID")]
    CertType(String),
}

/// SNP evidence as bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KbsEvidence {
    /// The report.
    pub report: RawReport,
    /// Certificates, as the host supplied them.
    pub certificates: Vec<CertEntry>,
}

/// Writes `primary_evidence`. No certificates become `null`.
pub fn to_kbs(report: &RawReport, certificates: &[CertEntry]) -> Result<Value, JsonError> {
    let report = Report::from_raw(report)?;
    let layout = report.tcb_layout();
    let attestation_report = JsonReport {
        version: report.version,
        guest_svn: report.guest_svn,
        policy: report.policy,
        family_id: report.family_id,
        image_id: report.image_id,
        vmpl: report.vmpl,
        sig_algo: report.signature_algo,
        current_tcb: report.current_tcb.decode(layout)?,
        plat_info: report.platform_info,
        key_info: report.key_info,
        report_data: report.report_data,
        measurement: report.measurement,
        host_data: report.host_data,
        id_key_digest: report.id_key_digest,
        author_key_digest: report.author_key_digest,
        report_id: report.report_id,
        report_id_ma: report.report_id_ma,
        reported_tcb: report.reported_tcb.decode(layout)?,
        cpuid_fam_id: report.cpuid.map(|cpuid| cpuid.family),
        cpuid_mod_id: report.cpuid.map(|cpuid| cpuid.model),
        cpuid_step: report.cpuid.map(|cpuid| cpuid.stepping),
        chip_id: report.chip_id,
        committed_tcb: report.committed_tcb.decode(layout)?,
        current: report.current_version,
        committed: report.committed_version,
        launch_tcb: report.launch_tcb.decode(layout)?,
        launch_mit_vector: report.mitigations.map(|vectors| vectors.launch),
        current_mit_vector: report.mitigations.map(|vectors| vectors.current),
        signature: JsonSignature { r: report.signature.r, s: report.signature.s },
    };
    let cert_chain = (!certificates.is_empty()).then(|| {
        certificates
            .iter()
            .map(|entry| JsonCert { cert_type: entry.kind.into(), data: entry.data.clone() })
            .collect()
    });
    serde_json::to_value(JsonEvidence { attestation_report, cert_chain }).map_err(JsonError::Shape)
}

/// Reads `primary_evidence` back into bytes. The signature decides whether they are the signed ones;
/// what JSON can't carry (reserved bytes) is zero. `evidence` is a `&Value`, or a `&RawValue`, which spares
/// a node for each byte of it.
pub fn from_kbs<'de>(
    evidence: impl Deserializer<'de, Error = serde_json::Error>,
) -> Result<KbsEvidence, JsonError> {
    let JsonEvidence { attestation_report: json, cert_chain } =
        JsonEvidence::deserialize(evidence).map_err(JsonError::Shape)?;
    let version = json.version;
    let together = |field, wanted: bool, there: bool| {
        if wanted == there { Ok(()) } else { Err(JsonError::VersionField { version, field }) }
    };
    together("cpuid_fam_id", version >= 3, json.cpuid_fam_id.is_some())?;
    together("cpuid_mod_id", version >= 3, json.cpuid_mod_id.is_some())?;
    together("cpuid_step", version >= 3, json.cpuid_step.is_some())?;
    together("launch_mit_vector", version >= 5, json.launch_mit_vector.is_some())?;
    together("current_mit_vector", version >= 5, json.current_mit_vector.is_some())?;
    let cpuid = match (json.cpuid_fam_id, json.cpuid_mod_id, json.cpuid_step) {
        (Some(family), Some(model), Some(stepping)) => Some(Cpuid { family, model, stepping }),
        _ => None,
    };
    let mitigations = match (json.launch_mit_vector, json.current_mit_vector) {
        (Some(launch), Some(current)) => Some(MitigationVectors { launch, current }),
        _ => None,
    };
    let report = Report {
        version,
        guest_svn: json.guest_svn,
        policy: json.policy,
        family_id: json.family_id,
        image_id: json.image_id,
        vmpl: json.vmpl,
        signature_algo: json.sig_algo,
        current_tcb: json.current_tcb.encode(),
        platform_info: json.plat_info,
        key_info: json.key_info,
        report_data: json.report_data,
        measurement: json.measurement,
        host_data: json.host_data,
        id_key_digest: json.id_key_digest,
        author_key_digest: json.author_key_digest,
        report_id: json.report_id,
        report_id_ma: json.report_id_ma,
        reported_tcb: json.reported_tcb.encode(),
        cpuid,
        chip_id: json.chip_id,
        committed_tcb: json.committed_tcb.encode(),
        current_version: json.current,
        committed_version: json.committed,
        launch_tcb: json.launch_tcb.encode(),
        mitigations,
        signature: Signature { r: json.signature.r, s: json.signature.s },
    }
    .encode();
    // Refuses versions that we can't read, as for raw bytes.
    Report::from_raw(&report)?;
    let chain = cert_chain.unwrap_or_default();
    let bytes = chain.iter().fold(0usize, |sum, cert| sum.saturating_add(cert.data.len()));
    if chain.len() > CertificateTable::MAX_ENTRIES || bytes > CertificateTable::MAX_BYTES {
        return Err(JsonError::Certificates(chain.len()));
    }
    let certificates = chain
        .into_iter()
        .map(|cert| Ok(CertEntry { kind: cert.cert_type.try_into()?, data: cert.data }))
        .collect::<Result<_, JsonError>>()?;
    Ok(KbsEvidence { report, certificates })
}

/// Unknown members are left alone: stock attesters add some over time, and nothing here depends on them.
#[derive(Serialize, Deserialize)]
struct JsonEvidence {
    attestation_report: JsonReport,
    cert_chain: Option<Vec<JsonCert>>,
}

/// An unknown field would be signed bytes that we leave out, so it is an error.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonReport {
    version: u32,
    guest_svn: u32,
    policy: GuestPolicy,
    family_id: [u8; 16],
    image_id: [u8; 16],
    vmpl: u32,
    sig_algo: u32,
    current_tcb: Tcb,
    plat_info: PlatformInfo,
    key_info: KeyInfo,
    #[serde(with = "numbers")]
    report_data: [u8; 64],
    #[serde(with = "numbers")]
    measurement: [u8; 48],
    host_data: [u8; 32],
    #[serde(with = "numbers")]
    id_key_digest: [u8; 48],
    #[serde(with = "numbers")]
    author_key_digest: [u8; 48],
    report_id: [u8; 32],
    report_id_ma: [u8; 32],
    reported_tcb: Tcb,
    cpuid_fam_id: Option<u8>,
    cpuid_mod_id: Option<u8>,
    cpuid_step: Option<u8>,
    #[serde(with = "numbers")]
    chip_id: [u8; 64],
    committed_tcb: Tcb,
    current: FirmwareVersion,
    committed: FirmwareVersion,
    launch_tcb: Tcb,
    launch_mit_vector: Option<u64>,
    current_mit_vector: Option<u64>,
    signature: JsonSignature,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonSignature {
    #[serde(with = "numbers")]
    r: [u8; 72],
    #[serde(with = "numbers")]
    s: [u8; 72],
}

#[derive(Serialize, Deserialize)]
struct JsonCert {
    cert_type: JsonCertType,
    data: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
enum JsonCertType {
    Empty,
    #[serde(rename = "ARK")]
    Ark,
    #[serde(rename = "ASK")]
    Ask,
    #[serde(rename = "VCEK")]
    Vcek,
    #[serde(rename = "VLEK")]
    Vlek,
    #[serde(rename = "CRL")]
    Crl,
    #[serde(rename = "OTHER")]
    Other(String),
}

impl From<CertKind> for JsonCertType {
    fn from(kind: CertKind) -> Self {
        match kind {
            CertKind::Ark => Self::Ark,
            CertKind::Ask => Self::Ask,
            CertKind::Vcek => Self::Vcek,
            CertKind::Vlek => Self::Vlek,
            CertKind::Crl => Self::Crl,
            CertKind::Other(guid) => Self::Other(guid.to_string()),
        }
    }
}

impl TryFrom<JsonCertType> for CertKind {
    type Error = JsonError;

    fn try_from(json: JsonCertType) -> Result<Self, JsonError> {
        Ok(match json {
            JsonCertType::Empty => Self::Other(Guid::ZERO),
            JsonCertType::Ark => Self::Ark,
            JsonCertType::Ask => Self::Ask,
            JsonCertType::Vcek => Self::Vcek,
            JsonCertType::Vlek => Self::Vlek,
            JsonCertType::Crl => Self::Crl,
            JsonCertType::Other(text) => {
                Guid::parse(&text).map(Self::from_guid).ok_or(JsonError::CertType(text))?
            }
        })
    }
}

/// Byte arrays of any length as arrays of numbers; serde itself stops at 32.
mod numbers {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer, const N: usize>(bytes: &[u8; N], s: S) -> Result<S::Ok, S::Error> {
        bytes.as_slice().serialize(s)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>, const N: usize>(d: D) -> Result<[u8; N], D::Error> {
        let bytes = Vec::<u8>::deserialize(d)?;
        let len = bytes.len();
        bytes.try_into().map_err(|_| D::Error::custom(format_args!("{len} bytes where {N} are expected")))
    }
}

#[cfg(test)]
mod tests;

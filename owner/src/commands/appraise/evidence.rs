//! What a file of evidence is: told by its length and its members' names, never by the file's name.

use anyhow::{Context as _, Result, bail};
use protocols::rcar::{AttestRequest, binding, report_data};
use sealed_spec::initdata;
use serde_json::Value;
use tee_evidence::snp::{CertEntry, RawReport, json};

/// Evidence of one of the kinds that can be appraised offline. Another TEE's is a variant here, a module
/// beside [`super::snp`], and a line in [`super::appraise`].
pub(super) enum Evidence {
    /// SEV-SNP.
    Snp(Snp),
}

/// A report and what came with it.
pub(super) struct Snp {
    pub(super) report: Vec<u8>,
    pub(super) certificates: Vec<CertEntry>,
}

/// Evidence, and what a whole body says that it is bound to.
pub(super) struct Given {
    pub(super) evidence: Evidence,
    pub(super) report_data: Option<[u8; 64]>,
    pub(super) init_data: Option<[u8; 32]>,
}

/// Tells what the bytes are and reads them.
pub(super) fn read(bytes: &[u8]) -> Result<Given> {
    if bytes.first() != Some(&b'{') {
        if bytes.len() != RawReport::LEN {
            bail!(
                "neither an SNP report ({} bytes), nor evidence or an /attest body as JSON; it has {} bytes",
                RawReport::LEN,
                bytes.len()
            );
        }
        let evidence = Evidence::Snp(Snp { report: bytes.to_vec(), certificates: Vec::new() });
        return Ok(Given { evidence, report_data: None, init_data: None });
    }
    let value: Value = serde_json::from_slice(bytes).context("JSON")?;
    if value.get("tee-evidence").is_none() {
        return Ok(Given { evidence: primary(&value)?, report_data: None, init_data: None });
    }
    let body: AttestRequest = serde_json::from_value(value).context("/attest body")?;
    let (runtime, tee) = (&body.runtime_data, &body.tee_evidence);
    let bound = report_data(&binding(&runtime.nonce, &runtime.tee_pubkey, &tee.additional_evidence));
    // As for the broker: a body without initdata has to come from a guest without any.
    let init_data = body.init_data.as_ref().map_or([0; 32], |body| initdata::digest(body.body.as_bytes()));
    Ok(Given {
        evidence: primary(&tee.primary_evidence)?,
        report_data: Some(bound),
        init_data: Some(init_data),
    })
}

fn primary(value: &Value) -> Result<Evidence> {
    let has = |name| value.get(name).is_some();
    if has("attestation_report") {
        let json::KbsEvidence { report, certificates } = json::from_kbs(value)?;
        return Ok(Evidence::Snp(Snp { report: report.as_bytes().to_vec(), certificates }));
    }
    if has("connection") {
        bail!("evidence of a SEV guest: only the broker that made its launch session can appraise it");
    }
    if has("blob") {
        bail!("evidence of a PEF guest: only the broker that its blob is enrolled at can appraise it");
    }
    if has("svn") && has("report_data") {
        bail!("sample evidence: anybody can make it, so there is nothing to appraise");
    }
    bail!("JSON that is no evidence of a known kind: it has neither 'attestation_report' nor 'tee-evidence'")
}

//! SEV-SNP, by the verifier that the broker uses.

use tee_evidence::snp::RawReport;
use verifier::snp::{Evidence, pile};
use verifier::{Denial, Verdict};

use super::Means;
use super::evidence::Snp;

pub(super) fn appraise(evidence: &Snp, means: &Means) -> Result<Verdict, Denial> {
    // What the caller named comes first: of two that fit, it counts.
    let all: Vec<_> = means.certificates.iter().chain(&evidence.certificates).cloned().collect();
    let chain = match RawReport::from_bytes(&evidence.report) {
        Ok(report) => pile::pick(&report, &all),
        Err(_) => all,
    };
    let inspected = Evidence::parse(&evidence.report, &chain)?
        .check_signature(&means.anchors, means.revocation, means.now)?
        .inspect(means.report_data.as_ref(), means.init_data.as_ref())?;
    match &means.reference {
        Some(reference) => inspected.compare(reference),
        None => Ok(inspected.verdict().clone()),
    }
}

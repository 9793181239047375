//! SEV-SNP: a report, certificates that the guest sent along, and AMD's signature over the report.

use std::time::SystemTime;

use collateral::Completed;
use serde_json::value::RawValue;
use verifier::snp::{Evidence, KbsEvidence, Revocation, Session, from_kbs};
use verifier::{Appraised, Check, Denial};

use super::Bound;
use super::evidence::unreadable;
use crate::broker::Broker;
use crate::refused::Refused;

/// Report and certificates as they were sent.
pub(crate) struct Report(KbsEvidence);

impl Report {
    pub(super) fn parse(evidence: &RawValue) -> Result<Self, Refused> {
        from_kbs(evidence).map(Self).map_err(|error| unreadable(&error))
    }

    pub(super) async fn appraise(
        self,
        broker: &Broker,
        bound: &Bound,
        now: SystemTime,
    ) -> Result<Appraised, Refused> {
        let Self(bytes) = self;
        // Without initdata the report has to say so: zeros.
        let session =
            Session { report_data: bound.report_data, host_data: bound.init_data.unwrap_or_default() };
        // What came with the report is the host's word; what the broker has of AMD's counts before it.
        let collateral = broker
            .collateral()
            .complete(&bytes.report, bytes.certificates, now, broker.collateral_wait())
            .await;
        Evidence::parse(bytes.report.as_bytes(), &collateral.certificates)
            .and_then(|evidence| evidence.check_signature(broker.anchors(), Revocation::Required, now))
            .and_then(|checked| checked.appraise(&session))
            .map_err(|denial| explained(denial, &collateral))
    }
}

/// Where collateral is what is wrong: what is missing, why, and what to do. Addresses are for the log.
fn explained(mut denial: Denial, collateral: &Completed) -> Refused {
    let (Check::Collateral, Some(missing)) = (denial.check, collateral.explain()) else {
        return denial.into();
    };
    denial.detail = format!("{}; {missing}", denial.detail);
    let refused = Refused::from(denial);
    match collateral.detail() {
        Some(detail) => refused.because(detail),
        None => refused,
    }
}

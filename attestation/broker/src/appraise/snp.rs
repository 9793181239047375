//! SEV-SNP: a report, certificates that the guest sent along, and AMD's signature over the report.

use std::time::SystemTime;

use serde_json::value::RawValue;
use verifier::Appraised;
use verifier::snp::{Evidence, KbsEvidence, Revocation, Session, from_kbs};

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

    #[expect(clippy::unused_async, reason = "certificates that the guest didn't send are fetched here")]
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
        let appraised = Evidence::parse(bytes.report.as_bytes(), &bytes.certificates)
            .and_then(|evidence| evidence.check_signature(broker.anchors(), Revocation::Required, now))
            .and_then(|checked| checked.appraise(&session))?;
        Ok(appraised)
    }
}

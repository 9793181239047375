//! Sample evidence, which anybody can make: accepted only where the operator's configuration says so, and
//! good for nothing but resources of the compat repository.

use base64::prelude::{BASE64_STANDARD, Engine};
use protocols::refusal::Code;
use serde::Deserialize;
use serde_json::value::RawValue;
use verifier::Appraised;

use super::Bound;
use super::evidence::unreadable;
use crate::broker::Broker;
use crate::refused::Refused;

/// Sample evidence as it was sent.
pub(crate) struct Sample {
    svn: String,
    report_data: Vec<u8>,
}

#[derive(Deserialize)]
struct Wire {
    svn: String,
    report_data: String,
}

impl Sample {
    pub(super) fn parse(evidence: &RawValue) -> Result<Self, Refused> {
        let Wire { svn, report_data } =
            serde_json::from_str(evidence.get()).map_err(|error| unreadable(&error))?;
        let report_data = BASE64_STANDARD.decode(report_data).map_err(|error| unreadable(&error))?;
        Ok(Self { svn, report_data })
    }

    pub(super) fn appraise(self, broker: &Broker, bound: &Bound) -> Result<Appraised, Refused> {
        // Asked again: a session opened before is no reason to accept what the operator doesn't.
        if !broker.accepts_sample() {
            return Err(Refused::new(
                Code::TeeKind,
                "evidence of kind 'sample' is not accepted by this broker",
            ));
        }
        Ok(verifier::sample::appraise(&self.svn, &self.report_data, &bound.report_data)?)
    }
}

//! Power PEF: proof of the key in an ESM blob that only the owner's enrolled machines open.

use std::time::SystemTime;

use protocols::pef::PefEvidence;
use protocols::refusal::Code;
use serde_json::value::RawValue;
use verifier::Appraised;

use super::Bound;
use super::evidence::unreadable;
use crate::broker::Broker;
use crate::refused::Refused;

/// The proof as it was sent.
pub(crate) struct Proof(PefEvidence);

impl Proof {
    pub(super) fn parse(evidence: &RawValue) -> Result<Self, Refused> {
        serde_json::from_str(evidence.get()).map(Self).map_err(|error| unreadable(&error))
    }

    #[expect(clippy::unused_async, reason = "blobs are rows of the database")]
    pub(super) async fn appraise(
        self,
        _broker: &Broker,
        _bound: &Bound,
        _now: SystemTime,
    ) -> Result<Appraised, Refused> {
        let Self(evidence) = self;
        let blob: String = evidence.blob.chars().take(32).collect();
        Err(Refused::new(Code::Evidence, format!("there is no blob '{blob}'")))
    }
}

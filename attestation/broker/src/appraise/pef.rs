//! Power PEF: proof of the key in an ESM blob that only the owner's enrolled machines open.

use std::time::SystemTime;

use base64::prelude::{BASE64_STANDARD, Engine};
use protocols::pef::PefEvidence;
use serde_json::value::RawValue;
use verifier::Appraised;
use verifier::pef::{Evidence, Session};

use super::Bound;
use super::evidence::unreadable;
use crate::blob;
use crate::broker::Broker;
use crate::refused::Refused;

/// The proof as it was sent.
pub(crate) struct Proof {
    blob: String,
    signature: Vec<u8>,
}

impl Proof {
    pub(super) fn parse(evidence: &RawValue) -> Result<Self, Refused> {
        let PefEvidence { blob, signature } =
            serde_json::from_str(evidence.get()).map_err(|error| unreadable(&error))?;
        let signature = BASE64_STANDARD.decode(signature).map_err(|error| unreadable(&error))?;
        Ok(Self { blob, signature })
    }

    pub(super) async fn appraise(
        self,
        broker: &Broker,
        bound: &Bound,
        _now: SystemTime,
    ) -> Result<Appraised, Refused> {
        let evidence = Evidence::parse(&self.blob, &self.signature)?;
        let enrolment = match broker.store().blob(evidence.claimed_blob()).await? {
            Some(statement) => Some(blob::enrolment(&statement)?),
            None => None,
        };
        // Without initdata or sealed spec the blob has to say so, and none does.
        let session = Session {
            report_data: bound.report_data,
            init_data: bound.init_data.unwrap_or_default(),
            sealed_spec: bound.sealed.as_ref().map(|named| *named.sealed_spec.as_bytes()).unwrap_or_default(),
        };
        let checked = evidence.check_signature(enrolment, broker.pef_anchors(), &session)?;
        Ok(checked.appraise(&session)?)
    }
}

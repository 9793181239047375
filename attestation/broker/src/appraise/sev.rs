//! SEV and SEV-ES: proof of the key that was injected into a measured launch.

use protocols::sev::ConnectionEvidence;
use serde_json::value::RawValue;
use verifier::Appraised;

use super::Bound;
use super::evidence::unreadable;
use crate::broker::Broker;
use crate::refused::Refused;
use crate::sev;

/// The proof as it was sent.
pub(crate) struct Connection(ConnectionEvidence);

impl Connection {
    pub(super) fn parse(evidence: &RawValue) -> Result<Self, Refused> {
        serde_json::from_str(evidence.get()).map(Self).map_err(|error| unreadable(&error))
    }

    pub(super) async fn appraise(self, broker: &Broker, bound: &Bound) -> Result<Appraised, Refused> {
        sev::appraise(broker, &self.0, bound).await
    }
}

//! SEV and SEV-ES: proof of the key that was injected into a measured launch.

use std::time::SystemTime;

use protocols::refusal::Code;
use protocols::sev::ConnectionEvidence;
use serde_json::value::RawValue;
use verifier::Appraised;

use super::Bound;
use super::evidence::unreadable;
use crate::broker::Broker;
use crate::refused::Refused;

/// The proof as it was sent.
pub(crate) struct Connection(ConnectionEvidence);

impl Connection {
    pub(super) fn parse(evidence: &RawValue) -> Result<Self, Refused> {
        serde_json::from_str(evidence.get()).map(Self).map_err(|error| unreadable(&error))
    }

    #[expect(clippy::unused_async, reason = "connections are rows of the database")]
    pub(super) async fn appraise(
        self,
        _broker: &Broker,
        _bound: &Bound,
        _now: SystemTime,
    ) -> Result<Appraised, Refused> {
        let Self(evidence) = self;
        let connection: String = evidence.connection.chars().take(32).collect();
        Err(Refused::new(Code::Evidence, format!("there is no connection '{connection}'")))
    }
}

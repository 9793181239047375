//! What guests send as evidence, by kind. Each kind's module takes it from there to a verdict.

use std::time::SystemTime;

use protocols::rcar::AttestRequest;
use protocols::refusal::Code;
use sealed_spec::initdata::Initdata;
use serde_json::value::RawValue;
use verifier::Appraised;

use super::{Bound, pef, sample, sev, snp};
use crate::broker::Broker;
use crate::refused::Refused;

/// A kind of evidence: what `/auth` names as `tee`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// SEV-SNP reports.
    Snp,
    /// Proof of a key that was injected into a SEV or SEV-ES guest.
    Sev,
    /// Proof of a key that a PEF guest found in its ESM blob.
    Pef,
    /// Nothing at all, for tests of the protocol.
    Sample,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Snp, Self::Sev, Self::Pef, Self::Sample];

    /// The name in the protocol.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Snp => "snp",
            Self::Sev => "sev",
            Self::Pef => "pef",
            Self::Sample => "sample",
        }
    }

    /// The kind of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Its byte in a session's id.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The kind with that byte.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }
}

/// Evidence as it was sent, in its kind's form. Nothing of it is checked.
pub(crate) enum Evidence {
    Snp(Box<snp::Report>),
    Sev(sev::Connection),
    Pef(pef::Proof),
    Sample(sample::Sample),
}

impl Evidence {
    /// Reads `primary_evidence`.
    ///
    /// # Errors
    /// [`Code::Evidence`].
    pub(crate) fn parse(kind: Kind, evidence: &RawValue) -> Result<Self, Refused> {
        match kind {
            Kind::Snp => snp::Report::parse(evidence).map(Box::new).map(Self::Snp),
            Kind::Sev => sev::Connection::parse(evidence).map(Self::Sev),
            Kind::Pef => pef::Proof::parse(evidence).map(Self::Pef),
            Kind::Sample => sample::Sample::parse(evidence).map(Self::Sample),
        }
    }

    /// Whether it is genuine, and bound to what it has to be bound to.
    ///
    /// # Errors
    /// The check that failed.
    pub(crate) async fn appraise(
        self,
        broker: &Broker,
        bound: &Bound,
        now: SystemTime,
    ) -> Result<Appraised, Refused> {
        match self {
            Self::Snp(report) => report.appraise(broker, bound, now).await,
            Self::Sev(connection) => connection.appraise(broker, bound).await,
            Self::Pef(proof) => proof.appraise(broker, bound, now).await,
            Self::Sample(sample) => sample.appraise(broker, bound),
        }
    }
}

/// Reads the body of `/attest` as far as that goes without keys: request, evidence of every kind, initdata.
/// For fuzzing: true if all of it was readable for one kind.
#[doc(hidden)]
#[must_use]
pub fn read_evidence(body: &[u8]) -> bool {
    let Ok(request) = serde_json::from_slice::<AttestRequest<Box<RawValue>>>(body) else { return false };
    if let Some(init_data) = &request.init_data
        && Initdata::parse(init_data.body.as_bytes()).is_err()
    {
        return false;
    }
    request.runtime_data.tee_pubkey.validate().is_ok()
        && Kind::ALL
            .into_iter()
            .any(|kind| Evidence::parse(kind, &request.tee_evidence.primary_evidence).is_ok())
}

/// Evidence that can't be read.
pub(super) fn unreadable(error: &dyn std::error::Error) -> Refused {
    Refused::new(Code::Evidence, error.to_string())
}

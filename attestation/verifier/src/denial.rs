//! Why a key is not released: which check failed, and one line that says what was found.

use std::fmt;

use crate::CheckRecord;

/// A check that can fail. The names are stable and are the same as the refusal codes that users see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Check {
    /// The report or a certificate can't be read.
    Evidence,
    /// A certificate is missing, or does not belong to this report.
    Collateral,
    /// The certificates do not lead to a trusted root.
    CertificateChain,
    /// The report's signature is wrong.
    Signature,
    /// The report is for another session.
    Binding,
    /// The report names other init-data.
    HostData,
    /// Genuine, but not a kind of TEE that is allowed.
    TeeKind,
    /// Firmware or microcode below the minimum.
    Tcb,
    /// The policy that the guest was launched with is too weak.
    GuestPolicy,
    /// Asked for at another privilege level.
    Vmpl,
    /// Another guest image.
    LaunchDigest,
}

impl Check {
    /// The refusal code.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Evidence => "EVIDENCE",
            Self::Collateral => "COLLATERAL",
            Self::CertificateChain => "CERTIFICATE_CHAIN",
            Self::Signature => "SIGNATURE",
            Self::Binding => "BINDING",
            Self::HostData => "HOST_DATA",
            Self::TeeKind => "TEE_KIND",
            Self::Tcb => "TCB",
            Self::GuestPolicy => "GUEST_POLICY",
            Self::Vmpl => "VMPL",
            Self::LaunchDigest => "LAUNCH_DIGEST",
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// A failed check.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{check}: {detail}")]
pub struct Denial {
    /// Which one.
    pub check: Check,
    /// What was found, and what to do where someone can do something. Holds no secrets.
    pub detail: String,
    /// Every check up to this one, this one, and those that were not reached.
    pub checks: Vec<CheckRecord>,
}

impl Denial {
    pub(crate) fn new(check: Check, detail: impl Into<String>) -> Self {
        Self { check, detail: detail.into(), checks: Vec::new() }
    }
}

/// `Err` of a [`Denial`] with a formatted detail.
macro_rules! refuse {
    ($check:ident, $($detail:tt)+) => {
        Err($crate::Denial::new($crate::Check::$check, format!($($detail)+)))
    };
}
pub(crate) use refuse;

//! What a policy said about one request.

use std::fmt;

/// The answer to one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Whether the request may go on.
    pub allowed: bool,
    /// Why not; also set where the policy lets pass what it denies.
    pub denial: Option<Denial>,
    /// What the policy printed, the last lines of it. Quotes the request: not for the host unless
    /// [`Policy::prints_for_host`](crate::Policy::prints_for_host).
    pub prints: Vec<String>,
}

/// Why a request is denied. Holds nothing of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denial {
    /// The rule says false, or is undefined.
    Rule(Option<Place>),
    /// The policy has no rule of that name.
    NoRule,
    /// The rule gave something that is neither a boolean nor `{allowed, ops}`.
    Answer,
    /// The rule's patch doesn't apply to the policy's state.
    Patch(&'static str),
    /// The request is larger than what a policy is shown.
    TooLarge,
    /// The evaluation took longer than it may.
    TimeOut,
    /// The evaluation failed: a conflict between rules, an unknown function.
    Evaluation,
}

/// Where in the policy its evaluation was when it last printed something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Line of the policy's text, from 1.
    pub line: usize,
    /// The rule that line belongs to.
    pub rule: String,
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule(Some(Place { line, rule })) => {
                write!(f, "the policy doesn't allow it; its last print was in rule {rule}, line {line}")
            }
            Self::Rule(None) => f.write_str("the policy doesn't allow it"),
            Self::NoRule => f.write_str("the policy has no rule for it"),
            Self::Answer => f.write_str("the policy's answer is neither a boolean nor {allowed, ops}"),
            Self::Patch(why) => write!(f, "the policy's ops can't be applied to its state: {why}"),
            Self::TooLarge => f.write_str("the request is too large to be shown to a policy"),
            Self::TimeOut => f.write_str("the policy took too long"),
            Self::Evaluation => f.write_str("the policy can't be evaluated for it"),
        }
    }
}

//! Answers of the agent, as clients branch on them: ttrpc's status code and our refusal code.

use std::fmt;

use anyhow::{Result, bail, ensure};
use protocols::refusal::{Code, Refusal};

/// What a request came to.
pub type Answer<T> = Result<T, Failure>;

/// An error that the agent answered with, or no answer at all.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The status code; none if there was no answer.
    pub code: Option<ttrpc::Code>,
    /// What the agent said.
    pub message: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            Some(code) => write!(f, "{code:?}: {}", self.message),
            None => write!(f, "no answer: {}", self.message),
        }
    }
}

impl std::error::Error for Failure {}

impl Failure {
    /// The refusal's code, where it is one.
    #[must_use]
    pub fn refusal(&self) -> Option<Code> {
        Refusal::parse(&self.message).map(|refusal| refusal.code)
    }
}

/// The answer to a call of the generated client.
///
/// # Errors
/// The agent's.
pub fn of<T>(result: ttrpc::Result<T>) -> Answer<T> {
    result.map_err(|error| match error {
        ttrpc::Error::RpcStatus(status) => {
            Failure { code: Some(status.code()), message: status.message().to_owned() }
        }
        other => Failure { code: None, message: other.to_string() },
    })
}

/// It failed with one of these codes, in one line without a backtrace.
///
/// # Errors
/// When it didn't.
pub fn fails<T>(answer: Answer<T>, codes: &[ttrpc::Code]) -> Result<Failure> {
    let Err(failure) = answer else { bail!("it was not refused; expected {codes:?}") };
    match failure.code {
        Some(code) if codes.contains(&code) => {}
        _ => bail!("expected {codes:?}, got {failure}"),
    }
    let text = failure.message.as_str();
    ensure!(text.lines().count() <= 1, "the message has several lines: {text:?}");
    for word in ["backtrace", "panicked", ".rs:"] {
        ensure!(!text.contains(word), "the message shows the agent's inside: {text:?}");
    }
    Ok(failure)
}

/// It was refused with PERMISSION_DENIED and this code.
///
/// # Errors
/// When it wasn't.
pub fn refused<T>(answer: Answer<T>, expected: &[Code]) -> Result<()> {
    let failure = fails(answer, &[ttrpc::Code::PERMISSION_DENIED])?;
    match failure.refusal() {
        Some(code) if expected.contains(&code) => Ok(()),
        _ => bail!("expected {expected:?}, got {failure}"),
    }
}

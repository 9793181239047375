//! A policy, ready to decide.

use std::fmt;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use regorus::utils::limits::ExecutionTimerConfig;
use regorus::{Engine, LimitError, PolicyLengthConfig, Value};
use serde_json::json;
use thiserror::Error;

use crate::decision::{Decision, Denial, Place};
use crate::{builtins, patch, recursion};

/// The package that policies are written in.
const PACKAGE: &str = "data.agent_policy";
/// Prefix of the lines that the engine gathers from print calls.
const FILE: &str = "policy";
/// Longest policy text, in bytes: what initdata can hold.
const MAX_POLICY: usize = 4 * 1024 * 1024;
const MAX_COLUMNS: u32 = 256 * 1024;
const MAX_LINES: usize = 200_000;
/// Longest request, as JSON.
const MAX_INPUT: usize = 4 * 1024 * 1024;
/// Longest evaluation.
const MAX_TIME: Duration = Duration::from_secs(5);
/// Steps between two looks at the clock.
const TIME_STEPS: u32 = 64;
/// What is kept of a request's prints: the last lines, and of each its beginning.
const MAX_PRINTS: usize = 64;
const MAX_PRINT: usize = 1024;

/// Why a text is no policy.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum PolicyError {
    /// Longer than any policy.
    #[error("policy: longer than {MAX_POLICY} bytes")]
    TooLong,
    /// Not Rego.
    #[error("policy: {0}")]
    Syntax(String),
    /// Rules that nobody would ask.
    #[error("policy: its package is {0:?}; policies for this agent begin with 'package agent_policy'")]
    Package(String),
    /// A function that calls itself.
    #[error("policy: function {0:?} calls itself, which Rego forbids")]
    Recursion(String),
    /// The engine can't be set up.
    #[error("policy: the engine has no function {0:?}")]
    Engine(&'static str),
}

/// A policy in force, with its state.
pub struct Policy {
    text: String,
    inner: Mutex<Inner>,
    allows_failures: bool,
    prints_for_host: bool,
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Policy(…)")
    }
}

struct Inner {
    engine: Engine,
    state: serde_json::Value,
}

impl Policy {
    /// Compiles a policy: Rego v1, or v0 where it is none of v1. Its state is empty.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        Self::parse_within(text, MAX_TIME)
    }

    fn parse_within(text: &str, limit: Duration) -> Result<Self, PolicyError> {
        if text.len() > MAX_POLICY {
            return Err(PolicyError::TooLong);
        }
        let engine = match compile(text, false, limit) {
            Err(PolicyError::Syntax(error)) => {
                // Older policies; the first complaint is the one to show.
                compile(text, true, limit).map_err(|other| match other {
                    PolicyError::Syntax(_) => PolicyError::Syntax(error),
                    other => other,
                })
            }
            other => other,
        }?;
        let mut policy = Self {
            text: text.to_owned(),
            inner: Mutex::new(Inner { engine, state: json!({}) }),
            allows_failures: false,
            prints_for_host: false,
        };
        policy.allows_failures = policy.allow("AllowRequestsFailingPolicy", "{}").allowed;
        policy.prints_for_host =
            policy.allows_failures || policy.allow_strictly("AllowPrintsForHost", "{}").allowed;
        Ok(policy)
    }

    /// Whether requests pass that the policy answers with false or not at all. For debugging pods: what
    /// the policy says is then of no effect.
    pub fn allows_failures(&self) -> bool {
        self.allows_failures
    }

    /// Whether the host may see what the policy prints: `AllowPrintsForHost := true`.
    pub fn prints_for_host(&self) -> bool {
        self.prints_for_host
    }

    /// Decides about a request, by its message's name, and takes the decision's ops into the policy's
    /// state. Blocks; at most some seconds.
    pub fn allow(&self, request: &str, input: &str) -> Decision {
        let mut decision = self.allow_strictly(request, input);
        if self.allows_failures && matches!(decision.denial, Some(Denial::Rule(_) | Denial::NoRule)) {
            decision.allowed = true;
        }
        decision
    }

    fn allow_strictly(&self, request: &str, input: &str) -> Decision {
        // Requests are named by our own code; this keeps a name from becoming an expression.
        let named = request.bytes().all(|b| b.is_ascii_alphanumeric());
        if !named || request.is_empty() {
            return denied(Denial::NoRule, Vec::new());
        }
        if input.len() > MAX_INPUT {
            return denied(Denial::TooLarge, Vec::new());
        }
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = inner.ask(request, input);
        let prints = inner.engine.take_prints().unwrap_or_default();
        let place = prints.last().and_then(|line| self.place(line));
        let outcome = match answer {
            Ok(Answer::Plain(true)) => Ok(()),
            Ok(Answer::Plain(false)) => Err(Denial::Rule(place)),
            Ok(Answer::Undefined) if prints.is_empty() && !self.has_rule(request) => Err(Denial::NoRule),
            Ok(Answer::Undefined) => Err(Denial::Rule(place)),
            Ok(Answer::Patch(operations)) => inner.change(&operations),
            Err(denial) => Err(denial),
        };
        let keep = prints.len().saturating_sub(MAX_PRINTS);
        let prints = prints.into_iter().skip(keep).map(shortened).collect();
        match outcome {
            Ok(()) => Decision { allowed: true, denial: None, prints },
            Err(denial) => denied(denial, prints),
        }
    }

    fn has_rule(&self, name: &str) -> bool {
        self.text.lines().any(|line| {
            let line = line.strip_prefix("default ").unwrap_or(line).trim_start();
            line.strip_prefix(name).is_some_and(|rest| !rest.starts_with(is_word))
        })
    }

    /// The rule around the line that a print came from.
    fn place(&self, print: &str) -> Option<Place> {
        let rest = print.strip_prefix(FILE)?.strip_prefix(':')?;
        let line: usize = rest.split(':').next()?.parse().ok()?;
        let above: Vec<&str> = self.text.lines().take(line).collect();
        let head = above.iter().rev().find(|line| line.starts_with(is_word))?;
        let head = head.strip_prefix("default ").unwrap_or(head);
        let rule = head.split(|c| !is_word(c)).next().unwrap_or_default().chars().take(64).collect();
        Some(Place { line, rule })
    }
}

enum Answer {
    Undefined,
    Plain(bool),
    Patch(serde_json::Value),
}

impl Inner {
    fn ask(&mut self, request: &str, input: &str) -> Result<Answer, Denial> {
        self.engine.set_input_json(input).map_err(|_| Denial::Evaluation)?;
        let results = self.engine.eval_query(format!("{PACKAGE}.{request}"), false);
        // The request isn't kept.
        self.engine.set_input(Value::Undefined);
        let mut results = results
            .map_err(|error| match error.downcast_ref() {
                Some(LimitError::TimeLimitExceeded { .. }) => Denial::TimeOut,
                _ => Denial::Evaluation,
            })?
            .result;
        let Some(result) = results.pop() else { return Ok(Answer::Undefined) };
        let (true, [expression]) = (results.is_empty(), result.expressions.as_slice()) else {
            return Err(Denial::Answer);
        };
        match &expression.value {
            Value::Bool(allowed) => Ok(Answer::Plain(*allowed)),
            Value::Undefined => Ok(Answer::Undefined),
            Value::Object(_) => {
                let answer = serde_json::to_value(&expression.value).map_err(|_| Denial::Answer)?;
                metadata(answer)
            }
            _ => Err(Denial::Answer),
        }
    }

    fn change(&mut self, operations: &serde_json::Value) -> Result<(), Denial> {
        let state = patch::apply(&self.state, operations).map_err(Denial::Patch)?;
        if state != self.state {
            let data = Value::from_json_str(&json!({ patch::STATE: state }).to_string());
            let data = data.map_err(|_| Denial::Patch("the engine can't read the state"))?;
            self.engine.clear_data();
            self.engine.add_data(data).map_err(|_| Denial::Patch("the engine can't take the state"))?;
            self.state = state;
        }
        Ok(())
    }
}

/// `{allowed, ops}`. Another key would be a condition that nobody here meets.
fn metadata(answer: serde_json::Value) -> Result<Answer, Denial> {
    let serde_json::Value::Object(mut members) = answer else { return Err(Denial::Answer) };
    let allowed = members.remove("allowed");
    let operations = members.remove("ops").filter(|operations| !operations.is_null());
    match (allowed, operations, members.is_empty()) {
        (Some(serde_json::Value::Bool(true)), Some(operations), true) => Ok(Answer::Patch(operations)),
        (Some(serde_json::Value::Bool(allowed)), _, true) => Ok(Answer::Plain(allowed)),
        _ => Err(Denial::Answer),
    }
}

fn compile(text: &str, v0: bool, limit: Duration) -> Result<Engine, PolicyError> {
    let mut engine = Engine::new();
    engine.set_rego_v0(v0);
    engine.set_strict_builtin_errors(false);
    // Otherwise they go to the console, which is the host's.
    engine.set_gather_prints(true);
    engine.set_policy_length_config(PolicyLengthConfig {
        max_col: NonZeroU32::new(MAX_COLUMNS).unwrap_or(NonZeroU32::MAX),
        max_file_bytes: NonZeroUsize::new(MAX_POLICY).unwrap_or(NonZeroUsize::MAX),
        max_lines: NonZeroUsize::new(MAX_LINES).unwrap_or(NonZeroUsize::MAX),
    });
    engine.set_execution_timer_config(ExecutionTimerConfig {
        limit,
        check_interval: NonZeroU32::new(TIME_STEPS).unwrap_or(NonZeroU32::MIN),
    });
    builtins::add_to(&mut engine).map_err(|error| PolicyError::Engine(error.0))?;
    let package =
        engine.add_policy(FILE.to_owned(), text.to_owned()).map_err(|error| syntax(&error.to_string()))?;
    if package != PACKAGE {
        return Err(PolicyError::Package(package.trim_start_matches("data.").chars().take(64).collect()));
    }
    if let Some(function) = engine.get_modules().iter().find_map(|module| recursion::find(module)) {
        return Err(PolicyError::Recursion(function));
    }
    let state = Value::from_json_str(&json!({ patch::STATE: {} }).to_string());
    let added = state.and_then(|state| engine.add_data(state));
    added.map_err(|error| syntax(&error.to_string()))?;
    // Analysis of all rules happens with the first query.
    engine
        .eval_query(format!("{PACKAGE}.AllowRequestsFailingPolicy"), false)
        .map_err(|e| syntax(&e.to_string()))?;
    Ok(engine)
}

/// The engine's message without the excerpt of the text that it draws.
fn syntax(text: &str) -> PolicyError {
    let line = text.lines().map(str::trim).find(|line| line.starts_with("error:")).unwrap_or("not Rego");
    let place = text.lines().map(str::trim).find_map(|line| line.strip_prefix("--> "));
    let message: String = line.trim_start_matches("error:").trim().chars().take(200).collect();
    PolicyError::Syntax(match place {
        Some(place) => format!("{}: {message}", place.trim_start_matches("policy:")),
        None => message,
    })
}

fn denied(denial: Denial, prints: Vec<String>) -> Decision {
    Decision { allowed: false, denial: Some(denial), prints }
}

fn shortened(line: String) -> String {
    if line.len() <= MAX_PRINT {
        return line;
    }
    line.chars().take(MAX_PRINT / 4).chain(['…']).collect()
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;

//! The policy mode's engine: Rego policies as the stock Kata agent evaluates them.
//!
//! A request is allowed if `data.agent_policy.<Message>` is `true`, or an object `{allowed, ops}` whose
//! `allowed` is; `ops` is a JSON patch (RFC 6902) on the policy's own state, `data.pstate`. Everything
//! else denies: a missing rule, another type, a patch that doesn't apply, an evaluation that takes too
//! long. `AllowRequestsFailingPolicy` lets pass what the policy answers with false or not at all, as with
//! the stock agent; a failed evaluation is denied with it too.

mod builtins;
mod decision;
mod engine;
mod patch;
mod recursion;

pub use decision::{Decision, Denial, Place};
pub use engine::{Policy, PolicyError};

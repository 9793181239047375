//! The attestation and key broker: checks a guest's evidence, holds it against the owner's policy, and
//! releases the owner's key to the guest that passed. A library for the daemon, its tests and examples.
//!
//! | step | module |
//! |---|---|
//! | a nonce for a session, used once | [`challenge`] |
//! | evidence → what the guest is | [`appraise`] |
//! | another broker's word for it | [`passport`] |
//! | what is known of attested guests | [`sessions`] |
//! | a SEV launch measured, its secret made | [`sev`] |
//! | key released or not | `release` |
//! | owners, keys, policies, releases, audit log | [`store`], `journal` |
//! | the wire | [`http`], [`server`], [`tls`], [`token`] |

mod admin;
pub mod appraise;
mod blob;
pub mod broker;
pub mod challenge;
pub mod clock;
pub mod collateral;
pub mod config;
pub mod core_dump;
pub mod counters;
mod denials;
pub mod http;
mod journal;
pub mod log;
pub mod passport;
mod refused;
mod release;
pub mod secrets;
pub mod server;
pub mod sessions;
pub mod sev;
pub mod show;
pub mod state_dir;
pub mod store;
pub mod tls;
pub mod token;

/// An error with its causes, on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

//! Recorded request orders of kubelets and runtimes, played against an agent: `testdata/lifecycles`.
//!
//! A recording says which requests come in which order and what they come to. What a request holds beside names
//! depends on the guest: in an unsealed one it is the pod's own, in a sealed one the placeholder's.

mod player;
mod requests;

use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::kata::InitExec;

pub use player::Player;
pub use requests::{Dialect, Guest};

/// A recording.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recording {
    runtime: Runtime,
    init_exec: Convention,
    steps: Vec<Step>,
}

/// Whose annotations containers carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Runtime {
    /// containerd's CRI plugin.
    Containerd,
    /// CRI-O.
    CriO,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Convention {
    Empty,
    ContainerId,
}

/// One line of a recording: a request, or what must hold at this point.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Step {
    /// The request.
    pub(crate) rpc: String,
    /// The container, with `.2` for its second life.
    pub(crate) container: String,
    /// The process beside the container's first.
    pub(crate) exec: String,
    /// Which probe's command an exec runs.
    pub(crate) probe: String,
    /// Which files are copied: `standard`, `config`, `update`.
    pub(crate) files: String,
    /// What a file holds, or what was printed.
    pub(crate) text: String,
    /// A signal's number.
    pub(crate) signal: u32,
    /// The status code of an answer that is no success; `any` where runtimes don't care.
    pub(crate) answer: String,
    /// A process has ended, with `status`, and has printed `prints`.
    pub(crate) ended: String,
    pub(crate) status: i32,
    pub(crate) prints: String,
    /// A container has printed `text` by now, or does so soon.
    pub(crate) printed: String,
    /// Containers that run.
    pub(crate) runs: Vec<String>,
}

impl Recording {
    /// Reads a recording of `testdata/lifecycles`.
    ///
    /// # Errors
    /// When it isn't one.
    pub fn read(name: &str) -> Result<Self> {
        let path = directory().join(format!("{name}.toml"));
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        toml::from_str(&text).with_context(|| path.display().to_string())
    }

    /// How the runtime names a container's first process.
    #[must_use]
    pub fn init(&self) -> InitExec {
        match self.init_exec {
            Convention::Empty => InitExec::Empty,
            Convention::ContainerId => InitExec::ContainerId,
        }
    }

    /// Whose annotations it carries.
    #[must_use]
    pub fn runtime(&self) -> Runtime {
        self.runtime
    }
}

/// Where recordings and their pod are.
#[must_use]
pub fn directory() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/lifecycles")
}

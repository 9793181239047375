//! Many named checks on one guest: each has its time, all failures are told at the end, not the first alone.

use std::time::Duration;

use anyhow::{Result, bail};

/// Ten times what the slowest check needs on an idle machine: one that hangs is a failure, not a stuck test.
const PATIENCE: Duration = Duration::from_secs(60);

/// What was checked so far.
#[derive(Debug, Default)]
pub struct Checks {
    names: Vec<String>,
    failed: Vec<String>,
}

impl Checks {
    /// Runs one check; the others run whatever comes of it.
    pub async fn that(&mut self, name: &str, check: impl Future<Output = Result<()>>) {
        self.names.push(name.to_owned());
        match tokio::time::timeout(PATIENCE, check).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.fail(name, &format!("{error:#}")),
            Err(_) => self.fail(name, &format!("no end after {PATIENCE:?}")),
        }
    }

    fn fail(&mut self, name: &str, why: &str) {
        // At once as well: a guest that dies takes what comes after with it.
        eprintln!("FAILED {name}: {why}");
        self.failed.push(format!("{name}: {why}"));
    }

    /// The names of all checks, passed or not.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    /// All passed.
    ///
    /// # Errors
    /// The failed checks, with `console` as what the guest said last.
    pub fn finish(self, console: &str) -> Result<()> {
        let count = self.names.len();
        if self.failed.is_empty() {
            eprintln!("{count} checks passed");
            return Ok(());
        }
        bail!(
            "{} of {count} checks failed:\n- {}\nthe guest's console:\n{console}",
            self.failed.len(),
            self.failed.join("\n- ")
        )
    }
}

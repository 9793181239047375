//! AMD's certificates and revocation lists as the broker's configuration says: opened at its start, and
//! filled by its operator where there is no network.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use collateral::{Bounds, Collateral, OpenError, Patience, Roots, Settings, SourceError};
use verifier::snp::Anchors;

use crate::clock::{self, Clock};
use crate::config::Config;
use crate::log::Throttle;

/// The cache's directory below the state directory.
const DIRECTORY: &str = "collateral";

/// Opens the configured cache. Chains end in the roots that evidence may lead to, and in no others.
///
/// # Errors
/// [`OpenError`].
pub fn open(config: &Config, anchors: &Anchors, log: slog::Logger) -> Result<Arc<Collateral>, OpenError> {
    let settings = &config.collateral;
    // Strangers' reports cause fetches, and failed fetches cause lines.
    let throttle = Throttle::default();
    Collateral::open(Settings {
        directory: settings.cache.clone().unwrap_or_else(|| config.state.join(DIRECTORY)),
        kds: settings.kds.clone(),
        ca: settings.ca.clone(),
        allow_plain: settings.allow_plain_http,
        roots: Roots::Of(anchors.fingerprints()),
        bounds: Bounds::default(),
        patience: Patience::default(),
        tell: Box::new(move |line| {
            if let Some(suppressed) = throttle.admit(clock::unix(Clock::system().now())) {
                slog::warn!(log, "collateral"; "detail" => line, "suppressed" => suppressed);
            }
        }),
    })
}

/// Why an import didn't happen.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The cache.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// What was to be imported.
    #[error(transparent)]
    Source(#[from] SourceError),
}

/// Imports bundles, directories and certificate files; says what became of them, a line each. `false` if
/// anything was refused. A broker that serves sees it within a minute.
///
/// # Errors
/// [`ImportError`], before anything is imported.
pub async fn import(
    config: &Config,
    anchors: &Anchors,
    paths: &[PathBuf],
    mut say: impl FnMut(String),
) -> Result<bool, ImportError> {
    let cache = open(config, anchors, slog::Logger::root(slog::Discard, slog::o!()))?;
    let gather = |path: &PathBuf| collateral::gather(Path::new(path));
    let pieces: Vec<_> = paths.iter().map(gather).collect::<Result<Vec<_>, _>>()?.concat();
    let imported = cache.import(&pieces, Clock::system().now()).await;
    for note in &imported.refused {
        say(format!("refused: {note}"));
    }
    say(format!("{} new, {} known, {} refused", imported.new, imported.same, imported.refused.len()));
    Ok(imported.refused.is_empty())
}

//! Whether requests could be carried out, as far as that can be told without an effect.

use std::path::{Path, PathBuf};

use crate::error::StorageError;
use crate::plan::{Context, plan_all};
use crate::request::StorageRequest;

/// Every check that comes before the first effect; returns the mount points. `containers` is the directory that is
/// shared with the host, `private` are the agent's own.
///
/// # Errors
/// [`StorageError`] that names the request.
pub fn mount_points(
    requests: &[StorageRequest],
    containers: &Path,
    private: &[PathBuf],
) -> Result<Vec<PathBuf>, StorageError> {
    let plans = plan_all(requests, &Context { containers, private, owner: Some("container") })?;
    Ok(plans.into_iter().map(|plan| plan.point).collect())
}

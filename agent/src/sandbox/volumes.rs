//! Volumes of the pod: `emptyDir`, in guest memory whatever its medium.

use std::collections::BTreeMap;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use agent_oci::volume_plans;
use nix::mount::MsFlags;
use sealed_spec::PodSpec;

use super::tmpfs;
use crate::error::{Error, Result};

pub(super) fn make(directory: &Path, pod: &PodSpec) -> Result<BTreeMap<String, PathBuf>> {
    let mut made = BTreeMap::new();
    for plan in volume_plans(pod) {
        let path = directory.join(&plan.name);
        let size = plan.size_limit.map(|bytes| format!(",size={bytes}")).unwrap_or_default();
        let failed = Error::step("making a volume");
        tmpfs(&path, &format!("mode={:o}{size}", plan.mode), MsFlags::empty()).map_err(&failed)?;
        if let Some(group) = plan.gid {
            chown(&path, None, Some(group)).map_err(&failed)?;
        }
        made.insert(plan.name, path);
    }
    Ok(made)
}

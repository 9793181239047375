//! Volumes that the pod's containers share: `emptyDir`, in guest memory whatever its medium, and files of
//! the sealed spec.

use std::collections::BTreeMap;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use agent_oci::volume_plans;
use nix::mount::MsFlags;
use sealed_spec::PodSpec;
use sealed_spec::podspec::VolumeSource;

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
    let gid = pod.security_context.as_ref().and_then(|context| context.fs_group);
    for volume in &pod.volumes {
        if let Some(VolumeSource::SealedFiles(files)) = volume.source() {
            let path = directory.join(&volume.name);
            crate::volumes::write_sealed_files(&path, files, gid)
                .map_err(Error::step("making a volume of sealed files"))?;
            made.insert(volume.name.clone(), path);
        }
    }
    Ok(made)
}

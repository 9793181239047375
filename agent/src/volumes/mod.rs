//! Volumes that the host fills, where the sealed spec grants it: ConfigMaps, Secrets, projected tokens, the
//! downward API. Their files wait in the quarantine and reach a container only as whole versions, copied
//! into guest memory with the grant's bounds.

mod granted;
mod publish;
mod sealed_files;

pub use granted::{Granted, granted};
pub(crate) use granted::{granted_bytes, missing_value};
pub use publish::Rules;
pub use sealed_files::write as write_sealed_files;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use agent_oci::HostVolume;
use protocols::refusal::{Code, Refusal};

use crate::quarantine::{Quarantine, SHARED};
use publish::Published;

/// Volumes of containers that are there, by the directory of the quarantine that fills them.
#[derive(Default)]
pub struct Volumes {
    by_source: Mutex<HashMap<String, Vec<Weak<Published>>>>,
}

/// The volumes of one container; unmounted when dropped.
#[derive(Default)]
pub struct Mounted {
    published: Vec<Arc<Published>>,
}

impl Volumes {
    /// Publishes a granted volume below `directory`, from the files that the host copied for it.
    pub fn mount(
        &self,
        granted: &Granted,
        quarantine: &Quarantine,
        directory: &Path,
        mounted: &mut Mounted,
    ) -> Result<HostVolume, Refusal> {
        let source = source(&granted.source)
            .ok_or_else(|| denied(&granted.destination, "its files were not copied into the guest"))?;
        let published = Published::new(directory, granted.rules.clone(), &granted.destination)?;
        let path = quarantine.read(source, |from| published.publish(from))?;
        let published = Arc::new(published);
        self.by_source().entry(source.to_owned()).or_default().push(Arc::downgrade(&published));
        mounted.published.push(published);
        Ok(HostVolume { source: path, executable: granted.executable })
    }

    /// A file or link has come: an update is passed on when the link to the current version is there.
    pub fn arrived(&self, path: &str, quarantine: &Quarantine) -> Result<(), Refusal> {
        let Some((source, rest)) = path
            .strip_prefix(SHARED)
            .and_then(|below| below.strip_prefix('/'))
            .and_then(|p| p.split_once('/'))
        else {
            return Ok(());
        };
        let filled: Vec<Arc<Published>> = {
            let mut by_source = self.by_source();
            let Some(list) = by_source.get_mut(source) else { return Ok(()) };
            list.retain(|volume| volume.strong_count() > 0);
            list.iter().filter_map(Weak::upgrade).collect()
        };
        for volume in &filled {
            let outdated = quarantine.read(source, |from| volume.update(from, rest))?;
            if let Some(outdated) = outdated {
                quarantine.remove(&Path::new(source).join(outdated));
            }
        }
        Ok(())
    }

    /// The container that a directory was copied for is gone.
    pub fn sweep(&self) {
        self.by_source().retain(|_, list| list.iter().any(|volume| volume.strong_count() > 0));
    }

    fn by_source(&self) -> MutexGuard<'_, HashMap<String, Vec<Weak<Published>>>> {
        self.by_source.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The name below the shared directory, if the path is right below it.
fn source(path: &str) -> Option<&str> {
    let name = path.strip_prefix(SHARED)?.strip_prefix('/')?.trim_end_matches('/');
    (!name.is_empty() && !name.contains('/') && !name.starts_with('.')).then_some(name)
}

fn denied(destination: &str, reason: &str) -> Refusal {
    Refusal::new(Code::VolumeDenied, format!("the volume at {destination}: {reason}"))
}

fn limit(destination: &str, reason: &str) -> Refusal {
    Refusal::new(Code::VolumeLimit, format!("the volume at {destination}: {reason}"))
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;

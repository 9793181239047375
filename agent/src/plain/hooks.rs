//! Hooks of the guest: programs of its own root file system, below the directory that the host names.
//! Executed on the plain path only.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use libcontainer::oci_spec::runtime::{Hook, HookBuilder, Hooks, Spec};

use crate::error::{Error, Result};

const MAX_HOOKS: usize = 64;

/// Hooks by when they run.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct GuestHooks {
    prestart: Vec<Hook>,
    poststart: Vec<Hook>,
    poststop: Vec<Hook>,
}

impl GuestHooks {
    /// What is below `directory` now; nothing for an empty name. A directory that isn't there has none.
    pub(super) fn find(directory: &str) -> Result<Self> {
        if directory.is_empty() {
            return Ok(Self::default());
        }
        let plain = directory.starts_with('/') && !directory.split('/').any(|name| name == "..");
        if !plain || directory.contains('\0') {
            return Err(Error::Internal(
                "the directory of guest hooks is an absolute path without '..'".into(),
            ));
        }
        let directory = Path::new(directory);
        Ok(Self {
            prestart: kind(directory, "prestart")?,
            poststart: kind(directory, "poststart")?,
            poststop: kind(directory, "poststop")?,
        })
    }

    /// Adds them to those of a container.
    pub(super) fn append(&self, spec: &mut Spec) {
        if *self == Self::default() {
            return;
        }
        let mut hooks: Hooks = spec.hooks().clone().unwrap_or_default();
        let with = |list: &Option<Vec<Hook>>, more: &[Hook]| {
            let all: Vec<Hook> = list.iter().flatten().chain(more).cloned().collect();
            (!all.is_empty()).then_some(all)
        };
        // libcontainer runs these in the guest's namespaces, as hooks of the guest expect.
        let prestart = with(hooks.prestart(), &self.prestart);
        hooks.set_prestart(prestart);
        hooks.set_poststart(with(hooks.poststart(), &self.poststart));
        hooks.set_poststop(with(hooks.poststop(), &self.poststop));
        spec.set_hooks(Some(hooks));
    }
}

/// Executable files in their names' order.
fn kind(directory: &Path, kind: &str) -> Result<Vec<Hook>> {
    let Ok(entries) = fs::read_dir(directory.join(kind)) else { return Ok(Vec::new()) };
    let executable =
        |path: &PathBuf| path.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
    let mut paths: Vec<PathBuf> =
        entries.filter_map(std::result::Result::ok).map(|entry| entry.path()).filter(executable).collect();
    if paths.len() > MAX_HOOKS {
        return Err(Error::Internal(format!(
            "more than {MAX_HOOKS} hooks in {}/{kind}",
            directory.display()
        )));
    }
    paths.sort();
    let hook = |path: PathBuf| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        HookBuilder::default().path(path).args(vec![name, kind.to_owned()]).build()
    };
    paths
        .into_iter()
        .map(hook)
        .collect::<std::result::Result<_, _>>()
        .map_err(|e| Error::Internal(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executable_files_become_hooks_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let prestart = dir.path().join("prestart");
        fs::create_dir_all(&prestart).unwrap();
        for (name, mode) in [("20-b", 0o755), ("10-a", 0o700), ("readme", 0o644)] {
            fs::write(prestart.join(name), "").unwrap();
            fs::set_permissions(prestart.join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        let hooks = GuestHooks::find(dir.path().to_str().unwrap()).unwrap();
        let names: Vec<_> = hooks.prestart.iter().map(|h| h.path().file_name().unwrap().to_owned()).collect();
        assert_eq!(names, ["10-a", "20-b"]);
        assert_eq!(hooks.prestart[0].args().as_ref().unwrap(), &["10-a", "prestart"]);
        let mut spec = Spec::default();
        hooks.append(&mut spec);
        hooks.append(&mut spec);
        let prestart = spec.hooks().as_ref().unwrap().prestart().as_ref().unwrap().len();
        assert_eq!(prestart, 4);
    }

    #[test]
    fn no_directory_has_no_hooks_and_a_strange_one_is_refused() {
        assert_eq!(GuestHooks::find("").unwrap(), GuestHooks::default());
        assert_eq!(GuestHooks::find("/no/such/directory").unwrap(), GuestHooks::default());
        assert!(GuestHooks::find("hooks").is_err() && GuestHooks::find("/a/../b").is_err());
        let mut spec = Spec::default();
        GuestHooks::default().append(&mut spec);
        assert_eq!(spec.hooks(), Spec::default().hooks());
    }
}

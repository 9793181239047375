//! One volume in guest memory, as the kubelet lays such volumes out: a directory for each version, `..data`
//! as the link to the current one, and for each entry a link by way of it. An update swaps `..data`, so
//! that a container sees the old version or the new one and nothing in between.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, chown, symlink};
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use nix::mount::{MntFlags, MsFlags, umount2};
use protocols::refusal::{Code, Refusal};

use super::{denied, limit};

/// Files and directories of one version.
const MAX_ENTRIES: u64 = 2048;
const MAX_DEPTH: usize = 8;
/// The kubelet's link to the current version.
const DATA: &str = "..data";
/// A volume that is a single file (subPath) has this name in its directory.
const SINGLE: &str = "file";
const PAGE: u64 = 4096;

/// How a volume's files are, whatever the host says about them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// Permission bits of files.
    pub default_mode: u32,
    /// Of single files, by path.
    pub modes: BTreeMap<String, u32>,
    /// The pod's fsGroup.
    pub gid: Option<u32>,
    /// Of all versions that exist at one time.
    pub max_bytes: u64,
    /// Whether programs may run.
    pub executable: bool,
    /// Path of the one file that the container sees (subPath), for its mode.
    pub single: Option<String>,
}

/// A volume in guest memory.
pub(super) struct Published {
    root: PathBuf,
    destination: String,
    rules: Rules,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Counts versions.
    serial: u64,
    /// Bytes of the current version.
    bytes: u64,
    /// The host's name for it.
    current: Option<String>,
}

/// What may still be written.
struct Budget {
    bytes: u64,
    entries: u64,
}

impl Published {
    /// An empty volume mounted at `root`.
    pub(super) fn new(root: &Path, rules: Rules, destination: &str) -> Result<Self, Refusal> {
        let flags = if rules.executable { MsFlags::empty() } else { MsFlags::MS_NOEXEC };
        // The bound that is told is counted in bytes; this one, in pages, is behind it.
        let size = rules.max_bytes.next_multiple_of(PAGE) + 2 * MAX_ENTRIES * PAGE;
        let options = format!("mode=755,size={size},nr_inodes={}", 4 * MAX_ENTRIES);
        crate::sandbox::tmpfs(root, &options, flags).map_err(|e| failed(destination, &e))?;
        let state = Mutex::default();
        Ok(Self { root: root.to_owned(), destination: destination.to_owned(), rules, state })
    }

    /// Copies what is there now; returns what to mount.
    pub(super) fn publish(&self, from: &Path) -> Result<PathBuf, Refusal> {
        let kind = fs::symlink_metadata(from).map(|m| m.file_type());
        match kind {
            Ok(kind) if kind.is_dir() => self.version(from).map(|_| self.root.clone()),
            Ok(kind) if kind.is_file() => {
                let to = self.root.join(SINGLE);
                let mut budget = self.budget(0);
                let name = self.rules.single.as_deref().unwrap_or_default();
                self.file(from, &to, name, &mut budget)?;
                Ok(to)
            }
            _ => Err(self.denied("its files were not copied into the guest")),
        }
    }

    /// Publishes again if `changed` (below the source) is the link to the current version, or belongs to it.
    /// Returns the host's name of a version that is not current any more.
    pub(super) fn update(&self, from: &Path, changed: &str) -> Result<Option<String>, Refusal> {
        let current = self.state().current.clone();
        let first = changed.split('/').next().unwrap_or_default();
        if first != DATA && current.as_deref() != Some(first) {
            return Ok(None);
        }
        let now = self.version(from)?;
        Ok(current.filter(|old| now.as_deref() != Some(old)))
    }

    fn version(&self, from: &Path) -> Result<Option<String>, Refusal> {
        let name = self.current_of(from)?;
        let source = name.as_ref().map_or_else(|| from.to_owned(), |name| from.join(name));
        if !fs::symlink_metadata(&source).is_ok_and(|m| m.is_dir()) {
            return Err(self.denied("..data leads to a version that was not copied"));
        }
        let mut state = self.state();
        state.serial += 1;
        let version = format!("..{}", state.serial);
        let target = self.root.join(&version);
        let mut budget = self.budget(state.bytes);
        let before = budget.bytes;
        if let Err(refusal) = self.directory(&source, &target, "", &mut budget, 0) {
            let _ = fs::remove_dir_all(&target);
            return Err(refusal);
        }
        self.swap(&version).map_err(|e| failed(&self.destination, &e))?;
        state.bytes = before - budget.bytes;
        state.current.clone_from(&name);
        Ok(name)
    }

    /// Where `..data` leads; `None` if the host copied plain files.
    fn current_of(&self, from: &Path) -> Result<Option<String>, Refusal> {
        let link = match fs::read_link(from.join(DATA)) {
            Ok(link) => link,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(_) => return Err(self.denied("..data is not a link")),
        };
        let mut parts = link.components();
        match (parts.next(), parts.next()) {
            (Some(Component::Normal(name)), None) => match name.to_str() {
                Some(name) if name.starts_with("..") && name != DATA => Ok(Some(name.to_owned())),
                _ => Err(self.denied("..data leads to no version")),
            },
            _ => Err(self.denied("..data leads elsewhere")),
        }
    }

    /// Makes a version the current one. In this order, as the kubelet does it.
    fn swap(&self, version: &str) -> io::Result<()> {
        let staged = self.root.join("..data_tmp");
        symlink(version, &staged)?;
        fs::rename(&staged, self.root.join(DATA))?;
        let names = |directory: &Path| -> io::Result<BTreeSet<String>> {
            let mut names = BTreeSet::new();
            for entry in fs::read_dir(directory)? {
                names.extend(entry?.file_name().into_string());
            }
            Ok(names)
        };
        let wanted = names(&self.root.join(version))?;
        let there = names(&self.root)?;
        for name in wanted.difference(&there) {
            symlink(Path::new(DATA).join(name), self.root.join(name))?;
        }
        for name in there.difference(&wanted) {
            let path = self.root.join(name);
            match name.strip_prefix("..") {
                Some(_) if name == version || name == DATA => {}
                Some(_) => fs::remove_dir_all(path)?,
                None => fs::remove_file(path)?,
            }
        }
        Ok(())
    }

    fn directory(
        &self,
        from: &Path,
        to: &Path,
        below: &str,
        budget: &mut Budget,
        depth: usize,
    ) -> Result<(), Refusal> {
        let fail = |e: io::Error| failed(&self.destination, &e);
        self.spend(budget, 0)?;
        if depth > MAX_DEPTH {
            return Err(limit(&self.destination, "its directories are too deep"));
        }
        fs::DirBuilder::new().mode(0o755).create(to).map_err(fail)?;
        let group = if self.rules.gid.is_some() { 0o2055 } else { 0 };
        self.own(to, 0o755 | group).map_err(fail)?;
        for entry in fs::read_dir(from).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let Ok(name) = entry.file_name().into_string() else {
                return Err(self.denied("a name is not UTF-8"));
            };
            // The kubelet's own; in a version they are nobody's.
            if name.starts_with("..") {
                continue;
            }
            let path = if below.is_empty() { name.clone() } else { format!("{below}/{name}") };
            let kind = entry.file_type().map_err(fail)?;
            if kind.is_dir() {
                self.directory(&entry.path(), &to.join(&name), &path, budget, depth + 1)?;
            } else if kind.is_file() {
                self.file(&entry.path(), &to.join(&name), &path, budget)?;
            } else if !below.is_empty() || depth > 0 || !self.is_plain_link(&entry.path()) {
                return Err(self.denied("a version holds a link"));
            }
        }
        Ok(())
    }

    /// A directory without versions may still have the links that would lead into one.
    fn is_plain_link(&self, path: &Path) -> bool {
        fs::read_link(path).is_ok_and(|link| link.starts_with(DATA))
    }

    fn file(&self, from: &Path, to: &Path, name: &str, budget: &mut Budget) -> Result<(), Refusal> {
        let fail = |e: io::Error| failed(&self.destination, &e);
        let flags = libc::O_NOFOLLOW | libc::O_CLOEXEC;
        let source = fs::OpenOptions::new().read(true).custom_flags(flags).open(from).map_err(fail)?;
        let length = source.metadata().map_err(fail)?.len();
        self.spend(budget, length)?;
        let mut target =
            fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(to).map_err(fail)?;
        io::copy(&mut source.take(length), &mut target).and_then(|_| target.flush()).map_err(fail)?;
        let mode = self.rules.modes.get(name).copied().unwrap_or(self.rules.default_mode) & 0o777;
        let group = if self.rules.gid.is_some() { 0o440 } else { 0 };
        self.own(to, mode | group).map_err(fail)
    }

    fn own(&self, path: &Path, mode: u32) -> io::Result<()> {
        chown(path, Some(0), Some(self.rules.gid.unwrap_or(0)))?;
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
    }

    fn budget(&self, used: u64) -> Budget {
        Budget { bytes: self.rules.max_bytes.saturating_sub(used), entries: MAX_ENTRIES }
    }

    fn spend(&self, budget: &mut Budget, bytes: u64) -> Result<(), Refusal> {
        let over = |what: String| limit(&self.destination, &format!("it is larger than granted: {what}"));
        budget.bytes = budget.bytes.checked_sub(bytes).ok_or_else(|| {
            over(format!("at most {} bytes in all versions at one time", self.rules.max_bytes))
        })?;
        budget.entries =
            budget.entries.checked_sub(1).ok_or_else(|| over(format!("at most {MAX_ENTRIES} files")))?;
        Ok(())
    }

    fn denied(&self, reason: &str) -> Refusal {
        denied(&self.destination, reason)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        // Lazily: the container's own mount goes on until it ends.
        let _ = umount2(&self.root, MntFlags::MNT_DETACH);
    }
}

fn failed(destination: &str, error: &io::Error) -> Refusal {
    Refusal::new(Code::Launch, format!("the volume at {destination} can't be made: {}", error.kind()))
}

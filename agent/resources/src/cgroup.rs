//! One container's cgroup: its files, its processes, their end.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::error::{ResourceError, Result};
use crate::hierarchy::Version;

/// No file of a cgroup that is read here is longer.
const MAX_FILE: u64 = 256 * 1024;

/// How often processes that appear while others are being killed are killed too (version 1).
const KILL_ROUNDS: usize = 16;

/// Where it is.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    Unified(PathBuf),
    Controllers { trees: BTreeMap<&'static str, PathBuf>, relative: PathBuf },
}

/// A cgroup, which need not exist.
#[derive(Debug, Clone)]
pub struct Cgroup {
    pub(crate) place: Place,
}

impl Cgroup {
    pub(crate) fn new(place: Place) -> Self {
        Self { place }
    }

    /// Which interface its files have.
    pub fn version(&self) -> Version {
        match self.place {
            Place::Unified(_) => Version::V2,
            Place::Controllers { .. } => Version::V1,
        }
    }

    /// A file of one controller; `None` where the kernel has the controller not at all (version 1).
    pub(crate) fn path(&self, controller: &str, file: &str) -> Option<PathBuf> {
        match &self.place {
            Place::Unified(directory) => Some(directory.join(file)),
            Place::Controllers { trees, relative } => {
                trees.get(controller).map(|root| root.join(relative).join(file))
            }
        }
    }

    /// The same, if the file is there.
    pub(crate) fn present(&self, controller: &str, file: &str) -> Option<PathBuf> {
        self.path(controller, file).filter(|path| path.exists())
    }

    /// A file's text; empty if it isn't there.
    pub(crate) fn text(&self, controller: &str, file: &str) -> String {
        self.path(controller, file).and_then(|path| read(&path).ok()).unwrap_or_default()
    }

    /// Whether it exists.
    pub fn exists(&self) -> bool {
        self.path(self.any_controller(), "cgroup.procs").is_some_and(|path| path.exists())
    }

    /// Processes in it, not those in cgroups below.
    pub fn processes(&self) -> Vec<i32> {
        let text = self.text(self.any_controller(), "cgroup.procs");
        // 0: a process of another pid namespace.
        text.lines().filter_map(|line| line.trim().parse().ok()).filter(|pid| *pid > 0).collect()
    }

    /// Kills all processes at once. Version 1 has no switch for that: they are frozen, killed one by
    /// one, and let go to die.
    pub fn kill(&self) -> Result<()> {
        if let Place::Unified(directory) = &self.place {
            return write(&directory.join("cgroup.kill"), "1");
        }
        let freezer = self.present("freezer", "freezer.state");
        for _ in 0..KILL_ROUNDS {
            if let Some(freezer) = &freezer {
                write(freezer, "FROZEN")?;
            }
            let processes = self.processes();
            for pid in &processes {
                // One that is gone is what was wanted.
                let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
            }
            if let Some(freezer) = &freezer {
                write(freezer, "THAWED")?;
            }
            if processes.is_empty() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// A tree that every cgroup is in.
    fn any_controller(&self) -> &'static str {
        match &self.place {
            Place::Unified(_) => "",
            Place::Controllers { trees, .. } => {
                let first = trees.keys().next().copied();
                ["freezer", "pids", "memory"]
                    .into_iter()
                    .find(|name| trees.contains_key(name))
                    .or(first)
                    .unwrap_or_default()
            }
        }
    }
}

/// Reads a file of the kernel's.
pub(crate) fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MAX_FILE).read_to_string(&mut text)?;
    Ok(text)
}

/// Writes a file of the kernel's, in one call.
pub(crate) fn write(path: &Path, value: &str) -> Result<()> {
    let written =
        fs::OpenOptions::new().write(true).open(path).and_then(|mut f| f.write_all(value.as_bytes()));
    written.map_err(ResourceError::file("writing", path))
}

/// `key value` lines.
pub(crate) fn table(text: &str) -> impl Iterator<Item = (&str, u64)> {
    text.lines().filter_map(|line| {
        let (key, value) = line.split_once(' ')?;
        Some((key, value.trim().parse().ok()?))
    })
}

/// One value of such lines; 0 if it isn't there.
pub(crate) fn value(text: &str, key: &str) -> u64 {
    table(text).find(|(name, _)| *name == key).map_or(0, |(_, value)| value)
}

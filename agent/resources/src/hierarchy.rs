//! Where the kernel keeps control groups: one tree (version 2), or one a controller (version 1).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

use crate::cgroup::{Cgroup, Place};
use crate::error::{ResourceError, Result};

/// Longest path of a cgroup below the root, as the kernel's own bound.
const MAX_PATH: usize = 4096;

/// Controllers of version 1 that this crate writes or reads.
const CONTROLLERS: [&str; 9] =
    ["blkio", "cpu", "cpuacct", "cpuset", "devices", "freezer", "hugetlb", "memory", "pids"];

/// Which interface the controllers have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// A tree for each controller.
    V1,
    /// One tree for all.
    V2,
}

/// The trees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    trees: Trees,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Trees {
    Unified(PathBuf),
    Controllers(BTreeMap<&'static str, PathBuf>),
}

impl Hierarchy {
    /// What is mounted at or below `root`, usually `/sys/fs/cgroup`. Nothing mounted there counts as a
    /// version 2 tree: the files say so themselves when they are missing.
    pub fn detect(root: &Path) -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo")
            .map_err(ResourceError::kernel("reading the table of mounts"))?;
        Ok(Self::parse(&mounts, root).unwrap_or_else(|| Self::unified(root)))
    }

    /// A version 2 tree.
    pub fn unified(root: &Path) -> Self {
        Self { trees: Trees::Unified(root.to_owned()) }
    }

    /// Reads `/proc/self/mountinfo`. A hybrid, version 2 beside controllers of version 1, is version 1:
    /// a controller is in one of the two only.
    fn parse(mountinfo: &str, root: &Path) -> Option<Self> {
        let mut controllers = BTreeMap::new();
        let mut unified = None;
        for line in mountinfo.lines() {
            let Some((before, after)) = line.split_once(" - ") else { continue };
            let Some(place) = before.split(' ').nth(4).map(unescape) else { continue };
            if !place.starts_with(root) {
                continue;
            }
            let mut after = after.split(' ');
            match after.next() {
                Some("cgroup2") => {
                    unified.get_or_insert(place);
                }
                Some("cgroup") => {
                    let options = after.nth(1).unwrap_or_default();
                    for name in CONTROLLERS {
                        if options.split(',').any(|option| option == name) {
                            controllers.entry(name).or_insert_with(|| place.clone());
                        }
                    }
                }
                _ => {}
            }
        }
        let trees = match unified {
            Some(root) if controllers.is_empty() => Trees::Unified(root),
            _ if !controllers.is_empty() => Trees::Controllers(controllers),
            _ => return None,
        };
        Some(Self { trees })
    }

    /// Which interface it is.
    pub fn version(&self) -> Version {
        match self.trees {
            Trees::Unified(_) => Version::V2,
            Trees::Controllers(_) => Version::V1,
        }
    }

    /// The cgroup at `path`, as the OCI specification's `cgroupsPath` names it. It need not exist.
    pub fn cgroup(&self, path: &str) -> Result<Cgroup> {
        let relative = Path::new(path.trim_start_matches('/'));
        let plain = relative.components().all(|part| matches!(part, Component::Normal(_)));
        if path.len() > MAX_PATH || relative.as_os_str().is_empty() || !plain || path.contains('\0') {
            return Err(ResourceError::malformed("the cgroup path is not one below the root of cgroups"));
        }
        Ok(Cgroup::new(match &self.trees {
            Trees::Unified(root) => Place::Unified(root.join(relative)),
            Trees::Controllers(trees) => Place::Controllers {
                trees: trees.iter().map(|(name, root)| (*name, root.clone())).collect(),
                relative: relative.to_owned(),
            },
        }))
    }
}

/// The kernel writes blanks in mount points as `\040`.
fn unescape(text: &str) -> PathBuf {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        plain.push_str(&rest[..at]);
        let code = rest.get(at + 1..at + 4).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => plain.push(char::from(code)),
            None => plain.push('\\'),
        }
        rest = rest.get(at + if code.is_some() { 4 } else { 1 }..).unwrap_or_default();
    }
    plain.push_str(rest);
    plain.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str = "/sys/fs/cgroup";

    #[test]
    fn a_unified_tree_is_version_2() {
        let text = "25 20 0:23 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        let found = Hierarchy::parse(text, Path::new(ROOT)).unwrap();
        assert_eq!(found, Hierarchy::unified(Path::new(ROOT)));
    }

    #[test]
    fn a_hybrid_is_version_1() {
        let text = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
                    32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n\
                    35 31 0:32 / /sys/fs/cgroup/my\\040memory rw shared:9 - cgroup cgroup rw,memory\n\
                    40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd\n\
                    41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
        let found = Hierarchy::parse(text, Path::new(ROOT)).unwrap();
        assert_eq!(found.version(), Version::V1);
        let Trees::Controllers(trees) = found.trees else { panic!("not version 1") };
        assert_eq!(trees["cpuacct"], Path::new("/sys/fs/cgroup/cpu,cpuacct"));
        assert_eq!(trees["memory"], Path::new("/sys/fs/cgroup/my memory"));
        assert_eq!(trees.len(), 3);
    }

    #[test]
    fn mounts_elsewhere_do_not_count() {
        let text = "25 20 0:23 / /mnt/cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(Hierarchy::parse(text, Path::new(ROOT)), None);
    }

    #[test]
    fn a_path_stays_below_the_root() {
        let tree = Hierarchy::unified(Path::new(ROOT));
        assert!(tree.cgroup("/pod/c1").is_ok());
        assert!(tree.cgroup("system.slice:cri:c1").is_ok());
        for path in ["", "/", "//", "..", "/a/../b", "a/..", "a\0b", &"x".repeat(5000)] {
            assert!(matches!(tree.cgroup(path), Err(ResourceError::Malformed(_))), "{path:?}");
        }
    }
}

//! What goes into an initrd: directories, files, symbolic links and device nodes, as TOML.

use serde::Deserialize;
use std::collections::BTreeMap;

/// A checked list of entries: absolute paths in their normal form, each once, parents before children.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    entries: BTreeMap<Vec<String>, Entry>,
}

/// What stands at a path. Permissions are the low twelve mode bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A directory.
    Directory {
        /// Permissions.
        mode: u32,
    },
    /// A regular file whose bytes come from the named input.
    File {
        /// Permissions.
        mode: u32,
        /// The input's name, as in `--input NAME=PATH`.
        input: String,
    },
    /// A symbolic link.
    Symlink {
        /// Where it points.
        target: String,
    },
    /// A device node.
    Node {
        /// Permissions.
        mode: u32,
        /// Character or block.
        kind: NodeKind,
        /// Device number, major part.
        major: u32,
        /// Device number, minor part.
        minor: u32,
    },
}

/// The kind of a device node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeKind {
    /// Character device.
    Char,
    /// Block device.
    Block,
}

/// Why a manifest was refused.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not TOML, or a field that manifests don't have.
    #[error("initrd manifest: {0}")]
    Syntax(#[from] toml::de::Error),
    /// A path that is relative, empty or not in its normal form.
    #[error("initrd manifest: path {0:?} must be absolute, without `.`, `..`, `//` or a trailing `/`")]
    Path(String),
    /// The same path twice.
    #[error("initrd manifest: path {0:?} is listed twice; keep one")]
    Duplicate(String),
    /// A path below something that is not a listed directory.
    #[error("initrd manifest: the parent of {0:?} is not a listed directory; add a [[directory]] for it")]
    Parent(String),
    /// Mode bits outside 0o7777.
    #[error("initrd manifest: mode {mode:#o} of {path:?} has bits outside 0o7777")]
    Mode {
        /// The entry's path.
        path: String,
        /// The mode as written.
        mode: u32,
    },
    /// A symbolic link to nothing.
    #[error("initrd manifest: symlink {0:?} has an empty target")]
    Target(String),
}

impl Manifest {
    /// Reads a manifest.
    pub fn parse(text: &str) -> Result<Self, ManifestError> {
        let raw: Raw = toml::from_str(text)?;
        let mut listed = Vec::new();
        for RawDirectory { path, mode } in raw.directory {
            listed.push((path, Entry::Directory { mode }));
        }
        for RawFile { path, mode, input } in raw.file {
            listed.push((path, Entry::File { mode, input }));
        }
        for RawSymlink { path, target } in raw.symlink {
            listed.push((path, Entry::Symlink { target }));
        }
        for RawNode { path, mode, kind, major, minor } in raw.node {
            listed.push((path, Entry::Node { mode, kind, major, minor }));
        }
        let mut entries = BTreeMap::new();
        for (path, entry) in listed {
            check(&path, &entry)?;
            if entries.insert(components(&path)?, entry).is_some() {
                return Err(ManifestError::Duplicate(path));
            }
        }
        for path in entries.keys() {
            let parent = &path[..path.len() - 1];
            if !parent.is_empty() && !matches!(entries.get(parent), Some(Entry::Directory { .. })) {
                return Err(ManifestError::Parent(absolute(path)));
            }
        }
        Ok(Self { entries })
    }

    /// Every entry with its absolute path, parents before children, in the archive's order.
    pub fn entries(&self) -> impl Iterator<Item = (String, &Entry)> {
        self.entries.iter().map(|(path, entry)| (absolute(path), entry))
    }

    /// The names of the inputs that the manifest asks for, sorted, each once.
    pub fn inputs(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self
            .entries
            .values()
            .filter_map(|entry| match entry {
                Entry::File { input, .. } => Some(input.as_str()),
                _ => None,
            })
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    #[serde(default)]
    directory: Vec<RawDirectory>,
    #[serde(default)]
    file: Vec<RawFile>,
    #[serde(default)]
    symlink: Vec<RawSymlink>,
    #[serde(default)]
    node: Vec<RawNode>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawDirectory {
    path: String,
    mode: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    path: String,
    mode: u32,
    input: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSymlink {
    path: String,
    target: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawNode {
    path: String,
    mode: u32,
    kind: NodeKind,
    major: u32,
    minor: u32,
}

fn check(path: &str, entry: &Entry) -> Result<(), ManifestError> {
    match entry {
        Entry::Directory { mode } | Entry::File { mode, .. } | Entry::Node { mode, .. } => {
            if mode & !0o7777 != 0 {
                return Err(ManifestError::Mode { path: path.to_owned(), mode: *mode });
            }
        }
        Entry::Symlink { target } => {
            if target.is_empty() || target.contains('\0') {
                return Err(ManifestError::Target(path.to_owned()));
            }
        }
    }
    Ok(())
}

fn components(path: &str) -> Result<Vec<String>, ManifestError> {
    let refused = || ManifestError::Path(path.to_owned());
    let parts: Vec<String> =
        path.strip_prefix('/').ok_or_else(refused)?.split('/').map(str::to_owned).collect();
    if parts.iter().any(|part| part.is_empty() || part == "." || part == ".." || part.contains('\0')) {
        return Err(refused());
    }
    Ok(parts)
}

fn absolute(path: &[String]) -> String {
    format!("/{}", path.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "
        [[directory]]
        path = '/etc'
        mode = 0o755
        [[file]]
        path = '/etc/motd'
        mode = 0o644
        input = 'motd'
    ";

    #[test]
    fn a_small_manifest_is_read() {
        let manifest = Manifest::parse(GOOD).unwrap();
        assert_eq!(manifest.inputs(), ["motd"]);
        assert_eq!(manifest.entries().map(|(path, _)| path).collect::<Vec<_>>(), ["/etc", "/etc/motd"]);
    }

    #[test]
    fn an_unknown_field_is_refused() {
        let text = GOOD.replace("input = 'motd'", "input = 'motd'\nowner = 1000");
        assert!(matches!(Manifest::parse(&text), Err(ManifestError::Syntax(_))));
    }

    #[test]
    fn paths_outside_their_normal_form_are_refused() {
        for path in ["etc", "/", "", "/etc/", "//etc", "/etc/../x", "/./etc"] {
            let text = format!("[[directory]]\npath = '{path}'\nmode = 0o755");
            assert!(matches!(Manifest::parse(&text), Err(ManifestError::Path(_))), "{path:?}");
        }
    }

    #[test]
    fn a_path_listed_twice_is_refused() {
        let text = format!("{GOOD}\n[[symlink]]\npath = '/etc/motd'\ntarget = 'x'");
        assert!(matches!(Manifest::parse(&text), Err(ManifestError::Duplicate(path)) if path == "/etc/motd"));
    }

    #[test]
    fn a_file_below_something_else_than_a_directory_is_refused() {
        let text = format!("{GOOD}\n[[symlink]]\npath = '/etc/motd/x'\ntarget = 'x'");
        assert!(matches!(Manifest::parse(&text), Err(ManifestError::Parent(_))));
        let text = GOOD.replace("path = '/etc'", "path = '/usr'");
        assert!(matches!(Manifest::parse(&text), Err(ManifestError::Parent(_))));
    }

    #[test]
    fn mode_bits_that_name_a_file_type_are_refused() {
        let text = GOOD.replace("0o644", "0o100644");
        assert!(matches!(Manifest::parse(&text), Err(ManifestError::Mode { .. })));
    }
}

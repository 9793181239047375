//! How images are named on the command line, as other tools name them too: `oci:DIR[:REF]`,
//! `docker-archive:FILE[:REF]`, `docker://HOST/REPOSITORY:TAG` or `@DIGEST`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use thiserror::Error;

/// Where an image is, or shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageName {
    /// An OCI image layout: a directory.
    Layout {
        /// The directory.
        directory: PathBuf,
        /// `org.opencontainers.image.ref.name` in it.
        reference: Option<String>,
    },
    /// What `docker save` writes: a tar file.
    Archive {
        /// The file.
        file: PathBuf,
        /// `REPOSITORY:TAG` in it.
        reference: Option<String>,
    },
    /// A registry.
    Registry(
        /// `HOST/REPOSITORY:TAG` or `HOST/REPOSITORY@DIGEST`.
        String,
    ),
}

/// Why text names no image.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum NameError {
    /// No transport, or one that is not known.
    #[error(
        "'{0}' names no image: it begins with oci:DIR[:REF], docker-archive:FILE[:REF] or docker://HOST/REPOSITORY:TAG"
    )]
    Transport(String),
    /// Nothing after the transport.
    #[error("'{0}' names no {1}")]
    Empty(String, &'static str),
    /// A reference that other tools don't read.
    #[error("'{0}' is no reference: letters, digits and -._:/@+ only, beginning with a letter or digit")]
    Reference(String),
}

impl FromStr for ImageName {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        if let Some(rest) = text.strip_prefix("docker://") {
            return match rest {
                "" => Err(NameError::Empty(text.to_owned(), "repository")),
                rest => Ok(Self::Registry(rest.to_owned())),
            };
        }
        let (transport, rest) = text.split_once(':').ok_or_else(|| NameError::Transport(text.to_owned()))?;
        // A file's name has no colon of its own here, as with other tools: the first ends it.
        let (path, reference) = match rest.split_once(':') {
            Some((path, reference)) => (path, Some(reference)),
            None => (rest, None),
        };
        let reference = reference.map(checked).transpose()?;
        match (transport, path) {
            ("oci", "") => Err(NameError::Empty(text.to_owned(), "directory")),
            ("docker-archive", "") => Err(NameError::Empty(text.to_owned(), "file")),
            ("oci", path) => Ok(Self::Layout { directory: path.into(), reference }),
            ("docker-archive", path) => Ok(Self::Archive { file: path.into(), reference }),
            _ => Err(NameError::Transport(text.to_owned())),
        }
    }
}

/// OCI image specification, "Annotations": the grammar of `org.opencontainers.image.ref.name`, without
/// repeated separators.
fn checked(reference: &str) -> Result<String, NameError> {
    let good = reference.len() <= 512
        && reference.starts_with(|first: char| first.is_ascii_alphanumeric())
        && reference.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:/@+".contains(&byte));
    if good { Ok(reference.to_owned()) } else { Err(NameError::Reference(reference.to_owned())) }
}

impl fmt::Display for ImageName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (transport, path, reference) = match self {
            Self::Registry(name) => return write!(formatter, "docker://{name}"),
            Self::Layout { directory, reference } => ("oci", directory, reference),
            Self::Archive { file, reference } => ("docker-archive", file, reference),
        };
        write!(formatter, "{transport}:{}", path.display())?;
        match reference {
            Some(reference) => write!(formatter, ":{reference}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for text in [
            "oci:layout",
            "oci:/a/b:v1",
            "oci:l:r.example/x:v1",
            "docker-archive:a.tar:x:v1",
            "docker://r.example/x:v1",
        ] {
            assert_eq!(text.parse::<ImageName>().unwrap().to_string(), text);
        }
        let named = "docker-archive:a.tar:busybox:v1".parse::<ImageName>().unwrap();
        let wanted = ImageName::Archive { file: "a.tar".into(), reference: Some("busybox:v1".to_owned()) };
        assert_eq!(named, wanted);
    }

    #[test]
    fn refused() {
        for bad in
            ["", "layout", "oci:", "oci::v1", "docker-archive:", "docker://", "dir:x", "oci:x:", "oci:x:a b"]
        {
            assert!(bad.parse::<ImageName>().is_err(), "{bad}");
        }
    }
}

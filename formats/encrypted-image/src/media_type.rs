//! Media types of layers, plain and encrypted: OCI's, its non-distributable ones, Docker's, and WebAssembly's.

use std::fmt;

/// Ends every encrypted layer's media type.
pub const SUFFIX: &str = "+encrypted";

/// A layer's media type, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LayerMediaType {
    /// Whose media type.
    pub family: Family,
    /// How the tar is compressed, inside of the encryption.
    pub compression: Compression,
    /// Whether the blob is encrypted.
    pub encrypted: bool,
}

/// Who defines a media type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// `application/vnd.oci.image.layer.v1.tar…`.
    Oci,
    /// `application/vnd.oci.image.layer.nondistributable.v1.tar…`.
    OciNonDistributable,
    /// `application/vnd.docker.image.rootfs.diff.tar…`.
    Docker,
    /// `application/vnd.docker.image.rootfs.foreign.diff.tar…`.
    DockerForeign,
    /// `application/vnd.wasm.content.layer.v1+wasm`: a module, not a tar, and never compressed.
    Wasm,
}

/// Compression of a layer's tar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compression {
    /// The tar itself.
    None,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

const FAMILIES: [(Family, &str); 5] = [
    (Family::Oci, "application/vnd.oci.image.layer.v1.tar"),
    (Family::OciNonDistributable, "application/vnd.oci.image.layer.nondistributable.v1.tar"),
    (Family::Docker, "application/vnd.docker.image.rootfs.diff.tar"),
    (Family::DockerForeign, "application/vnd.docker.image.rootfs.foreign.diff.tar"),
    (Family::Wasm, "application/vnd.wasm.content.layer.v1+wasm"),
];

impl LayerMediaType {
    /// The parts of `text`, or `None` when it isn't a layer's media type. Exact: no parameters, no other case.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (plain, encrypted) = match text.strip_suffix(SUFFIX) {
            Some(plain) => (plain, true),
            None => (text, false),
        };
        FAMILIES.iter().find_map(|&(family, base)| {
            let compression = family.compression(plain.strip_prefix(base)?)?;
            Some(Self { family, compression, encrypted })
        })
    }

    /// The media type of the same layer when it is encrypted.
    #[must_use]
    pub const fn encrypted(self) -> Self {
        Self { encrypted: true, ..self }
    }

    /// The media type of the same layer when it is decrypted.
    #[must_use]
    pub const fn plain(self) -> Self {
        Self { encrypted: false, ..self }
    }
}

impl Family {
    /// Docker joins the compression with a dot, OCI with a plus.
    fn suffix(self, compression: Compression) -> Option<&'static str> {
        let docker = matches!(self, Self::Docker | Self::DockerForeign);
        match compression {
            Compression::None => Some(""),
            _ if matches!(self, Self::Wasm) => None,
            Compression::Gzip if docker => Some(".gzip"),
            Compression::Gzip => Some("+gzip"),
            Compression::Zstd if docker => Some(".zstd"),
            Compression::Zstd => Some("+zstd"),
        }
    }

    fn compression(self, suffix: &str) -> Option<Compression> {
        [Compression::None, Compression::Gzip, Compression::Zstd]
            .into_iter()
            .find(|compression| self.suffix(*compression) == Some(suffix))
    }
}

impl fmt::Display for LayerMediaType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (family, base) in FAMILIES {
            if family == self.family {
                formatter.write_str(base)?;
            }
        }
        // A compressed module has no media type; what is closest says that it is one.
        formatter.write_str(self.family.suffix(self.compression).unwrap_or_default())?;
        formatter.write_str(if self.encrypted { SUFFIX } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [&str; 13] = [
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.oci.image.layer.v1.tar+gzip",
        "application/vnd.oci.image.layer.v1.tar+zstd",
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "application/vnd.docker.image.rootfs.diff.tar.zstd",
        "application/vnd.docker.image.rootfs.foreign.diff.tar",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.zstd",
        "application/vnd.wasm.content.layer.v1+wasm",
    ];

    #[test]
    fn every_type_both_ways() {
        for text in ALL {
            let plain = LayerMediaType::parse(text).unwrap();
            assert!(!plain.encrypted);
            assert_eq!(plain.to_string(), text);
            let encrypted = LayerMediaType::parse(&format!("{text}+encrypted")).unwrap();
            assert_eq!(encrypted, plain.encrypted());
            assert_eq!(encrypted.to_string(), format!("{text}+encrypted"));
            assert_eq!(encrypted.plain(), plain);
        }
    }

    #[test]
    fn nothing_else() {
        for text in [
            "",
            "+encrypted",
            "application/vnd.oci.image.layer.v1.tar+encrypted+encrypted",
            "application/vnd.oci.image.layer.v1.tar+encrypted+gzip",
            "application/vnd.oci.image.layer.v1.tar.gzip",
            "application/vnd.oci.image.layer.v1.tar+gzip+zstd",
            "application/vnd.oci.image.layer.v1.tar+gzip; a=b",
            "Application/vnd.oci.image.layer.v1.tar",
            "application/vnd.docker.image.rootfs.diff.tar+gzip",
            "application/vnd.wasm.content.layer.v1+wasm+gzip",
            "application/vnd.oci.image.config.v1+json",
            "application/vnd.oci.image.layer.v1.tar+encrypted ",
        ] {
            assert_eq!(LayerMediaType::parse(text), None, "{text}");
        }
    }
}

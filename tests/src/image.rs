//! A small real image: Debian's static busybox as an OCI layout.

use std::fs;
use std::io::{self, Read as _, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::process::Finished;

/// Debian's and Ubuntu's `busybox-static`.
pub(crate) const BUSYBOX: &str = "/bin/busybox";
pub(crate) const APPLETS: &[&str] = &[
    "sh",
    "cat",
    "cut",
    "date",
    "dd",
    "df",
    "echo",
    "env",
    "false",
    "find",
    "grep",
    "head",
    "hostname",
    "id",
    "kill",
    "ls",
    "mkdir",
    "mknod",
    "mount",
    "ps",
    "seq",
    "sha256sum",
    "sleep",
    "sort",
    "stat",
    "stty",
    "test",
    "touch",
    "tr",
    "true",
    "wc",
];
pub(crate) const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1000:web:/home/web:/bin/sh\n";
pub(crate) const GROUP: &str = "root:x:0:\nweb:x:1000:\nlogs:x:2000:web\n";

/// What an image has beside busybox.
#[derive(Debug, Default)]
pub struct Extra<'a> {
    /// Programs: where in the image, and which file.
    pub programs: &'a [(&'a str, &'a Path)],
    /// A file that nothing reads.
    pub ballast: &'a [u8],
    /// A file of so many zeros.
    pub zeros: u64,
}

/// Writes an OCI layout with one image, tagged `v1`, into `directory`.
///
/// # Errors
/// When busybox is missing or the layout can't be written.
pub fn write_layout(directory: &Path, extra: &Extra<'_>) -> Result<()> {
    let busybox = fs::read(BUSYBOX).with_context(|| format!("cannot read {BUSYBOX}: run scripts/setup"))?;
    let mut packed =
        Packed { gzip: GzEncoder::new(Vec::new(), Compression::fast()), unpacked: Sha256::new() };
    rootfs(&mut packed, &busybox, extra)?;
    let layer = packed.gzip.finish().context("cannot compress the layer")?;
    let diff_id = format!("sha256:{}", hex::encode(packed.unpacked.finalize()));

    let blobs = Blobs::below(directory)?;
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "config": {
            "Env": ["PATH=/bin", "GREETING=hello from the image"],
            "Entrypoint": ["/bin/sh", "-c"],
            "Cmd": ["echo nothing to do"],
            "WorkingDir": "/"
        },
        "rootfs": { "type": "layers", "diff_ids": [diff_id] },
        "history": [{ "created_by": "busybox-static" }]
    });
    let config = blobs.add("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes())?;
    let layer = blobs.add("application/vnd.oci.image.layer.v1.tar+gzip", &layer)?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config,
        "layers": [layer]
    });
    blobs.finish(&manifest).map(drop)
}

/// The manifest that a layout's `v1` names, and its digest.
///
/// # Errors
/// When the layout can't be read or has no `v1`.
pub fn manifest_of(layout: &Path) -> Result<(Value, String)> {
    let read = |path: PathBuf| -> Result<Value> {
        let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("{} is not JSON", path.display()))
    };
    let index = read(layout.join("index.json"))?;
    let digest = index["manifests"][0]["digest"].as_str().context("the layout names no manifest")?.to_owned();
    let manifest = read(layout.join("blobs/sha256").join(digest.trim_start_matches("sha256:")))?;
    Ok((manifest, digest))
}

/// An OCI layout in the making.
#[derive(Debug)]
pub struct Blobs {
    layout: PathBuf,
}

impl Blobs {
    /// Those of the layout in `directory`, which is made if missing.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn below(directory: &Path) -> Result<Self> {
        fs::create_dir_all(directory.join("blobs/sha256")).context("cannot make the layout")?;
        Ok(Self { layout: directory.to_owned() })
    }

    /// Stores the manifest, and names it `v1`. Returns its digest.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn finish(&self, manifest: &Value) -> Result<String> {
        let mut descriptor =
            self.add("application/vnd.oci.image.manifest.v1+json", manifest.to_string().as_bytes())?;
        descriptor["annotations"] = json!({ "org.opencontainers.image.ref.name": "v1" });
        let index = json!({ "schemaVersion": 2, "manifests": [descriptor] });
        fs::write(self.layout.join("index.json"), index.to_string()).context("cannot write index.json")?;
        fs::write(self.layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)
            .context("cannot write oci-layout")?;
        Ok(descriptor["digest"].as_str().unwrap_or_default().to_owned())
    }

    /// Stores a blob and returns its descriptor.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn add(&self, media_type: &str, bytes: &[u8]) -> Result<Value> {
        let digest = digest(bytes);
        let name = digest.trim_start_matches("sha256:");
        fs::write(self.layout.join("blobs/sha256").join(name), bytes).context("cannot write a blob")?;
        Ok(json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() }))
    }
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

fn rootfs(out: &mut Packed, busybox: &[u8], extra: &Extra<'_>) -> Result<()> {
    let mut tar = tar::Builder::new(out);
    for (path, mode) in [
        ("bin/", 0o755),
        ("etc/", 0o755),
        ("proc/", 0o555),
        ("sys/", 0o555),
        ("dev/", 0o755),
        ("tmp/", 0o1777),
    ] {
        entry(&mut tar, path, tar::EntryType::Directory, mode, &[])?;
    }
    entry(&mut tar, "bin/busybox", tar::EntryType::Regular, 0o755, busybox)?;
    for applet in APPLETS {
        let mut header = header(tar::EntryType::Symlink, 0o777, 0);
        tar.append_link(&mut header, format!("bin/{applet}"), "busybox").context("cannot add a link")?;
    }
    entry(&mut tar, "etc/passwd", tar::EntryType::Regular, 0o644, PASSWD.as_bytes())?;
    entry(&mut tar, "etc/group", tar::EntryType::Regular, 0o644, GROUP.as_bytes())?;
    for (path, program) in extra.programs {
        let bytes = fs::read(program).with_context(|| format!("cannot read {}", program.display()))?;
        entry(&mut tar, path.trim_start_matches('/'), tar::EntryType::Regular, 0o755, &bytes)?;
    }
    if !extra.ballast.is_empty() {
        entry(&mut tar, "ballast", tar::EntryType::Regular, 0o644, extra.ballast)?;
    }
    if extra.zeros > 0 {
        let mut header = header(tar::EntryType::Regular, 0o644, extra.zeros);
        let zeros = io::repeat(0).take(extra.zeros);
        tar.append_data(&mut header, "zeros", zeros).context("cannot add zeros")?;
    }
    tar.into_inner().map(drop).context("cannot finish the layer")
}

/// A layer as it is transferred, and the digest of what it unpacks to.
struct Packed {
    gzip: GzEncoder<Vec<u8>>,
    unpacked: Sha256,
}

impl Write for Packed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = self.gzip.write(bytes)?;
        self.unpacked.update(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.gzip.flush()
    }
}

/// A copy of a built program without what only a debugger reads, to fit into small guests.
///
/// # Errors
/// When `strip` is missing or fails.
pub fn stripped(program: &Path, directory: &Path) -> Result<PathBuf> {
    let name = program.file_name().context("the program has no name")?;
    let to = directory.join(name);
    Finished::of(Command::new("strip").arg("-o").arg(&to).arg(program))?.success("strip")?;
    Ok(to)
}

fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

fn entry(
    tar: &mut tar::Builder<&mut Packed>,
    path: &str,
    kind: tar::EntryType,
    mode: u32,
    bytes: &[u8],
) -> Result<()> {
    let mut header = header(kind, mode, bytes.len() as u64);
    tar.append_data(&mut header, path, bytes).with_context(|| format!("cannot add {path}"))
}

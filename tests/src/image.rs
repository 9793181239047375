//! A small real image: Debian's static busybox as an OCI layout.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;
use sha2::{Digest, Sha256};

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
    "true",
    "wc",
];
pub(crate) const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1000:web:/home/web:/bin/sh\n";
pub(crate) const GROUP: &str = "root:x:0:\nweb:x:1000:\nlogs:x:2000:web\n";

/// Writes an OCI layout with one image, tagged `v1`, into `directory`. `ballast` makes it larger: a file that
/// nothing reads.
///
/// # Errors
/// When busybox is missing or the layout can't be written.
pub fn write_layout(directory: &Path, ballast: &[u8]) -> Result<()> {
    let busybox = fs::read(BUSYBOX).with_context(|| format!("cannot read {BUSYBOX}: run scripts/setup"))?;
    let tar = rootfs(&busybox, ballast)?;
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    std::io::Write::write_all(&mut encoder, &tar).context("cannot compress the layer")?;
    let layer = encoder.finish().context("cannot compress the layer")?;

    let blobs = Blobs { directory: directory.join("blobs/sha256") };
    fs::create_dir_all(&blobs.directory).context("cannot make the layout")?;
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "config": {
            "Env": ["PATH=/bin", "GREETING=hello from the image"],
            "Entrypoint": ["/bin/sh", "-c"],
            "Cmd": ["echo nothing to do"],
            "WorkingDir": "/"
        },
        "rootfs": { "type": "layers", "diff_ids": [digest(&tar)] },
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
    let mut manifest =
        blobs.add("application/vnd.oci.image.manifest.v1+json", manifest.to_string().as_bytes())?;
    manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": "v1" });
    let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
    fs::write(directory.join("index.json"), index.to_string()).context("cannot write index.json")?;
    fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)
        .context("cannot write oci-layout")
}

struct Blobs {
    directory: std::path::PathBuf,
}

impl Blobs {
    /// Stores a blob and returns its descriptor.
    fn add(&self, media_type: &str, bytes: &[u8]) -> Result<serde_json::Value> {
        let digest = digest(bytes);
        let name = digest.trim_start_matches("sha256:");
        fs::write(self.directory.join(name), bytes).context("cannot write a blob")?;
        Ok(json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() }))
    }
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

fn rootfs(busybox: &[u8], ballast: &[u8]) -> Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
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
    if !ballast.is_empty() {
        entry(&mut tar, "ballast", tar::EntryType::Regular, 0o644, ballast)?;
    }
    tar.into_inner().context("cannot finish the layer")
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
    tar: &mut tar::Builder<Vec<u8>>,
    path: &str,
    kind: tar::EntryType,
    mode: u32,
    bytes: &[u8],
) -> Result<()> {
    let mut header = header(kind, mode, bytes.len() as u64);
    tar.append_data(&mut header, path, bytes).with_context(|| format!("cannot add {path}"))
}

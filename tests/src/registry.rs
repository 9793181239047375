//! Debian's docker-registry on loopback, with the test image pushed by skopeo.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::image::{self, Extra};
use crate::process::{Daemon, Finished, free_address};

/// What owners write in their manifests; only the sealed spec knows where it really is.
pub const HOST: &str = "registry.example";

/// A running registry that holds `busybox:v1`.
#[derive(Debug)]
pub struct Registry {
    address: SocketAddr,
    directory: PathBuf,
    daemon: Daemon,
}

impl Registry {
    /// Starts the registry under `directory` and pushes the image.
    ///
    /// # Errors
    /// When docker-registry, skopeo or busybox is missing or fails.
    pub fn start(directory: &Path) -> Result<Self> {
        fs::create_dir_all(directory).context("cannot make the registry's directory")?;
        let address = free_address()?;
        let configuration = directory.join("config.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: warn, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '{address}'}}\n",
            directory.join("data").display()
        );
        fs::write(&configuration, text).context("cannot write the registry's configuration")?;
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&configuration).env_clear();
        let mut daemon = Daemon::start("docker-registry", &mut command, &directory.join("log"))?;
        daemon.wait_listening(address)?;

        let registry = Self { address, directory: directory.to_owned(), daemon };
        registry.push("busybox", &Extra::default())?;
        Ok(registry)
    }

    /// Pushes the image as `NAME:v1`, with `extra` added.
    ///
    /// # Errors
    /// When skopeo or busybox is missing or fails.
    pub fn push(&self, name: &str, extra: &Extra<'_>) -> Result<()> {
        let layout = self.layout(name);
        image::write_layout(&layout, extra)?;
        self.push_layout(&layout, name, "v1")
    }

    /// The OCI layout of an image that was pushed.
    #[must_use]
    pub fn layout(&self, name: &str) -> PathBuf {
        self.directory.join(format!("layout-{name}"))
    }

    /// Pushes a layout's `v1`, byte for byte.
    ///
    /// # Errors
    /// When skopeo is missing or fails.
    pub fn push_layout(&self, layout: &Path, name: &str, tag: &str) -> Result<()> {
        Finished::of(
            Command::new("skopeo")
                .args(["copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false"])
                .arg(format!("oci:{}:v1", layout.display()))
                .arg(format!("docker://{}/{name}:{tag}", self.address)),
        )?
        .success("skopeo copy")
        .map(drop)
    }

    /// Flips one bit in the middle of a blob, as whoever runs the registry can.
    ///
    /// # Errors
    /// When the registry has no such blob.
    pub fn flip_a_bit(&self, digest: &str) -> Result<()> {
        let hex = digest.trim_start_matches("sha256:");
        let short = hex.get(..2).context("the digest is too short")?;
        let path = self.directory.join(format!("data/docker/registry/v2/blobs/sha256/{short}/{hex}/data"));
        let mut bytes = fs::read(&path).with_context(|| format!("the registry has no blob {digest}"))?;
        let middle = bytes.len() / 2;
        *bytes.get_mut(middle).context("the blob is empty")? ^= 1;
        fs::write(&path, bytes).context("cannot write the changed blob")
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the owner's machine reaches it.
    #[must_use]
    pub fn location(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where a guest on QEMU's user network reaches the host's loopback.
    #[must_use]
    pub fn location_from_guest(&self) -> String {
        format!("http://10.0.2.2:{}", self.address.port())
    }

    /// Ends the registry, as an unreachable one.
    ///
    /// # Errors
    /// When it can't be signalled.
    pub fn stop(&mut self) -> Result<()> {
        self.daemon.stop().map(drop)
    }
}

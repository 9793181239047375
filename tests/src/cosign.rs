//! cosign's signatures, made by OpenSSL: a payload, and a manifest beside the image that carries it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::json;

use crate::image::Blobs;
use crate::process::Finished;
use crate::registry::Registry;

/// A key that signs images.
#[derive(Debug)]
pub struct Signer {
    directory: PathBuf,
}

impl Signer {
    /// A new key, P-256, in `directory`.
    ///
    /// # Errors
    /// When openssl is missing or fails.
    pub fn new(directory: &Path) -> Result<Self> {
        fs::create_dir_all(directory).context("cannot make the signer's directory")?;
        let signer = Self { directory: directory.to_owned() };
        signer.openssl(&[
            "genpkey",
            "-algorithm",
            "EC",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-out",
            "key.pem",
        ])?;
        signer.openssl(&["pkey", "-in", "key.pem", "-pubout", "-out", "key.pub"])?;
        Ok(signer)
    }

    /// An image policy that asks for this key's signature on every image of `host`.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn policy(&self, host: &str) -> Result<PathBuf> {
        let key = self.directory.join("key.pub");
        let signed = json!([{ "type": "sigstoreSigned", "keyPath": key, "signedIdentity": { "type": "matchRepository" } }]);
        let policy =
            json!({ "default": [{ "type": "reject" }], "transports": { "docker": { host: signed } } });
        let path = self.directory.join("policy.json");
        fs::write(&path, policy.to_string()).context("cannot write the policy")?;
        Ok(path)
    }

    /// Signs the image with this digest as one of `reference`, a repository's name, and pushes the signature.
    ///
    /// # Errors
    /// When openssl or skopeo fails.
    pub fn sign(&self, registry: &Registry, name: &str, reference: &str, digest: &str) -> Result<()> {
        let payload = json!({
            "critical": {
                "identity": { "docker-reference": reference },
                "image": { "docker-manifest-digest": digest },
                "type": "cosign container image signature"
            },
            "optional": null
        })
        .to_string();
        fs::write(self.directory.join("payload"), &payload).context("cannot write the payload")?;
        self.openssl(&["dgst", "-sha256", "-sign", "key.pem", "-out", "signature", "payload"])?;
        let signature = self.openssl(&["base64", "-A", "-in", "signature"])?;

        let layout = self.layout();
        let blobs = Blobs::below(&layout)?;
        let mut layer = blobs.add("application/vnd.dev.cosign.simplesigning.v1+json", payload.as_bytes())?;
        let config = json!({ "architecture": "", "os": "", "config": {}, "rootfs": { "type": "layers", "diff_ids": [layer["digest"]] } });
        let config = blobs.add("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes())?;
        layer["annotations"] = json!({ "dev.cosignproject.cosign/signature": signature.trim() });
        blobs.finish(&json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config,
            "layers": [layer]
        }))?;
        registry.push_layout(&layout, name, &format!("{}.sig", digest.replace(':', "-")))
    }

    /// The layout of the last signature.
    #[must_use]
    pub fn layout(&self) -> PathBuf {
        self.directory.join("layout")
    }

    fn openssl(&self, arguments: &[&str]) -> Result<String> {
        Finished::of(Command::new("openssl").args(arguments).current_dir(&self.directory))?.success("openssl")
    }
}

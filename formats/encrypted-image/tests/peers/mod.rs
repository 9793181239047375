//! The real tools: keys by openssl, images encrypted and decrypted by skopeo.

#![allow(dead_code, clippy::unwrap_used, clippy::panic, reason = "a test; each file uses a part of it")]

pub(crate) mod keys;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use encrypted_image::{
    Decryptor, EncryptedLayer, Encryptor, Keyring, LayerMediaType, PrivateOptions, PublicOptions, Unwrap,
    Wrap, WrappedKey,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// What a command prints; fails the test with its error otherwise.
pub(crate) fn run(program: &str, args: &[&str], dir: &Path) -> Vec<u8> {
    let output = Command::new(program).args(args).current_dir(dir).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {error}");
    output.stdout
}

/// Runs openssl with words that hold no spaces.
pub(crate) fn openssl(dir: &Path, line: &str) -> Vec<u8> {
    run("openssl", &line.split_whitespace().collect::<Vec<_>>(), dir)
}

pub(crate) fn read(dir: &Path, name: &str) -> Vec<u8> {
    std::fs::read(dir.join(name)).unwrap()
}

/// A directory with an OCI layout `plain` of one gzip layer, and the keys that a test makes.
pub(crate) struct Bench {
    dir: TempDir,
    layer: Vec<u8>,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), vec![b'x'; 40_000]).unwrap();
        run("tar", &["-cf", "layer.tar", "file"], dir.path());
        run("gzip", &["-n", "-k", "layer.tar"], dir.path());
        let layer = read(dir.path(), "layer.tar.gz");
        let bench = Self { dir, layer };
        let descriptor = json!({
            "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
            "digest": digest(&bench.layer),
            "size": bench.layer.len(),
        });
        bench.write_layout("plain", &descriptor, &bench.layer);
        bench
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn openssl(&self, line: &str) {
        openssl(self.dir(), line);
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        read(self.dir(), name)
    }

    /// `NAME.pem`, `NAME.pub` and `NAME.crt`.
    pub(crate) fn rsa(&self, name: &str) {
        self.openssl(&format!("genrsa -out {name}.pem 2048"));
        self.openssl(&format!("rsa -in {name}.pem -pubout -out {name}.pub"));
        self.openssl(&format!(
            "req -new -x509 -key {name}.pem -subj /CN={name}/O=Acme -days 30 -out {name}.crt"
        ));
    }

    /// `NAME.pem` and `NAME.pub`; peers read EC keys as PKCS #8 only.
    pub(crate) fn ec(&self, name: &str, curve: &str) {
        self.openssl(&format!("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:{curve} -out {name}.pem"));
        self.openssl(&format!("pkey -in {name}.pem -pubout -out {name}.pub"));
    }

    /// Has skopeo encrypt the plain image, and opens the result's layer with `keys`.
    pub(crate) fn theirs_opens(&self, recipients: &[&str], keys: Vec<Box<dyn Unwrap>>) {
        let layout = format!("theirs-{}", recipients.join("-").replace(':', "-"));
        // An existing layout would get a second image.
        let _ = std::fs::remove_dir_all(self.dir().join(&layout));
        let to = format!("oci:{layout}:v1");
        let mut args = vec!["copy", "--quiet"];
        recipients.iter().for_each(|recipient| args.extend(["--encryption-key", recipient]));
        args.extend(["oci:plain:v1", &to]);
        run("skopeo", &args, self.dir());
        let (annotations, mut blob) = self.layer_of(&layout);
        let layer = EncryptedLayer::parse(&annotations).unwrap();
        let private = Keyring::new(keys).open(&layer).unwrap();
        let mut decryptor = Decryptor::new(&private, &layer.public);
        decryptor.update(&mut blob);
        decryptor.finish().unwrap();
        assert_eq!(blob, self.layer);
    }

    /// Encrypts the layer as an image named `name`.
    pub(crate) fn encrypt(&self, name: &str, wraps: &[&dyn Wrap]) {
        let private = self.private_options();
        let keys = wraps
            .iter()
            .map(|wrap| WrappedKey { scheme: wrap.scheme(), blob: wrap.wrap(&private).unwrap() })
            .collect();
        self.write_encrypted(name, &private, keys);
    }

    pub(crate) fn private_options(&self) -> PrivateOptions {
        PrivateOptions::generate(Sha256::digest(&self.layer).into()).unwrap()
    }

    pub(crate) fn write_encrypted(&self, name: &str, private: &PrivateOptions, wrapped: Vec<WrappedKey>) {
        let mut blob = self.layer.clone();
        let mut encryptor = Encryptor::new(private.key(), private.nonce());
        encryptor.update(&mut blob);
        let layer = EncryptedLayer { public: PublicOptions::new(encryptor.finish()), wrapped };
        let plain = LayerMediaType::parse("application/vnd.oci.image.layer.v1.tar+gzip").unwrap();
        let descriptor = json!({
            "mediaType": plain.encrypted().to_string(),
            "digest": digest(&blob),
            "size": blob.len(),
            "annotations": layer.to_annotations(),
        });
        self.write_layout(name, &descriptor, &blob);
    }

    /// Has skopeo decrypt image `name` with the keys; whether it came out as it went in.
    pub(crate) fn skopeo_decrypts(&self, name: &str, keys: &[&str]) -> bool {
        let (from, to) = (format!("oci:{name}:v1"), format!("{name}-by-{}", keys.join("-")));
        let target = format!("oci:{to}:v1");
        let mut args = vec!["copy", "--quiet"];
        keys.iter().for_each(|key| args.extend(["--decryption-key", key]));
        args.extend([from.as_str(), &target]);
        let output = Command::new("skopeo").args(&args).current_dir(self.dir()).output().unwrap();
        output.status.success() && self.layer_of(&to).1 == self.layer
    }

    fn blob(&self, layout: &str, digest: &Value) -> Vec<u8> {
        let digest = digest.as_str().unwrap().replace(':', "/");
        self.read(&format!("{layout}/blobs/{digest}"))
    }

    fn layer_of(&self, layout: &str) -> (BTreeMap<String, String>, Vec<u8>) {
        let index: Value = serde_json::from_slice(&self.read(&format!("{layout}/index.json"))).unwrap();
        let manifest = self.blob(layout, &index["manifests"][0]["digest"]);
        let manifest: Value = serde_json::from_slice(&manifest).unwrap();
        let layer = &manifest["layers"][0];
        let annotations = serde_json::from_value(layer["annotations"].clone()).unwrap_or_default();
        (annotations, self.blob(layout, &layer["digest"]))
    }

    fn write_layout(&self, name: &str, layer: &Value, blob: &[u8]) {
        let root = self.dir().join(name);
        let put = |bytes: &[u8], media_type: &str| {
            let blobs: PathBuf = root.join("blobs/sha256");
            std::fs::create_dir_all(&blobs).unwrap();
            let digest = digest(bytes);
            std::fs::write(blobs.join(digest.strip_prefix("sha256:").unwrap()), bytes).unwrap();
            json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })
        };
        put(blob, "");
        let config = json!({
            "architecture": "amd64", "os": "linux", "config": {},
            "rootfs": { "type": "layers", "diff_ids": [digest(&self.read("layer.tar"))] },
        });
        let config = put(config.to_string().as_bytes(), "application/vnd.oci.image.config.v1+json");
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        let manifest =
            json!({ "schemaVersion": 2, "mediaType": media_type, "config": config, "layers": [layer] });
        let mut manifest = put(manifest.to_string().as_bytes(), media_type);
        manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": "v1" });
        let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
        std::fs::write(root.join("index.json"), index.to_string()).unwrap();
        std::fs::write(root.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    }
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

//! A directory with images and keys that other tools made.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// A directory in which commands run, with a home and a GnuPG of its own.
pub(crate) struct Workshop {
    dir: tempfile::TempDir,
}

impl Workshop {
    /// With an image `plain:v1` of two layers.
    pub(crate) fn new() -> Self {
        let shop = Self { dir: tempfile::tempdir().unwrap() };
        for layer in ["base", "top"] {
            let path = shop.path(layer);
            std::fs::create_dir(&path).unwrap();
            std::fs::write(path.join(layer), layer.repeat(50_000)).unwrap();
        }
        shop.sh("umoci init --layout plain && umoci new --image plain:v1");
        for layer in ["base", "top"] {
            shop.sh(&format!("umoci insert --rootless --image plain:v1 {layer} /{layer}"));
        }
        shop
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.dir.path())
            .env("HOME", self.dir.path())
            .env("GNUPGHOME", self.path("gnupg"))
            .env_remove("REGISTRY_AUTH_FILE")
            .env_remove("OCICRYPT_KEYPROVIDER_CONFIG");
        command
    }

    fn try_sh(&self, script: &str) -> Output {
        self.command("sh").args(["-euc", script]).output().unwrap()
    }

    /// Other tools' commands; their output.
    pub(crate) fn sh(&self, script: &str) -> String {
        let output = self.try_sh(script);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{script}: {text}{}", String::from_utf8_lossy(&output.stderr));
        text
    }

    /// Another tool's command that must fail.
    pub(crate) fn sh_fails(&self, script: &str) {
        assert!(!self.try_sh(script).status.success(), "{script} succeeded");
    }

    fn image(&self, arguments: &str) -> Output {
        self.command(env!("CARGO_BIN_EXE_sealpod")).arg("image").args(arguments.split(' ')).output().unwrap()
    }

    /// `sealpod image …`; its output.
    pub(crate) fn good(&self, arguments: &str) -> String {
        let output = self.image(arguments);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{arguments}: {text}{}", String::from_utf8_lossy(&output.stderr));
        text
    }

    /// The same when it must fail; what it says on standard error.
    pub(crate) fn refused(&self, arguments: &str) -> String {
        let output = self.image(arguments);
        assert!(!output.status.success(), "{arguments} was accepted");
        String::from_utf8(output.stderr).unwrap()
    }

    /// `rsa`, `ec` (SEC 1) or another name: `NAME.pem`, `NAME.pub`, and for RSA a certificate `NAME.crt`.
    pub(crate) fn rsa(&self, name: &str) {
        self.sh(&format!(
            "openssl genrsa -out {name}.pem 2048 2>&1; openssl rsa -in {name}.pem -pubout -out {name}.pub 2>&1; \
             openssl req -new -x509 -key {name}.pem -subj /CN={name} -days 3650 -out {name}.crt"
        ));
    }

    pub(crate) fn ec(&self, name: &str) {
        self.sh(&format!(
            "openssl ecparam -name prime256v1 -genkey -noout -out {name}.sec1 2>&1; \
             openssl pkcs8 -topk8 -nocrypt -in {name}.sec1 -out {name}.pem; \
             openssl ec -in {name}.sec1 -pubout -out {name}.pub 2>&1"
        ));
    }

    /// What `umoci` unpacks of two images is the same.
    pub(crate) fn same(&self, one: &str, other: &str) {
        let digests = |image: &str| self.layers(image);
        assert_eq!(digests(one), digests(other), "{one}, {other}");
    }

    /// Digests and media types of an image's layers, as skopeo reads them.
    pub(crate) fn layers(&self, image: &str) -> Vec<(String, String)> {
        let raw: Value =
            serde_json::from_str(&self.sh(&format!("skopeo inspect --raw oci:{image}"))).unwrap();
        let layers = raw["layers"].as_array().unwrap_or_else(|| panic!("{image}: {raw}"));
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        layers.iter().map(|layer| (text(&layer["digest"]), text(&layer["mediaType"]))).collect()
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        // GnuPG's agent stays otherwise.
        let _ = self.command("gpgconf").args(["--kill", "all"]).output();
    }
}

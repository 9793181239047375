//! Keys, images and the programs that work on them, in a directory of its own.

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Something that opens images: how recipients name it, and what each program is given to decrypt.
pub(crate) struct Access {
    pub(crate) recipient: &'static str,
    pub(crate) skopeo: &'static [&'static str],
    pub(crate) sealpod: &'static [&'static str],
}

pub(crate) const RSA: Access =
    Access { recipient: "jwe:rsa.pub", skopeo: &["rsa.pem"], sealpod: &["rsa.pem"] };
pub(crate) const EC: Access =
    Access { recipient: "jwe:ec.pub", skopeo: &["ec-pkcs8.pem"], sealpod: &["ec.pem"] };
pub(crate) const PKCS7: Access =
    Access { recipient: "pkcs7:cms.crt", skopeo: &["cms.pem", "cms.crt"], sealpod: &["cms.pem", "cms.crt"] };
pub(crate) const PGP: Access =
    Access { recipient: "pgp:layers@example", skopeo: &["secret.gpg"], sealpod: &["secret.gpg"] };

/// A directory with keys, and with the layouts `plain` (three layers, `v1`) and `multi` (two platforms, `v1`).
pub(crate) struct Bench(TempDir);

/// A blob of an image: media type, digest, size. Its bytes were checked against that.
pub(crate) type Part = (String, String, u64);
/// By platform: the config, then the layers from the base up.
pub(crate) type Contents = BTreeMap<String, Vec<Part>>;

impl Bench {
    pub(crate) fn new() -> Self {
        let bench = Self(tempfile::Builder::new().prefix("img").tempdir().unwrap());
        bench.keys();
        bench.images();
        bench
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.0.path()).stdin(Stdio::null());
        command.env("HOME", self.0.path()).env("GNUPGHOME", self.path("gnupg"));
        command.env_remove("REGISTRY_AUTH_FILE").env_remove("OCICRYPT_KEYPROVIDER_CONFIG");
        command
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Output {
        let output = self.command(program).args(arguments).output();
        output.unwrap_or_else(|error| panic!("{program}: {error}: run scripts/setup"))
    }

    pub(crate) fn good(&self, program: &str, arguments: &[&str]) -> Vec<u8> {
        let output = self.run(program, arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{program} {arguments:?}: {}{said}",
            String::from_utf8_lossy(&output.stdout)
        );
        output.stdout
    }

    /// `sealpod image …`
    pub(crate) fn sealpod(&self, arguments: &[&str]) -> Output {
        self.run(env!("CARGO_BIN_EXE_sealpod"), &[&["--identity", "id", "image"], arguments].concat())
    }

    pub(crate) fn sealpod_good(&self, arguments: &[&str]) {
        let output = self.sealpod(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// What it says on standard error when it fails.
    pub(crate) fn sealpod_refuses(&self, arguments: &[&str]) -> String {
        let output = self.sealpod(arguments);
        assert!(!output.status.success(), "{arguments:?} was accepted");
        String::from_utf8(output.stderr).unwrap()
    }

    /// `skopeo copy` with options of encryption; whether it succeeded.
    pub(crate) fn skopeo(&self, options: &[&str], from: &str, to: &str) -> Output {
        let tls = ["--src-tls-verify=false", "--dest-tls-verify=false"];
        self.run(
            "skopeo",
            &[&["copy", "--quiet", "--insecure-policy"][..], &tls, options, &[from, to]].concat(),
        )
    }

    pub(crate) fn skopeo_good(&self, options: &[&str], from: &str, to: &str) {
        let output = self.skopeo(options, from, to);
        assert!(
            output.status.success(),
            "{options:?} {from} {to}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    fn keys(&self) {
        let openssl = |arguments: &[&str]| self.good("openssl", arguments);
        for name in ["rsa", "cms", "other"] {
            openssl(&["genrsa", "-out", &format!("{name}.pem"), "2048"]);
            openssl(&["rsa", "-in", &format!("{name}.pem"), "-pubout", "-out", &format!("{name}.pub")]);
        }
        openssl(&[
            "req",
            "-new",
            "-x509",
            "-key",
            "cms.pem",
            "-subj",
            "/CN=layers",
            "-days",
            "30",
            "-out",
            "cms.crt",
        ]);
        openssl(&["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "ec.pem"]);
        openssl(&["pkcs8", "-topk8", "-nocrypt", "-in", "ec.pem", "-out", "ec-pkcs8.pem"]);
        openssl(&["ec", "-in", "ec.pem", "-pubout", "-out", "ec.pub"]);
        fs::create_dir(self.path("gnupg")).unwrap();
        fs::set_permissions(self.path("gnupg"), fs::Permissions::from_mode(0o700)).unwrap();
        let gpg = |arguments: &[&str]| {
            self.good("gpg", &[&["--batch", "--quiet", "--passphrase", ""], arguments].concat())
        };
        gpg(&["--quick-gen-key", "Layers <layers@example>", "rsa2048", "sign", "never"]);
        let listed = String::from_utf8(gpg(&["--list-keys", "--with-colons"])).unwrap();
        let fingerprint =
            listed.lines().find(|line| line.starts_with("fpr:")).unwrap().split(':').nth(9).unwrap();
        gpg(&["--quick-add-key", fingerprint, "rsa2048", "encr", "never"]);
        fs::write(self.path("secret.gpg"), gpg(&["--export-secret-keys"])).unwrap();
    }

    fn images(&self) {
        for index in 0..3_u8 {
            // Neither all compressible nor all random.
            let random: Vec<u8> = (0..2000_u32)
                .flat_map(|n| Sha256::digest([&n.to_be_bytes()[..], &[index]].concat()))
                .collect();
            fs::write(self.path(&format!("file{index}")), [random, vec![index; 50_000]].concat()).unwrap();
        }
        let umoci = |arguments: &[&str]| self.good("umoci", arguments);
        umoci(&["init", "--layout", "plain"]);
        for (tag, architecture, layers) in [("v1", "amd64", &[0, 1, 2][..]), ("arm", "arm64", &[0, 2])] {
            let image = format!("plain:{tag}");
            umoci(&["new", "--image", &image]);
            for layer in layers {
                umoci(&[
                    "insert",
                    "--rootless",
                    "--image",
                    &image,
                    &format!("file{layer}"),
                    &format!("/data/file{layer}"),
                ]);
            }
            umoci(&["config", "--image", &image, "--architecture", architecture]);
        }
        self.good("cp", &["-r", "plain", "multi"]);
        let mut manifests = Vec::new();
        for (tag, architecture) in [("v1", "amd64"), ("arm", "arm64")] {
            let mut descriptor = self.named("plain", tag);
            descriptor.as_object_mut().unwrap().remove("annotations");
            descriptor["platform"] = json!({ "os": "linux", "architecture": architecture });
            manifests.push(descriptor);
        }
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests }).to_string();
        let digest = format!("{:x}", Hex(&Sha256::digest(&index)));
        fs::write(self.path(&format!("multi/blobs/sha256/{digest}")), &index).unwrap();
        let descriptor = json!({
            "mediaType": INDEX, "digest": format!("sha256:{digest}"), "size": index.len(),
            "annotations": { REF_NAME: "v1" }
        });
        let layout = json!({ "schemaVersion": 2, "manifests": [descriptor] });
        fs::write(self.path("multi/index.json"), layout.to_string()).unwrap();
    }

    fn named(&self, layout: &str, tag: &str) -> Value {
        let index: Value =
            serde_json::from_slice(&fs::read(self.path(layout).join("index.json")).unwrap()).unwrap();
        let found =
            index["manifests"].as_array().unwrap().iter().find(|it| it["annotations"][REF_NAME] == tag);
        found.unwrap_or_else(|| panic!("{layout} has no {tag}")).clone()
    }

    /// A blob that is what its descriptor says.
    fn blob(&self, layout: &str, descriptor: &Value) -> Vec<u8> {
        let digest = descriptor["digest"].as_str().unwrap();
        let path = self.path(layout).join("blobs/sha256").join(digest.trim_start_matches("sha256:"));
        let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(format!("sha256:{:x}", Hex(&Sha256::digest(&bytes))), digest);
        assert_eq!(descriptor["size"].as_u64(), Some(bytes.len() as u64));
        bytes
    }

    /// The manifests that a layout's `v1` names, by platform.
    pub(crate) fn manifests(&self, layout: &str) -> BTreeMap<String, Value> {
        let top = self.named(layout, "v1");
        let document: Value = serde_json::from_slice(&self.blob(layout, &top)).unwrap();
        let descriptors = match document["manifests"].as_array() {
            Some(manifests) => manifests.clone(),
            None => vec![top],
        };
        let mut found = BTreeMap::new();
        for descriptor in descriptors {
            let manifest: Value = serde_json::from_slice(&self.blob(layout, &descriptor)).unwrap();
            let config: Value = serde_json::from_slice(&self.blob(layout, &manifest["config"])).unwrap();
            found.insert(config["architecture"].as_str().unwrap().to_owned(), manifest);
        }
        found
    }

    pub(crate) fn contents(&self, layout: &str) -> Contents {
        let part = |descriptor: &Value| {
            self.blob(layout, descriptor);
            let text = |key: &str| descriptor[key].as_str().unwrap().to_owned();
            (text("mediaType"), text("digest"), descriptor["size"].as_u64().unwrap())
        };
        let manifests = self.manifests(layout);
        let parts = |manifest: &Value| {
            let layers = manifest["layers"].as_array().unwrap();
            std::iter::once(&manifest["config"]).chain(layers).map(part).collect()
        };
        manifests.iter().map(|(platform, manifest)| (platform.clone(), parts(manifest))).collect()
    }

    /// Asserts that a layout holds what `plain` does, without a trace of encryption.
    pub(crate) fn is_plain(&self, layout: &str, plain: &str, what: &str) {
        assert_eq!(self.contents(layout), self.contents(plain), "{what}");
        for manifest in self.manifests(layout).values() {
            assert!(!manifest.to_string().contains("image.enc."), "{what}: {manifest}");
        }
        fs::remove_dir_all(self.path(layout)).unwrap();
    }

    /// Asserts that just these layers of each platform are encrypted, and that everything else is as in `plain`.
    pub(crate) fn is_encrypted(&self, layout: &str, plain: &str, layers: &[usize], what: &str) {
        let (encrypted, plain) = (self.contents(layout), self.contents(plain));
        assert_eq!(encrypted.keys().collect::<Vec<_>>(), plain.keys().collect::<Vec<_>>(), "{what}");
        for (platform, parts) in &encrypted {
            for (index, (part, before)) in parts.iter().zip(&plain[platform]).enumerate() {
                // The config is first.
                if index > 0 && (layers.is_empty() || layers.contains(&(index - 1))) {
                    assert_eq!(part.0, format!("{}+encrypted", before.0), "{what}");
                    assert!(part.1 != before.1 && part.2 == before.2, "{what}");
                } else {
                    assert_eq!(part, before, "{what}");
                }
            }
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = self.command("gpgconf").args(["--kill", "all"]).output();
    }
}

struct Hex<'a>(&'a [u8]);

impl std::fmt::LowerHex for Hex<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Debian's docker-registry on loopback.
pub(crate) struct Registry {
    pub(crate) address: SocketAddr,
    child: Child,
}

impl Registry {
    pub(crate) fn start(bench: &Bench) -> Self {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let configuration = bench.path("registry.yml");
        let data = bench.path("registry");
        let text = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '{address}'}}\n",
            data.display()
        );
        fs::write(&configuration, text).unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&configuration).env_clear().stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        while TcpStream::connect(address).is_err() {
            assert!(child.try_wait().unwrap().is_none(), "docker-registry ended");
            std::thread::yield_now();
        }
        Self { address, child }
    }

    pub(crate) fn image(&self, name: &str) -> String {
        format!("docker://{}/{name}:v1", self.address)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

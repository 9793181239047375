//! What the tests of key wrappers share: private options, and programs that they run.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::path::Path;
use std::process::{Command, Output};

use encrypted_image::{EncryptedLayer, Keyring, PrivateOptions, PublicOptions, Scheme, Unwrap, WrappedKey};

/// Private options as a layer has them.
pub(crate) fn options() -> PrivateOptions {
    PrivateOptions::generate([7; 32]).unwrap()
}

/// A wrapped key of a scheme.
pub(crate) fn wrapped(scheme: Scheme, blob: &[u8]) -> WrappedKey {
    WrappedKey { scheme, blob: blob.to_vec() }
}

/// Do both say the same?
pub(crate) fn same(one: &PrivateOptions, other: &PrivateOptions) -> bool {
    one.to_json() == other.to_json()
}

/// Opens a blob as a layer is opened.
pub(crate) fn open(
    scheme: Scheme,
    blob: &[u8],
    keys: Vec<Box<dyn Unwrap>>,
) -> Result<PrivateOptions, String> {
    let layer = EncryptedLayer { public: PublicOptions::new([0; 32]), wrapped: vec![wrapped(scheme, blob)] };
    Keyring::new(keys).open(&layer).map_err(|error| error.to_string())
}

/// Runs a program that must succeed, and gives its output.
pub(crate) fn run(command: &mut Command) -> Vec<u8> {
    let output = attempt(command);
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Runs a program, however it ends.
pub(crate) fn attempt(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; run scripts/setup"))
}

/// An OCI layout `DIR:v1` with one small layer.
pub(crate) fn plain_image(directory: &Path) -> String {
    let umoci = |arguments: &[&str]| {
        run(Command::new("umoci").current_dir(directory).args(arguments));
    };
    umoci(&["init", "--layout", "plain"]);
    umoci(&["new", "--image", "plain:v1"]);
    std::fs::write(directory.join("file"), "contents").unwrap();
    umoci(&["insert", "--image", "plain:v1", "file", "/file"]);
    format!("oci:{}/plain:v1", directory.display())
}

/// The descriptor of the only layer of `DIR/NAME:v1`, and where its manifest is.
pub(crate) fn layer(image: &Path) -> (std::path::PathBuf, serde_json::Value) {
    let json =
        |path: &Path| -> serde_json::Value { serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap() };
    let index = json(&image.join("index.json"));
    let digest = index["manifests"][0]["digest"].as_str().unwrap().to_owned();
    let manifest = image.join("blobs").join(digest.replace(':', "/"));
    let descriptor = json(&manifest)["layers"][0].clone();
    (manifest, descriptor)
}

/// Lower-case hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

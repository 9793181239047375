//! An image that only the guest can open: its key is at the broker, its layers at a registry that nobody trusts.

use std::fs;

use anyhow::{Context, Result, ensure};
use sealpod_tests::attempt::Stage;
use sealpod_tests::process::Finished;
use sealpod_tests::registry::HOST;

use crate::narrate::Narrator;

const KEY: &str = "kbs:///acme/image-key/demo";
/// What the pod prints with a file that is in no manifest, but in the image.
const EXPECTED: &str = "opened in the guest: hello from the image";

/// Encrypts the image, seals a pod with it, and runs that.
pub(crate) fn run(narrator: &mut Narrator, stage: &Stage) -> Result<()> {
    narrator.chapter("An encrypted image");
    let (registry, directory) = (stage.world.registry(), stage.world.directory());
    let image = |arguments: &[&str]| -> Result<String> {
        Finished::of(stage.owner.command("image").args(arguments))?.success("sealpod image")
    };
    narrator.step(&format!("sealpod image key new {KEY}"));
    image(&["key", "new", KEY])?;
    let address = registry.address().to_string();
    let reached = format!("{address}={}", registry.location());
    let from = format!("oci:{}:v1", registry.layout("busybox").display());
    let to = format!("docker://{address}/secret:v1");
    narrator
        .step(&format!("sealpod image encrypt oci:busybox:v1 docker://{HOST}/secret:v1 --recipient {KEY}"));
    image(&["encrypt", "--quiet", &from, &to, "--registry", &reached, "--recipient", KEY])?;
    let shown = image(&["inspect", &to, "--registry", &reached])?;
    narrator.quote(&shown);
    ensure!(shown.contains("encrypted"), "the pushed image isn't encrypted");
    narrator.proved("the registry has ciphertext, and no key opens it that isn't at the broker");

    let manifest = directory.join("encrypted.yaml");
    let text = include_str!("../../tests/testdata/encrypted.yaml");
    fs::write(&manifest, text).context("cannot write the pod")?;
    narrator.step("sealpod seal, sealpod push: the broker gets the image's key with the pod's own");
    let (key, clear) = (format!("main={KEY}"), ["--grant-logs", "clear"]);
    let output = directory.join("encrypted-sealed.yaml");
    let sealed =
        stage.owner.seal(&manifest, &output, registry, &[&clear[..], &["--image-key", &key]].concat())?;
    stage.owner.push(&sealed, &stage.measurement)?;
    let mut command = stage.owner.run(&sealed, &stage.guest, &stage.world.relay_socket());
    let finished = Finished::of(command.arg("--state").arg(stage.state()))?;
    narrator.quote(&finished.stdout);
    ensure!(
        finished.stdout.contains(EXPECTED),
        "the container did not print {EXPECTED:?}:\n{}",
        finished.stderr
    );
    narrator.proved(
        "the guest got the image's key from the broker, decrypted and verified the layer, and ran it",
    );
    Ok(())
}

//! The good way: what sealing leaves readable, the run, and the audit log.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use sealpod_tests::attempt::Stage;
use sealpod_tests::installation::Installation;
use sealpod_tests::process::Finished;

use crate::narrate::Narrator;

/// Text of the example that must not be readable outside the guest.
const SECRETS: [&str; 5] =
    ["correct horse", "Acme Truffles", "DATABASE_PASSWORD", "price list", "registry.example"];
/// What the example's containers print.
const EXPECTED: [&str; 4] = [
    "wrote the price list of Acme Truffles",
    "api: user 1000, groups 1000 2000, host orders, greeting: hello from the image",
    "api: invoice: customer 4711 owes 95.00",
    "billing: done",
];
/// The exit code of the example's billing container.
const EXIT_CODE: i32 = 3;

/// What the owner grants the host for the example: to read its output.
pub(crate) fn grants() -> [&'static str; 3] {
    ["--grant-logs", "clear", "--show-public"]
}

/// What the host is given.
pub(crate) fn show_sealed(narrator: &mut Narrator, stage: &Stage) -> Result<()> {
    narrator.chapter("Sealed: what the host can still read");
    narrator.step("sealpod seal docs/examples/pod.yaml --show-public");
    narrator.quote(&stage.sealed.printed);
    let manifest = fs::read_to_string(&stage.sealed.manifest).context("cannot read the sealed manifest")?;
    for secret in SECRETS {
        ensure!(!manifest.contains(secret), "the sealed manifest still says {secret:?}");
    }
    narrator.proved("the sealed manifest holds no command, environment, image or volume meaning of the pod");
    let measurement = fs::read_to_string(&stage.measurement).context("cannot read the measurement")?;
    narrator.step("sealpod measure: what the guest must report, and what the release policy names");
    narrator.quote(&measurement);
    Ok(())
}

/// `sealpod run`.
pub(crate) fn run(narrator: &mut Narrator, stage: &Stage) -> Result<()> {
    narrator.chapter("Run: boot, attest, open, pull, launch");
    narrator.step("sealpod run pod-sealed.yaml (QEMU boots our kernel and initrd; this takes a moment)");
    let mut command = stage.owner.run(&stage.sealed, &stage.guest, &stage.world.relay_socket());
    let finished = Finished::of(command.arg("--state").arg(stage.state()))?;
    narrator.quote(&finished.stdout);
    narrator.quote(&finished.stderr);
    for line in EXPECTED {
        ensure!(finished.stdout.contains(line), "the containers did not print {line:?}");
    }
    ensure!(
        finished.status.code() == Some(EXIT_CODE),
        "the run ended with {} instead of exit code {EXIT_CODE}",
        finished.status
    );
    narrator.proved("the guest attested, got the key, pulled the image by digest, and ran the pod as sealed");
    narrator.proved("output came back because the owner granted it, and so did the exit code 3");
    Ok(())
}

/// The audit log: exported, verified against the checkpoint that `push` brought, and kept.
pub(crate) fn audit(narrator: &mut Narrator, stage: &Stage) -> Result<()> {
    narrator.chapter("The broker's audit log");
    let kept = kept_directory()?;
    let log = kept.join("audit.jsonl");
    stage.world.broker().export_audit(&log)?;
    let mut command = stage.owner.command("audit");
    let printed = Finished::of(command.arg("verify").arg(&log))?.success("sealpod audit verify")?;
    narrator.quote(&printed);
    narrator.proved("the audit log is a whole chain that holds the checkpoint from sealpod push");
    fs::copy(&stage.sealed.manifest, kept.join("pod-sealed.yaml"))
        .context("cannot keep the sealed manifest")?;
    narrator.step(&format!("audit log: {}", log.display()));
    narrator.step(&format!("sealed manifest: {}", kept.join("pod-sealed.yaml").display()));
    Ok(())
}

fn kept_directory() -> Result<PathBuf> {
    let directory = Installation::target_directory().join("demo");
    fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    directory.canonicalize().with_context(|| format!("cannot find {}", directory.display()))
}

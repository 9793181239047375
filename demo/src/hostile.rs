//! What a hostile host tries: additions that never reach a container, and attempts that are refused.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use launcher::pod::{PodError, Stream};
use sealpod_tests::attempt::{Attempt, Stage};
use sealpod_tests::host::Host;
use tokio::sync::mpsc;

use crate::narrate::Narrator;

const INSPECTED: &str = include_str!("inspected.yaml");
const ADDED_ENV: &str = "LD_PRELOAD=/host/evil.so";
const ADDED_MOUNT: &str = "/host";
/// Ten times what an idle machine needs.
const PATIENCE: Duration = Duration::from_secs(60);

/// A host that adds an environment variable and a mount, and wants a shell.
pub(crate) async fn inside(narrator: &mut Narrator, stage: &Stage) -> Result<()> {
    narrator.chapter("A host that adds things, seen from inside the container");
    let manifest = stage.world.directory().join("inspected.yaml");
    fs::write(&manifest, INSPECTED).context("cannot write the manifest")?;
    let output = stage.world.directory().join("inspected-sealed.yaml");
    let sealed = stage.owner.seal(&manifest, &output, stage.world.registry(), &["--grant-logs", "clear"])?;
    stage.owner.push(&sealed, &stage.measurement)?;

    let mut host = Host::honest(&sealed.manifest, &stage.guest, &stage.world.relay_socket())?;
    host.knobs.extra_env = vec![ADDED_ENV.to_owned()];
    let files = BTreeMap::from([("evil.so".to_owned(), b"not a library".to_vec())]);
    host.knobs.extra_mount = Some((ADDED_MOUNT.to_owned(), files));
    narrator.step(&format!("the host adds {ADDED_ENV} and a mount at {ADDED_MOUNT} to every container"));

    let (sender, mut pieces) = mpsc::channel(64);
    let mut running = host.boot(&stage.state()).await?;
    running.pod = running.pod.with_output(sender);
    running.start_everything().await?;
    let mut printed = String::new();
    while !printed.contains("READY") {
        let piece =
            tokio::time::timeout(PATIENCE, pieces.recv()).await.context("the container prints nothing")?;
        let piece = piece.context("the container ended early")?;
        if piece.stream == Stream::Stdout {
            printed.push_str(&String::from_utf8_lossy(&piece.data));
        }
    }
    narrator.quote(&printed);
    ensure!(printed.contains("COLOUR=sealed blue"), "the sealed environment is missing");
    ensure!(!printed.contains("LD_PRELOAD"), "the host's environment variable is in the container");
    ensure!(!printed.contains(&format!(" {ADDED_MOUNT} ")), "the host's mount is in the container");
    narrator.proved("an environment variable and a mount added by the host are not in the container");

    let probe = ["/sealpod", "probe", "main/liveness"].map(str::to_owned);
    let outcome = running.pod.exec("main", &probe).await?.wait().await?;
    ensure!(outcome.exit_code == 0, "the probe's exit code is {}", outcome.exit_code);
    narrator.proved("the exec probe runs the command that the owner sealed, whatever the host asks for");

    let shell = ["/bin/sh", "-c", "cat /proc/1/environ"].map(str::to_owned);
    let refused = running.pod.exec("main", &shell).await.map(drop);
    show_refusal(narrator, "kubectl exec of a shell", &refused)?;
    ensure!(running.end().await?, "the guest did not power off");
    Ok(())
}

/// One guest after another, each with one thing wrong.
pub(crate) async fn refusals(narrator: &mut Narrator, stage: &Stage) -> Result<()> {
    narrator.chapter("Attempts that end in a refusal");
    for attempt in Attempt::SHOWN {
        narrator.step(&format!("attempt: {}", attempt.title()));
        let refusal = attempt.make(stage).await.with_context(|| attempt.title())?;
        narrator.quote(&refusal.to_string());
        ensure!(
            refusal.code == attempt.expected(),
            "{} was refused with another code than {:?}",
            attempt.title(),
            attempt.expected()
        );
        narrator.proved(&format!("refused: {} [{}]", attempt.title(), refusal.code));
    }
    Ok(())
}

fn show_refusal(narrator: &mut Narrator, what: &str, result: &Result<(), PodError>) -> Result<()> {
    let Some(refusal) = result.as_ref().err().and_then(PodError::refusal) else {
        bail!("{what} was not refused");
    };
    narrator.step(&format!("attempt: {what}"));
    narrator.quote(&refusal.to_string());
    narrator.proved(&format!("refused: {what} [{}]", refusal.code));
    Ok(())
}

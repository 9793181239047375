//! The main job, shown from end to end: an owner seals a pod, a host that can't read it runs it in a VM, and
//! what a hostile host tries is refused. Nothing here is special: every step is a built program or the driver
//! that `sealpod run` uses.

mod encrypted;
mod hostile;
mod narrate;
mod pod;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use sealpod_tests::attempt::Stage;
use sealpod_tests::installation::Installation;

use crate::narrate::Narrator;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    // Dropping the story ends every guest and daemon.
    let told = tokio::select! {
        told = show() => told,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted; everything that was started is gone")),
    };
    match told {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\ndemo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn show() -> Result<()> {
    let began = Instant::now();
    let mut narrator = Narrator::default();
    let example = Installation::repository().join("docs/examples/pod.yaml");

    narrator.chapter("An owner, a broker that the owner trusts, and a host that nobody trusts");
    let grants = pod::grants();
    let stage = Stage::set(&example, &grants, &mut |step| narrator.step(step))?;
    pod::show_sealed(&mut narrator, &stage)?;
    pod::run(&mut narrator, &stage)?;
    encrypted::run(&mut narrator, &stage)?;
    hostile::inside(&mut narrator, &stage).await?;
    hostile::refusals(&mut narrator, &stage).await?;
    pod::audit(&mut narrator, &stage)?;
    narrator.proven(began.elapsed());
    Ok(())
}

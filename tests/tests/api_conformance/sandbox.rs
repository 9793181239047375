//! The sandbox: made once, ended once.

use std::time::Duration;

use anyhow::ensure;
use protocols::agent as wire;
use sealpod_tests::checks::Checks;
use sealpod_tests::kata::{answer_of, fails, soon, spec};
use ttrpc::Code;

use crate::{Bench, MAIN, SANDBOX};

pub(crate) async fn before(checks: &mut Checks, bench: &Bench) {
    let kata = bench.kata();
    checks
        .that("Check accepts and says SERVING", async {
            Ok(kata.client().check(Duration::from_secs(30)).await?)
        })
        .await;
    checks
        .that("Version accepts and tells both versions", async {
            let version = kata.client().version(Duration::from_secs(30)).await?;
            ensure!(version.grpc_version == "0.0.1", "{version:?}");
            ensure!(!version.agent_version.is_empty(), "{version:?}");
            Ok(())
        })
        .await;
    checks
        .that("CreateContainer refuses before there is a sandbox", async {
            fails(kata.create(&spec::container("early", &["true"])).await, &[Code::INTERNAL])?;
            Ok(())
        })
        .await;
    checks
        .that("CreateSandbox refuses a storage that it can't make, and can be asked again", async {
            let mut request = wire::CreateSandboxRequest::new();
            request.sandbox_id = SANDBOX.to_owned();
            request.storages = vec![wire::Storage { driver: "floppy".to_owned(), ..spec::shm() }];
            let answer = answer_of(kata.agent().create_sandbox(soon(), &request).await);
            fails(answer, &[Code::INTERNAL, Code::INVALID_ARGUMENT])?;
            Ok(())
        })
        .await;
}

pub(crate) async fn created(checks: &mut Checks, bench: &Bench) {
    let kata = bench.kata();
    checks
        .that("CreateSandbox accepts a runtime's request", async { Ok(kata.sandbox(SANDBOX).await?) })
        .await;
    checks
        .that("CreateSandbox refuses a second call", async {
            fails(kata.sandbox(SANDBOX).await, &[Code::INTERNAL])?;
            Ok(())
        })
        .await;
    checks
        .that("GetGuestDetails accepts and tells what the runtime asks for", async {
            let mut request = wire::GuestDetailsRequest::new();
            (request.mem_block_size, request.mem_hotplug_probe) = (true, true);
            let details = answer_of(kata.agent().get_guest_details(soon(), &request).await)?;
            let agent = &details.agent_details;
            ensure!(agent.init_daemon, "it says that it isn't the first process");
            ensure!(agent.supports_seccomp, "it says that it has no seccomp");
            for handler in ["blk", "scsi", "ephemeral", "local", "overlayfs", "virtio-fs", "image_guest_pull"]
            {
                ensure!(
                    agent.storage_handlers.iter().any(|name| name == handler),
                    "{handler} is missing in {:?}",
                    agent.storage_handlers
                );
            }
            for handler in ["blk", "scsi"] {
                let known = agent.device_handlers.iter().any(|name| name == handler);
                ensure!(known, "{handler} is missing in {:?}", agent.device_handlers);
            }
            Ok(())
        })
        .await;
}

pub(crate) async fn destroyed(checks: &mut Checks, bench: &Bench) {
    let kata = bench.kata();
    let waiting = tokio::spawn({
        let kata = kata.clone();
        async move { kata.wait(MAIN, "").await }
    });
    let events = tokio::spawn({
        let kata = kata.clone();
        async move {
            let context = ttrpc::context::Context::default();
            answer_of(kata.agent().get_oom_event(context, &wire::GetOOMEventRequest::new()).await)
        }
    });
    // What was sent before on the same connection is under way.
    checks
        .that("Check accepts beside calls that wait", async {
            tokio::task::yield_now().await;
            Ok(kata.client().check(Duration::from_secs(30)).await?)
        })
        .await;
    checks
        .that("DestroySandbox accepts, and the guest powers off", async {
            let request = wire::DestroySandboxRequest::new();
            let answer = answer_of(kata.agent().destroy_sandbox(soon(), &request).await);
            if let Err(failure) = answer {
                // The power may be off before the answer is out.
                ensure!(failure.code.is_none(), "{failure}");
            }
            bench.running.guest.exited().await;
            Ok(())
        })
        .await;
    checks
        .that("WaitProcess accepts and answers those who wait when the sandbox ends", async {
            match waiting.await? {
                Ok(status) => ensure!(status == 137, "status {status}"),
                Err(failure) => ensure!(failure.code.is_none(), "{failure}"),
            }
            Ok(())
        })
        .await;
    checks
        .that("GetOOMEvent refuses once the sandbox has ended", async {
            let Err(failure) = events.await? else { anyhow::bail!("it told of an event") };
            ensure!(matches!(failure.code, None | Some(Code::INTERNAL)), "{failure}");
            Ok(())
        })
        .await;
}

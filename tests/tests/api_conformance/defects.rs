//! Defects of the stock agent that this one doesn't have. The rest of the eleven: guest pulls without a helper and
//! dropped ephemeral options in `storage`, iptables' stolen children and 127.0.0.1 as IPv6 in `network`, backtraces
//! in every refusing check (`kata::fails`), an invalid policy in `policy_mode`, an unreadable disk at boot in
//! `hostile_host`.

use std::time::Duration;

use anyhow::ensure;
use protocols::oci::LinuxNamespace;
use sealpod_tests::checks::Checks;
use sealpod_tests::kata::{fails, spec};
use ttrpc::Code;

use crate::{Bench, MAIN};

pub(crate) async fn check(checks: &mut Checks, bench: &Bench) {
    let kata = bench.kata();
    checks
        .that("StartContainer refuses a second start, and nothing hangs after it", async {
            fails(kata.start(MAIN).await, &[Code::INTERNAL])?;
            kata.client().check(Duration::from_secs(30)).await?;
            kata.exec(MAIN, &["true"]).await?.good()?;
            kata.run(&spec::container("after-second-start", &["true"])).await?.good()?;
            Ok(())
        })
        .await;
    checks
        .that(
            "CreateContainer refuses an id that is in use, and the running container stays in the books",
            async {
                fails(kata.create(&spec::container(MAIN, &["true"])).await, &[Code::INTERNAL])?;
                ensure!(kata.exec(MAIN, &["echo", "here"]).await?.good()? == "here");
                fails(kata.resize(MAIN, "", 1, 1).await, &[Code::UNAVAILABLE])?;
                Ok(())
            },
        )
        .await;
    checks
        .that("ExecProcess accepts in a container whose specification names the pid namespace twice", async {
            let mut request = spec::container("twice-pid", &["sleep", "1000"]);
            let namespaces =
                &mut request.OCI.mut_or_insert_default().Linux.mut_or_insert_default().Namespaces;
            for _ in 0..2 {
                namespaces.push(LinuxNamespace { Type: "pid".to_owned(), ..Default::default() });
            }
            kata.create(&request).await?;
            kata.start("twice-pid").await?;
            kata.exec("twice-pid", &["true"]).await?.good()?;
            kata.signal("twice-pid", "", 9).await?;
            kata.wait("twice-pid", "").await?;
            Ok(kata.remove("twice-pid").await?)
        })
        .await;
    checks
        .that("an error leaves the calls beside it alone", async {
            // The stock agent's first error made the others wait for its backtrace; here both are there at once.
            let failing = fails(kata.start("nobody").await, &[Code::INTERNAL, Code::INVALID_ARGUMENT]);
            let (failing, checked) =
                tokio::join!(async { failing }, kata.client().check(Duration::from_secs(30)));
            failing?;
            Ok(checked?)
        })
        .await;
    checks
        .that("a stuck container blocks nobody else", async {
            // Its output is not read, a waiter waits, and it handles TERM by going on.
            let script = "trap : TERM; while true; do echo 0123456789; done";
            kata.create(&spec::container("stuck", &["/bin/sh", "-c", script])).await?;
            kata.start("stuck").await?;
            ensure!(!kata.read("stuck", "", false, 10).await?.is_empty());
            let waiter = tokio::spawn({
                let kata = kata.clone();
                async move { kata.wait("stuck", "").await }
            });
            kata.signal("stuck", "", 15).await?;
            kata.run(&spec::container("beside", &["true"])).await?.good()?;
            kata.exec(MAIN, &["true"]).await?.good()?;
            kata.signal("stuck", "", 9).await?;
            ensure!(waiter.await?? == 137);
            Ok(kata.remove("stuck").await?)
        })
        .await;
}

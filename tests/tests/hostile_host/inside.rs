//! From inside: root with all capabilities in a container of the pod, against the guest that it runs in.

use anyhow::ensure;
use sealpod_tests::checks::Checks;

use crate::Target;

/// Attempts of `probe attack` that may succeed, by the beginning of their line, and why.
const HARMLESS: [&str; 4] = [
    // The container's own files and standard directories of a kernel file system, without anything of the agent's.
    "sysfs kernel/debug",
    "securityfs lockdown",
    // Name service and the like of the container's own: none is the agent's.
    "unix /dev/log",
    // Its root is the container's.
    "/proc/1/root/sealpod-agent: ENOENT",
];

pub(crate) async fn check(checks: &mut Checks, target: &Target) {
    let kata = &target.kata;
    target
        .attempt(
            checks,
            "38: root with every capability reaches no TEE device, socket or memory of the guest",
            async {
                // The driver's was ended by another check.
                let id = sealpod_tests::kata::unique("inside");
                kata.create(&crate::containers::request(&id, "root")).await?;
                kata.start(&id).await?;
                let text = kata.exec(&id, &["probe", "attack"]).await?.good()?;
                ensure!(text.lines().count() > 30, "the probe tried little:\n{text}");
                let reached: Vec<&str> = text
                    .lines()
                    .filter(|line| line.ends_with(": reached"))
                    .filter(|line| !HARMLESS.iter().any(|harmless| line.starts_with(harmless)))
                    .collect();
                ensure!(reached.is_empty(), "it reached\n{}\nof\n{text}", reached.join("\n"));
                Ok(())
            },
        )
        .await;
}

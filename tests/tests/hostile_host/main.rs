//! A host that speaks the agent's API and means harm: everything that it tries against a sealed VM is refused with
//! its documented code, and the pod goes on.
//!
//! | class | where |
//! |---|---|
//! | another specification; containers added, renamed, started twice | `containers` |
//! | exec, standard streams, policy, signals, resources | `processes` |
//! | hooks of the specification and of the guest | `before_open`, `containers` |
//! | bind sources | `containers` |
//! | CopyFile | `files` |
//! | initdata absent, failing, huge, a bomb | `initdata` |
//! | a root file system or a directory of the host's | `containers` |
//! | kernel parameters, debug console, log port | `main` |
//! | scratch disks | `api_conformance`, agent-scratch's own tests |
//! | the host's pause image | `containers` |
//! | frames | `frames` |
//! | image bombs | `initdata` for one in a VM; agent-image's own tests |
//! | network requests on `lo` | `network` |
//! | root with all capabilities | `inside` |

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod before_open;
mod containers;
mod files;
mod frames;
mod initdata;
mod inside;
mod network;
mod processes;
#[path = "../support/mod.rs"]
mod support;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use launcher::pod::RunningContainer;
use launcher::{DEFAULT_APPEND, Disk};
use protocols::ports;
use sealpod_tests::attempt::Stage;
use sealpod_tests::checks::Checks;
use sealpod_tests::disk;
use sealpod_tests::frames::Raw;
use sealpod_tests::host::{Host, Running};
use sealpod_tests::image::{self, Extra};
use sealpod_tests::kata::{InitExec, Kata};
use sealpod_tests::world::World;
use support::in_vm;

/// What a host would like to have on: all of it was measured, so only the agent stands against it.
const WEAKENING: &str = "agent.debug_console agent.debug_console_vport=1026 agent.devmode agent.trace \
                         agent.log=debug agent.server_addr=vsock://-1:1027 agent.https_proxy=http://10.0.2.2:1 \
                         agent.config_file=/etc/evil.toml agent.guest_components_procs=none";

/// The pod under attack.
pub(crate) struct Target {
    pub(crate) running: Running,
    // Broker, relay and registry live as long as the guest, and end after it.
    _stage: Stage,
    /// Requests beside those of the pod's driver, over the same connection.
    pub(crate) kata: Kata,
    /// The driver's view of the containers.
    pub(crate) containers: Vec<RunningContainer>,
}

/// A world that has the probe in its registry.
pub(crate) fn world() -> World {
    let world = World::start(&mut |_| {}).unwrap();
    let probe = image::stripped(Path::new(env!("CARGO_BIN_EXE_probe")), world.directory()).unwrap();
    let programs = [("/bin/probe", probe.as_path())];
    world.registry().push("probe", &Extra { programs: &programs, ..Extra::default() }).unwrap();
    world
}

/// Seals `manifest` for a guest with `append` on its command line.
pub(crate) fn stage(world: World, manifest: &Path, grants: &[&str], append: &str) -> Stage {
    let owner = world.enrolled_owner("acme").unwrap();
    let directory = world.directory().to_owned();
    let guest = world.guest_manifest("guest", None).unwrap();
    let text = std::fs::read_to_string(&guest).unwrap();
    std::fs::write(&guest, format!("append = {append:?}\n{text}")).unwrap();
    let measurement = directory.join("measurement.json");
    owner.measure(&guest, &measurement).unwrap();
    let sealed = owner.seal(manifest, &directory.join("pod-sealed.yaml"), world.registry(), grants).unwrap();
    owner.push(&sealed, &measurement).unwrap();
    Stage { world, owner, sealed, guest, measurement }
}

impl Target {
    /// Its specification is sealed and the guest up; no sandbox yet.
    async fn boot() -> (Self, Host) {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/target.yaml");
        let grants = [
            "--grant-logs",
            "clear",
            "--grant-exec",
            "main=env",
            "--grant-exec",
            "main=cat /proc/mounts",
            "--grant-exec",
            "main=cat /proc/1/status",
            "--grant-exec",
            "main=ls /dev",
            "--grant-exec",
            "root=probe attack",
        ];
        let stage = stage(world(), &manifest, &grants, &format!("{DEFAULT_APPEND} {WEAKENING}"));
        let mut host = stage.honest_host().unwrap();
        // The first disk that the guest finds can't be read: the initdata is on another.
        let failing = stage.world.directory().join("failing.img");
        disk::blank(&failing, 1 << 20).unwrap();
        host.disks.push(Disk { unreadable: true, ..Disk::new(failing) });
        let running = host.boot(&stage.state()).await.unwrap();
        let kata = Kata::new(running.pod.client().clone(), InitExec::ContainerId);
        (Self { _stage: stage, running, kata, containers: Vec::new() }, host)
    }

    /// The pod does what it did before: its probe answers, and no container has ended.
    pub(crate) async fn lives(&self) -> Result<()> {
        let probe = ["/sealpod", "probe", "main/liveness"].map(str::to_owned);
        let outcome = self.running.pod.exec("main", &probe).await?.wait().await?;
        ensure!(outcome.stdout == b"alive\n" && outcome.exit_code == 0, "the probe says {outcome:?}");
        for container in &self.containers {
            ensure!(!container.ended(), "container {} has ended", container.name);
        }
        Ok(())
    }

    /// What a granted command prints.
    pub(crate) async fn exec(&self, container: &str, command: &str) -> Result<String> {
        let command: Vec<String> = command.split(' ').map(str::to_owned).collect();
        let outcome = self.running.pod.exec(container, &command).await?.wait().await?;
        ensure!(outcome.exit_code == 0, "{outcome:?}");
        Ok(String::from_utf8_lossy(&outcome.stdout).into_owned())
    }

    /// The id under which the host made a container.
    pub(crate) fn id(&self, name: &str) -> Result<String> {
        let found = self.containers.iter().find(|container| container.name == name);
        Ok(found.with_context(|| format!("{name} was not started"))?.id.clone())
    }

    /// One attempt, refused as `check` says; then the pod must live.
    pub(crate) async fn attempt(
        &self,
        checks: &mut Checks,
        name: &str,
        check: impl Future<Output = Result<()>>,
    ) {
        checks
            .that(name, async {
                check.await?;
                self.lives().await.context("the pod afterwards")
            })
            .await;
    }
}

#[tokio::test]
async fn nothing_that_the_host_tries_gets_through() {
    let _vm = in_vm();
    let (mut target, host) = Target::boot().await;
    let mut checks = Checks::default();
    before_open::check(&mut checks, &target).await;
    let started = target.running.pod.start_sandbox().await;
    started.unwrap_or_else(|error| panic!("{error}\n{}", target.running.console()));
    target.running.pod.run_init_containers().await.unwrap();
    containers::start(&mut checks, &mut target, &host).await;
    checks.that("the pod lives before it is attacked", target.lives()).await;

    closed_ports(&mut checks, &target).await;
    containers::check(&mut checks, &mut target).await;
    processes::check(&mut checks, &target).await;
    files::check(&mut checks, &target).await;
    network::check(&mut checks, &target).await;
    inside::check(&mut checks, &target).await;
    frames::check(&mut checks, &target).await;

    let console = target.running.console();
    drop(target);
    checks.finish(&console).unwrap();
}

/// Consoles and logs that the command line asks for don't listen, and nothing else does.
async fn closed_ports(checks: &mut Checks, target: &Target) {
    let vsock = target.running.guest.vsock_socket();
    target
        .attempt(checks, "9: no debug console, no log port, no other address", async {
            for port in [1025, 1026, 1027, 22, 1, 4050] {
                let open = Raw::connect(&vsock, port, Duration::from_secs(20));
                ensure!(open.is_err(), "port {port} is open");
            }
            Raw::connect(&vsock, ports::AGENT, Duration::from_secs(20))?;
            Ok(())
        })
        .await;
}

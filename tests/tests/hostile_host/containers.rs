//! Containers: the host's specification selects a slot and does nothing else.

use std::collections::HashMap;

use anyhow::{Context, ensure};
use protobuf::MessageField;
use protocols::agent::{CreateContainerRequest, Device, SharedMount, Storage};
use protocols::oci::{Hook, Hooks, LinuxDevice, LinuxDeviceCgroup, LinuxSeccomp, User};
use protocols::refusal::Code;
use sealpod_tests::checks::Checks;
use sealpod_tests::host::Host;
use sealpod_tests::kata::{answer_of, refused, soon, spec, unique};

use crate::Target;

/// A request for the slot `name`, as an honest runtime would make it.
pub(crate) fn request(id: &str, name: &str) -> CreateContainerRequest {
    let mut request = spec::container(id, &["/bin/sh", "-c", "echo the host was here"]);
    let annotations = &mut request.OCI.mut_or_insert_default().Annotations;
    annotations.insert("io.kubernetes.cri.container-name".to_owned(), name.to_owned());
    request
}

/// Starts the pod's containers with everything in their requests that a host may wish for.
pub(crate) async fn start(checks: &mut Checks, target: &mut Target, host: &Host) {
    let everything = ["LD_PRELOAD=/evil.so".to_owned(), "COLOUR=red".to_owned(), "PATH=/host/bin".to_owned()];
    for container in &host.pod.containers {
        let mut container = container.clone();
        container.command = spec::strings(&["/bin/sh", "-c", "echo the host was here"]);
        container.args.clear();
        container.env.extend(everything.iter().cloned());
        container.working_dir = "/host".to_owned();
        let started = target.running.pod.start_container(&container).await;
        let name = container.name.clone();
        if ["privileged", "all"].contains(&name.as_str()) {
            checks
                .that(&format!("38: a container that is given everything is none: {name}"), async {
                    let Err(error) = started else { anyhow::bail!("it was started") };
                    let refusal = error.refusal().with_context(|| error.to_string())?;
                    ensure!(refusal.code == Code::Launch, "{refusal}");
                    Ok(())
                })
                .await;
            continue;
        }
        checks
            .that(&format!("the pod's container {name} starts"), async {
                target.containers.push(started?);
                Ok(())
            })
            .await;
    }
}

/// What is nobody's to ask for.
fn poisoned(mut request: CreateContainerRequest) -> CreateContainerRequest {
    request.storages = vec![
        Storage {
            driver: "virtio-fs".to_owned(),
            source: "kataShared".to_owned(),
            fstype: "virtiofs".to_owned(),
            mount_point: "/run/kata-containers/shared/containers".to_owned(),
            ..Default::default()
        },
        Storage { driver: "blk".to_owned(), source: "10".to_owned(), ..spec::root_disk("x") },
    ];
    request.devices = vec![Device {
        id: "10".to_owned(),
        type_: "blk".to_owned(),
        vm_path: "/dev/sev-guest".to_owned(),
        container_path: "/dev/sev-guest".to_owned(),
        ..Default::default()
    }];
    request.shared_mounts = vec![SharedMount {
        name: "m".to_owned(),
        src_ctr: "main".to_owned(),
        src_path: "/".to_owned(),
        dst_ctr: "root".to_owned(),
        dst_path: "/stolen".to_owned(),
        ..Default::default()
    }];
    request.sandbox_pidns = true;
    let oci = request.OCI.mut_or_insert_default();
    oci.Root.mut_or_insert_default().Path = "/run/kata-containers/shared/containers/evil".to_owned();
    for source in ["/", "/run/sealpod", "/run/kata-containers/shared/containers/../../../../etc", "/dev"] {
        oci.Mounts.push(spec::mount("/host", source, "bind", &["rbind", "rw"]));
    }
    let hook = Hook { Path: "/run/evil".to_owned(), ..Default::default() };
    oci.Hooks = MessageField::some(Hooks {
        Prestart: vec![hook.clone()],
        CreateRuntime: vec![hook.clone()],
        StartContainer: vec![hook.clone()],
        Poststop: vec![hook],
        ..Default::default()
    });
    let process = oci.Process.mut_or_insert_default();
    process.User = MessageField::some(User::default());
    process.Capabilities = MessageField::some(spec::capabilities(&spec::ALL_CAPABILITIES));
    process.NoNewPrivileges = false;
    process.Terminal = true;
    let linux = oci.Linux.mut_or_insert_default();
    linux.Seccomp =
        MessageField::some(LinuxSeccomp { DefaultAction: "SCMP_ACT_ALLOW".to_owned(), ..Default::default() });
    linux.Sysctl = HashMap::from([("kernel.core_pattern".to_owned(), "|/run/evil".to_owned())]);
    linux.MaskedPaths.clear();
    linux.ReadonlyPaths.clear();
    linux.RootfsPropagation = "shared".to_owned();
    linux.Devices.push(LinuxDevice {
        Path: "/dev/sev-guest".to_owned(),
        Type: "c".to_owned(),
        Major: 10,
        Minor: 125,
        FileMode: 0o666,
        ..Default::default()
    });
    linux.Resources.mut_or_insert_default().Devices.push(LinuxDeviceCgroup {
        Allow: true,
        Access: "rwm".to_owned(),
        ..Default::default()
    });
    request
}

pub(crate) async fn check(checks: &mut Checks, target: &mut Target) {
    unknown(checks, target).await;
    replaced(checks, target).await;
    // Its life under the driver's id is over.
    target.containers.retain(|container| container.name != "root");
    pause(checks, target).await;
}

async fn unknown(checks: &mut Checks, target: &Target) {
    let kata = &target.kata;
    let id = || unique("hostile");
    target
        .attempt(checks, "1: a container that the spec doesn't know", async {
            refused(kata.create(&request(&id(), "miner")).await, &[Code::ContainerUnknown])
        })
        .await;
    target
        .attempt(checks, "1: a container without a name, and one with two", async {
            let mut unnamed = request(&id(), "main");
            unnamed.OCI.mut_or_insert_default().Annotations.clear();
            refused(kata.create(&unnamed).await, &[Code::ContainerUnknown])?;
            let mut two = request(&id(), "main");
            let annotations = &mut two.OCI.mut_or_insert_default().Annotations;
            annotations.insert("io.kubernetes.container.name".to_owned(), "root".to_owned());
            refused(kata.create(&two).await, &[Code::ContainerUnknown])
        })
        .await;
    target
        .attempt(checks, "1: a container that runs already, under another id", async {
            refused(kata.create(&request(&id(), "main")).await, &[Code::SlotBusy])
        })
        .await;
    target
        .attempt(checks, "1: an id that is in use", async {
            let main = target.id("main")?;
            let Err(failure) = kata.create(&request(&main, "main")).await else {
                anyhow::bail!("it was made");
            };
            let codes = [Some(Code::ContainerDuplicate), Some(Code::SlotBusy)];
            ensure!(codes.contains(&failure.refusal()), "{failure}");
            Ok(())
        })
        .await;
    target
        .attempt(checks, "1: an init container after its time", async {
            let codes = [Code::SlotOrder, Code::SlotRestart];
            refused(kata.create(&request(&id(), "setup")).await, &codes)
        })
        .await;
    target
        .attempt(checks, "1: a sandbox of another id, and a second one", async {
            let sandbox = kata.sandbox("other").await;
            let Err(failure) = sandbox else { anyhow::bail!("it was made") };
            ensure!(failure.refusal() == Some(Code::SandboxState), "{failure}");
            let mut second = spec::pause("other");
            second.OCI.mut_or_insert_default().Process.mut_or_insert_default().Args =
                spec::strings(&["/evil"]);
            ensure!(kata.create(&second).await.is_err(), "a second pause container was made");
            Ok(())
        })
        .await;
}

/// The slot is main's: it is ended first, and made again by a request that holds everything.
async fn replaced(checks: &mut Checks, target: &Target) {
    let kata = &target.kata;
    checks
        .that("1, 3, 4, 8: a specification full of wishes makes the sealed container", async {
            let environment = target.exec("main", "env").await?;
            ensure!(environment.contains("COLOUR=sealed blue"), "{environment}");
            ensure!(
                !environment.contains("LD_PRELOAD") && !environment.contains("/host/bin"),
                "{environment}"
            );
            let mounts = target.exec("main", "cat /proc/mounts").await?;
            ensure!(mounts.contains(" / overlay") && !mounts.contains(" /host "), "{mounts}");

            let id = target.id("root")?;
            kata.signal(&id, "", 9).await.context("ending the driver's")?;
            kata.wait(&id, "").await.context("waiting for the driver's")?;
            kata.remove(&id).await.context("removing the driver's")?;
            let id = unique("again");
            kata.create(&poisoned(request(&id, "root"))).await.context("creating it")?;
            kata.start(&id).await.context("starting it")?;
            let mut exec = spec::process(&["probe", "attack"]);
            exec.Terminal = true;
            let name = unique("exec");
            kata.start_exec(&id, &name, exec).await?;
            let attack = kata.follow(&id, &name).await?.good()?;
            ensure!(attack.contains("open /dev/sev-guest: ENOENT"), "{attack}");
            kata.signal(&id, "", 9).await.with_context(|| format!("ending it, after\n{attack}"))?;
            kata.wait(&id, "").await?;
            Ok(kata.remove(&id).await?)
        })
        .await;
}

async fn pause(checks: &mut Checks, target: &Target) {
    let kata = &target.kata;
    let sandbox = target.running.pod.sandbox_id().to_owned();
    target
        .attempt(
            checks,
            "11: the pause container is the agent's own: no process, no exec, no stream",
            async {
                let exec = kata.start_exec(&sandbox, "e", spec::process(&["/pause"])).await;
                ensure!(exec.is_err(), "a process was started in the pause container");
                refused(kata.signal(&sandbox, "", 1).await, &[Code::SignalDenied])?;
                let mut stats = protocols::agent::StatsContainerRequest::new();
                stats.container_id.clone_from(&sandbox);
                let answer = answer_of(kata.agent().stats_container(soon(), &stats).await);
                if let Ok(answer) = answer {
                    ensure!(answer.cgroup_stats.pids_stats.current == 0, "{answer:?}");
                }
                Ok(())
            },
        )
        .await;
}

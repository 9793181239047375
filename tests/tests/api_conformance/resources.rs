//! A container's resources: limits, numbers, pausing, running out of memory.

use std::time::Duration;

use anyhow::{Result, ensure};
use protobuf::MessageField;
use protocols::agent as wire;
use protocols::oci::{LinuxCPU, LinuxMemory, LinuxPids, LinuxResources};
use sealpod_tests::checks::Checks;
use sealpod_tests::kata::{Answer, Kata, answer_of, fails, soon, spec};
use ttrpc::Code;

use crate::{Bench, MAIN};

const MIB: u64 = 1024 * 1024;

async fn stats(kata: &Kata, id: &str) -> Answer<wire::StatsContainerResponse> {
    let mut request = wire::StatsContainerRequest::new();
    request.container_id = id.to_owned();
    answer_of(kata.agent().stats_container(soon(), &request).await)
}

async fn update(kata: &Kata, id: &str, resources: LinuxResources) -> Answer<()> {
    let mut request = wire::UpdateContainerRequest::new();
    request.container_id = id.to_owned();
    request.resources = MessageField::some(resources);
    answer_of(kata.agent().update_container(soon(), &request).await).map(drop)
}

async fn pause(kata: &Kata, id: &str) -> Answer<()> {
    let mut request = wire::PauseContainerRequest::new();
    request.container_id = id.to_owned();
    answer_of(kata.agent().pause_container(soon(), &request).await).map(drop)
}

async fn resume(kata: &Kata, id: &str) -> Answer<()> {
    let mut request = wire::ResumeContainerRequest::new();
    request.container_id = id.to_owned();
    answer_of(kata.agent().resume_container(soon(), &request).await).map(drop)
}

fn memory(limit: u64) -> LinuxResources {
    let memory = LinuxMemory { Limit: limit as i64, ..Default::default() };
    LinuxResources { Memory: MessageField::some(memory), ..Default::default() }
}

pub(crate) async fn check(checks: &mut Checks, bench: &Bench) {
    let kata = bench.kata();
    numbers(checks, kata).await;
    updates(checks, kata).await;
    freezing(checks, kata).await;
    out_of_memory(checks, kata).await;
}

async fn numbers(checks: &mut Checks, kata: &Kata) {
    checks
        .that("StatsContainer accepts and tells cpu, memory, pids and network", async {
            let answer = stats(kata, MAIN).await?;
            let cgroup = &answer.cgroup_stats;
            ensure!(
                cgroup.cpu_stats.cpu_usage.total_usage > 1_000_000,
                "less than a millisecond: {cgroup:?}"
            );
            ensure!(cgroup.memory_stats.usage.usage > 64 * 1024, "{:?}", cgroup.memory_stats);
            ensure!((1..100).contains(&cgroup.pids_stats.current), "{:?}", cgroup.pids_stats);
            let card = answer.network_stats.iter().find(|card| card.name == "eth0");
            ensure!(card.is_some(), "no eth0 in {:?}", answer.network_stats);
            Ok(())
        })
        .await;
    checks
        .that("StatsContainer refuses a container that isn't there: INVALID_ARGUMENT", async {
            fails(stats(kata, "nobody").await, &[Code::INVALID_ARGUMENT])?;
            Ok(())
        })
        .await;
}

async fn updates(checks: &mut Checks, kata: &Kata) {
    checks
        .that("UpdateContainer accepts new limits while the container runs", async {
            update(kata, MAIN, memory(96 * MIB)).await?;
            let limit = stats(kata, MAIN).await?.cgroup_stats.memory_stats.usage.limit;
            ensure!(limit == 96 * MIB, "the limit is {limit}");
            let pids = LinuxPids { Limit: 77, ..Default::default() };
            let cpu = LinuxCPU { Shares: 512, Quota: 50_000, Period: 100_000, ..Default::default() };
            let resources = LinuxResources {
                Pids: MessageField::some(pids),
                CPU: MessageField::some(cpu),
                ..Default::default()
            };
            update(kata, MAIN, resources).await?;
            let answer = stats(kata, MAIN).await?.cgroup_stats;
            ensure!(answer.pids_stats.limit == 77, "{:?}", answer.pids_stats);
            ensure!(
                answer.memory_stats.usage.limit == 96 * MIB,
                "another update took the memory's limit away"
            );
            // Without a limit again.
            let cpu = LinuxCPU { Shares: 1024, Quota: -1, Period: 100_000, ..Default::default() };
            update(kata, MAIN, LinuxResources { CPU: MessageField::some(cpu), ..memory(u64::MAX) }).await?;
            Ok(())
        })
        .await;
    checks
        .that("UpdateContainer refuses a container that isn't there: INVALID_ARGUMENT", async {
            fails(update(kata, "nobody", memory(MIB)).await, &[Code::INVALID_ARGUMENT])?;
            Ok(())
        })
        .await;
    checks
        .that("CreateContainer accepts limits, and they hold", async {
            let mut request = spec::container("limited", &["sleep", "1000"]);
            let linux = request.OCI.mut_or_insert_default().Linux.mut_or_insert_default();
            let resources = linux.Resources.mut_or_insert_default();
            resources.Memory.mut_or_insert_default().Limit = 32 * MIB as i64;
            resources.Pids = MessageField::some(LinuxPids { Limit: 9, ..Default::default() });
            kata.create(&request).await?;
            kata.start("limited").await?;
            let answer = stats(kata, "limited").await?.cgroup_stats;
            ensure!(answer.memory_stats.usage.limit == 32 * MIB, "{:?}", answer.memory_stats.usage);
            ensure!(answer.pids_stats.limit == 9, "{:?}", answer.pids_stats);
            Ok(kata.remove("limited").await?)
        })
        .await;
}

async fn freezing(checks: &mut Checks, kata: &Kata) {
    checks
        .that("PauseContainer accepts: nothing in the container goes on", async {
            let script = "while true; do echo tick; sleep 0.05; done";
            kata.create(&spec::container("clock", &["/bin/sh", "-c", script])).await?;
            kata.start("clock").await?;
            ensure!(kata.read("clock", "", false, 8192).await?.starts_with(b"tick"));
            pause(kata, "clock").await?;
            let before = stats(kata, "clock").await?.cgroup_stats.cpu_stats.cpu_usage.total_usage;
            // Its twenty ticks a second would show.
            tokio::time::sleep(Duration::from_millis(400)).await;
            let after = stats(kata, "clock").await?.cgroup_stats.cpu_stats.cpu_usage.total_usage;
            ensure!(before == after, "it ran for {} ns while it was paused", after - before);
            Ok(())
        })
        .await;
    checks
        .that("PauseContainer refuses a container that is paused: INTERNAL", async {
            fails(pause(kata, "clock").await, &[Code::INTERNAL])?;
            Ok(())
        })
        .await;
    checks
        .that("ResumeContainer accepts: it goes on", async {
            resume(kata, "clock").await?;
            let before = stats(kata, "clock").await?.cgroup_stats.cpu_stats.cpu_usage.total_usage;
            let mut after = before;
            while after == before {
                kata.read("clock", "", false, 8192).await?;
                after = stats(kata, "clock").await?.cgroup_stats.cpu_stats.cpu_usage.total_usage;
            }
            Ok(())
        })
        .await;
    checks
        .that("ResumeContainer refuses a container that runs: INTERNAL", async {
            fails(resume(kata, "clock").await, &[Code::INTERNAL])?;
            Ok(())
        })
        .await;
    checks
        .that("SignalProcess accepts KILL for a paused container", async {
            pause(kata, "clock").await?;
            kata.signal("clock", "", 9).await?;
            ensure!(kata.wait("clock", "").await? == 137);
            Ok(kata.remove("clock").await?)
        })
        .await;
    checks
        .that("PauseContainer refuses a container that isn't there: INVALID_ARGUMENT", async {
            fails(pause(kata, "nobody").await, &[Code::INVALID_ARGUMENT])?;
            fails(resume(kata, "nobody").await, &[Code::INVALID_ARGUMENT])?;
            Ok(())
        })
        .await;
}

async fn out_of_memory(checks: &mut Checks, kata: &Kata) {
    checks
        .that("GetOOMEvent accepts and tells which container ran out of memory", async {
            let event = tokio::spawn({
                let kata = kata.clone();
                async move {
                    let context = ttrpc::context::Context::default();
                    answer_of(kata.agent().get_oom_event(context, &wire::GetOOMEventRequest::new()).await)
                }
            });
            let mut request =
                spec::container("greedy", &["dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=1"]);
            let linux = request.OCI.mut_or_insert_default().Linux.mut_or_insert_default();
            linux.Resources.mut_or_insert_default().Memory.mut_or_insert_default().Limit = 16 * MIB as i64;
            let ended = kata.run(&request).await?;
            ensure!(ended.status == 137, "{ended:?}");
            let event = event.await??;
            ensure!(event.container_id == "greedy", "{event:?}");
            Ok(())
        })
        .await;
    checks.that("GetDiagnosticData accepts termination_log", async { termination_log(kata).await }).await;
    checks
        .that("GetDiagnosticData refuses other kinds of logs: INVALID_ARGUMENT", async {
            let mut request = wire::GetDiagnosticDataRequest::new();
            request.container_id = MAIN.to_owned();
            request.log_type = "kernel".to_owned();
            let answer = answer_of(kata.agent().get_diagnostic_data(soon(), &request).await);
            fails(answer, &[Code::INVALID_ARGUMENT])?;
            Ok(())
        })
        .await;
}

/// The kubelet's termination log arrives by `CopyFile` and is bound into the container.
async fn termination_log(kata: &Kata) -> Result<()> {
    let path = format!("{}/last-log", spec::SHARED);
    let mut file = wire::CopyFileRequest::new();
    file.path = path.clone();
    file.file_mode = 0o100_666;
    file.dir_mode = 0o750;
    answer_of(kata.agent().copy_file(soon(), &file).await)?;
    let script = "echo last words > /dev/termination-log";
    let mut request = spec::container("last", &["/bin/sh", "-c", script]);
    let oci = request.OCI.mut_or_insert_default();
    oci.Annotations.insert(
        "io.kubernetes.container.terminationMessagePath".to_owned(),
        "/dev/termination-log".to_owned(),
    );
    oci.Mounts.push(spec::mount("/dev/termination-log", &path, "bind", &["rbind", "rprivate", "rw"]));
    kata.create(&request).await?;
    kata.start("last").await?;
    kata.follow("last", "").await?.good()?;
    let mut request = wire::GetDiagnosticDataRequest::new();
    request.container_id = "last".to_owned();
    request.log_type = "termination_log".to_owned();
    let answer = answer_of(kata.agent().get_diagnostic_data(soon(), &request).await)?;
    ensure!(answer.data.trim_end() == "last words", "{answer:?}");
    Ok(kata.remove("last").await?)
}

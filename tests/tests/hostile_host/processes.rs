//! Processes, streams, signals, resources, and the RPCs that a sealed VM never answers.

use anyhow::{Result, ensure};
use protobuf::MessageField;
use protocols::agent as wire;
use protocols::oci::{LinuxMemory, LinuxResources};
use protocols::refusal::Code;
use sealpod_tests::checks::Checks;
use sealpod_tests::kata::{Answer, answer_of, fails, refused, soon, spec, unique};

use crate::Target;

pub(crate) async fn check(checks: &mut Checks, target: &Target) {
    exec(checks, target).await;
    streams(checks, target).await;
    resources(checks, target).await;
    never(checks, target).await;
}

async fn exec(checks: &mut Checks, target: &Target) {
    let kata = &target.kata;
    let commands: [&[&str]; 9] = [
        &["/bin/sh"],
        &["env", "FOO=1"],
        &["/bin/env"],
        &[],
        &["sh", "-c", "env"],
        &["/sealpod", "probe", "main/readiness"],
        &["/sealpod", "probe", "root/liveness"],
        &["/sealpod", "probe"],
        &["probe", "attack"],
    ];
    target
        .attempt(checks, "2: exec of what isn't granted, or not exactly, or to another container", async {
            let main = target.id("main")?;
            for command in commands {
                let answer = kata.start_exec(&main, &unique("exec"), spec::process(command)).await;
                refused(answer, &[Code::ExecDenied])
                    .map_err(|error| error.context(format!("{command:?}")))?;
            }
            Ok(())
        })
        .await;
    target
        .attempt(
            checks,
            "2: user, environment, directory and capabilities of a granted exec are the sealed ones",
            async {
                let main = target.id("main")?;
                let name = unique("exec");
                let mut process = spec::process(&["env"]);
                process.Env = spec::strings(&["COLOUR=red", "LD_PRELOAD=/evil.so"]);
                process.Cwd = "/proc".to_owned();
                process.User.mut_or_insert_default().UID = 0;
                process.Capabilities = MessageField::some(spec::capabilities(&spec::ALL_CAPABILITIES));
                process.Terminal = true;
                kata.start_exec(&main, &name, process).await?;
                let text = kata.follow(&main, &name).await?.good()?;
                ensure!(text.contains("COLOUR=sealed blue") && !text.contains("LD_PRELOAD"), "{text}");
                Ok(())
            },
        )
        .await;
    target
        .attempt(checks, "2: signals other than those that end a process", async {
            let main = target.id("main")?;
            for signal in [0, 1, 2, 10, 19, 18, 34] {
                let answer = kata.signal(&main, "", signal).await;
                refused(answer, &[Code::SignalDenied]).map_err(|error| error.context(format!("{signal}")))?;
            }
            Ok(())
        })
        .await;
}

async fn streams(checks: &mut Checks, target: &Target) {
    let kata = &target.kata;
    target
        .attempt(checks, "2: standard input and terminals that aren't granted", async {
            let main = target.id("main")?;
            refused(kata.write(&main, "", b"x").await, &[Code::AttachDenied, Code::StdinDenied])?;
            let resized = kata.resize(&main, "", 10, 10).await;
            let failure = fails(resized, &[ttrpc::Code::PERMISSION_DENIED, ttrpc::Code::UNAVAILABLE])?;
            ensure!(matches!(failure.refusal(), Some(Code::ResizeDenied) | None), "{failure}");
            Ok(())
        })
        .await;
    target
        .attempt(checks, "12: ids with NUL, slashes, dots and a megabyte", async {
            let long = "a".repeat(1 << 20);
            for id in ["", ".", "..", "../main", "main\0", "a/b", "\u{202e}main", &long] {
                let answers: [Answer<()>; 4] = [
                    kata.signal(id, "", 15).await,
                    kata.wait(id, "").await.map(drop),
                    kata.start(id).await,
                    kata.remove(id).await,
                ];
                for answer in answers {
                    let Err(failure) = answer else {
                        anyhow::bail!("{:?} was answered", &id[..id.len().min(20)])
                    };
                    ensure!(failure.message.len() < 2048, "the answer repeats the question");
                    ensure!(failure.code.is_some(), "{failure}");
                }
            }
            Ok(())
        })
        .await;
}

async fn resources(checks: &mut Checks, target: &Target) {
    let kata = &target.kata;
    target
        .attempt(checks, "2: limits beyond the sealed ones; pausing", async {
            let mut update = wire::UpdateContainerRequest::new();
            update.container_id = target.id("main")?;
            let memory = LinuxMemory { Limit: 4096, ..Default::default() };
            update.resources = MessageField::some(LinuxResources {
                Memory: MessageField::some(LinuxMemory { Limit: -1, DisableOOMKiller: true, ..memory }),
                ..Default::default()
            });
            let answer = answer_of(kata.agent().update_container(soon(), &update).await);
            if let Err(failure) = answer {
                ensure!(failure.refusal() == Some(Code::UpdateDenied), "{failure}");
            }
            let mut pause = wire::PauseContainerRequest::new();
            pause.container_id = target.id("main")?;
            refused(answer_of(kata.agent().pause_container(soon(), &pause).await), &[Code::PauseDenied])
        })
        .await;
}

async fn never(checks: &mut Checks, target: &Target) {
    let agent = target.kata.agent();
    let no = |answer: Result<(), ttrpc::Error>| refused(answer_of(answer), &[Code::RpcDenied]);
    target
        .attempt(checks, "2: SetPolicy", async {
            let mut request = wire::SetPolicyRequest::new();
            request.policy = "package agent_policy\ndefault SetPolicyRequest := true\n".to_owned();
            no(agent.set_policy(soon(), &request).await.map(drop))
        })
        .await;
    target
        .attempt(checks, "46, 47: what a sealed VM never does", async {
            let mut swap = wire::AddSwapPathRequest::new();
            swap.path = "/dev/vda".to_owned();
            no(agent.add_swap_path(soon(), &swap).await.map(drop))?;
            no(agent.add_swap(soon(), &wire::AddSwapRequest::new()).await.map(drop))?;
            no(agent.get_ip_tables(soon(), &wire::GetIPTablesRequest::new()).await.map(drop))?;
            no(agent.set_ip_tables(soon(), &wire::SetIPTablesRequest::new()).await.map(drop))?;
            no(agent.mem_hotplug_by_probe(soon(), &wire::MemHotplugByProbeRequest::new()).await.map(drop))?;
            let stale = wire::RemoveStaleVirtiofsShareMountsRequest::new();
            no(agent.remove_stale_virtiofs_share_mounts(soon(), &stale).await.map(drop))?;
            no(agent.mem_agent_memcg_set(soon(), &wire::MemAgentMemcgConfig::new()).await.map(drop))?;
            no(agent.mem_agent_compact_set(soon(), &wire::MemAgentCompactConfig::new()).await.map(drop))?;
            no(agent.get_volume_stats(soon(), &wire::VolumeStatsRequest::new()).await.map(drop))?;
            no(agent.resize_volume(soon(), &wire::ResizeVolumeRequest::new()).await.map(drop))?;
            no(agent
                .update_ephemeral_mounts(soon(), &wire::UpdateEphemeralMountsRequest::new())
                .await
                .map(drop))
        })
        .await;
    target
        .attempt(checks, "39: a clock before the agent was built", async {
            let mut clock = wire::SetGuestDateTimeRequest::new();
            clock.Sec = 1;
            fails(answer_of(agent.set_guest_date_time(soon(), &clock).await), &[ttrpc::Code::INTERNAL])?;
            Ok(())
        })
        .await;
}

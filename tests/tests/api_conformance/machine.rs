//! The guest as a machine: processors and memory, clock, randomness, swap, metrics, and what it doesn't have.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::ensure;
use protocols::agent as wire;
use sealpod_tests::checks::Checks;
use sealpod_tests::kata::{Kata, answer_of, fails, soon};
use ttrpc::Code;

use crate::{Bench, MAIN};

pub(crate) async fn check(checks: &mut Checks, bench: &Bench) {
    let kata = bench.kata();
    processors(checks, kata).await;
    clock(checks, kata).await;
    swap(checks, bench).await;
    absent(checks, kata).await;
    checks
        .that("GetMetrics accepts in Prometheus' text format", async {
            let answer = answer_of(kata.agent().get_metrics(soon(), &wire::GetMetricsRequest::new()).await)?;
            let samples = answer.metrics.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
            for line in samples {
                let value = line.rsplit(' ').next().unwrap_or_default();
                ensure!(value.parse::<f64>().is_ok(), "no sample: {line:?}");
            }
            ensure!(kata.metric("kata_agent_total_rss").await? > 1e6);
            Ok(())
        })
        .await;
}

async fn processors(checks: &mut Checks, kata: &Kata) {
    checks
        .that("OnlineCPUMem accepts what is there already", async {
            let mut request = wire::OnlineCPUMemRequest::new();
            (request.wait, request.nb_cpus) = (false, 1);
            answer_of(kata.agent().online_cpu_mem(soon(), &request).await)?;
            Ok(())
        })
        .await;
    checks
        .that("OnlineCPUMem refuses to wait for processors that never come", async {
            let mut request = wire::OnlineCPUMemRequest::new();
            (request.wait, request.nb_cpus, request.cpu_only) = (true, 64, true);
            fails(answer_of(kata.agent().online_cpu_mem(soon(), &request).await), &[Code::INTERNAL])?;
            Ok(())
        })
        .await;
    checks
        .that("MemHotplugByProbe refuses where the kernel has no probe file: INTERNAL", async {
            let mut request = wire::MemHotplugByProbeRequest::new();
            request.memHotplugProbeAddr = vec![0x4000_0000];
            fails(answer_of(kata.agent().mem_hotplug_by_probe(soon(), &request).await), &[Code::INTERNAL])?;
            Ok(())
        })
        .await;
}

async fn clock(checks: &mut Checks, kata: &Kata) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    checks
        .that("SetGuestDateTime accepts a later time, and containers see it", async {
            let later = now + Duration::from_secs(3 * 24 * 60 * 60);
            let mut request = wire::SetGuestDateTimeRequest::new();
            request.Sec = i64::try_from(later.as_secs())?;
            answer_of(kata.agent().set_guest_date_time(soon(), &request).await)?;
            let seen: u64 = kata.exec(MAIN, &["date", "+%s"]).await?.good()?.parse()?;
            ensure!(seen.abs_diff(later.as_secs()) < 3600, "{seen}, not {}", later.as_secs());
            Ok(())
        })
        .await;
    checks
        .that("SetGuestDateTime refuses a time that can't be", async {
            for (seconds, microseconds) in [(-1, 0), (1, 0), (i64::try_from(now.as_secs())?, 2_000_000)] {
                let mut request = wire::SetGuestDateTimeRequest::new();
                (request.Sec, request.Usec) = (seconds, microseconds);
                let answer = answer_of(kata.agent().set_guest_date_time(soon(), &request).await);
                fails(answer, &[Code::INTERNAL, Code::INVALID_ARGUMENT])?;
            }
            Ok(())
        })
        .await;
    checks
        .that("ReseedRandomDev accepts", async {
            let mut request = wire::ReseedRandomDevRequest::new();
            request.data = vec![0x5a; 512];
            answer_of(kata.agent().reseed_random_dev(soon(), &request).await)?;
            Ok(())
        })
        .await;
}

async fn swap(checks: &mut Checks, bench: &Bench) {
    let kata = bench.kata();
    checks
        .that("AddSwap accepts a disk by its place on the PCI bus", async {
            let mut request = wire::AddSwapRequest::new();
            request.PCIPath = vec![u32::from_str_radix(&bench.swap, 16)?];
            answer_of(kata.agent().add_swap(soon(), &request).await)?;
            let swaps = kata.exec(MAIN, &["cat", "/proc/swaps"]).await?.good()?;
            ensure!(swaps.contains("/dev/vd"), "{swaps}");
            Ok(())
        })
        .await;
    checks
        .that("AddSwap refuses a place where nothing is, and names it", async {
            let mut request = wire::AddSwapRequest::new();
            request.PCIPath = vec![0x1e];
            let failure = fails(answer_of(kata.agent().add_swap(soon(), &request).await), &[Code::INTERNAL])?;
            ensure!(failure.message.to_lowercase().contains("1e"), "{failure}");
            Ok(())
        })
        .await;
    checks
        .that("AddSwapPath accepts a disk by its name", async {
            let place = format!("/sys/bus/pci/devices/0000:00:{}.0", bench.second_swap);
            let script = format!("ls {place}/virtio*/block");
            let name = kata.exec(MAIN, &["/bin/sh", "-c", &script]).await?.good()?;
            let mut request = wire::AddSwapPathRequest::new();
            request.path = format!("/dev/{name}");
            answer_of(kata.agent().add_swap_path(soon(), &request).await)?;
            let swaps = kata.exec(MAIN, &["cat", "/proc/swaps"]).await?.good()?;
            ensure!(swaps.contains(&request.path), "{swaps}");
            Ok(())
        })
        .await;
    checks
        .that("AddSwapPath refuses a path that isn't there and one that is no swap area", async {
            for path in ["/dev/nothing", "/dev/vda"] {
                let mut request = wire::AddSwapPathRequest::new();
                request.path = path.to_owned();
                fails(answer_of(kata.agent().add_swap_path(soon(), &request).await), &[Code::INTERNAL])?;
            }
            Ok(())
        })
        .await;
}

/// What guests of this kind don't have says so, and is told from what fails.
async fn absent(checks: &mut Checks, kata: &Kata) {
    let no_agent = [Code::UNIMPLEMENTED, Code::INTERNAL];
    checks
        .that("MemAgentMemcgSet refuses: there is no memory agent", async {
            let request = wire::MemAgentMemcgConfig::new();
            fails(answer_of(kata.agent().mem_agent_memcg_set(soon(), &request).await), &no_agent)?;
            Ok(())
        })
        .await;
    checks
        .that("MemAgentCompactSet refuses: there is no memory agent", async {
            let request = wire::MemAgentCompactConfig::new();
            fails(answer_of(kata.agent().mem_agent_compact_set(soon(), &request).await), &no_agent)?;
            Ok(())
        })
        .await;
    checks
        .that("SetPolicy refuses where no policy is in force", async {
            let mut request = wire::SetPolicyRequest::new();
            request.policy = "package agent_policy\ndefault AllowRequestsFailingPolicy := true\n".to_owned();
            let codes = [Code::UNIMPLEMENTED, Code::PERMISSION_DENIED, Code::INVALID_ARGUMENT];
            fails(answer_of(kata.agent().set_policy(soon(), &request).await), &codes)?;
            Ok(())
        })
        .await;
}

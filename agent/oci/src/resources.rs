//! Requests and limits as cgroup v2 settings, the way kubelet computes them, and the device list.

use std::collections::{BTreeMap, HashMap};

use oci_spec::runtime::{
    LinuxCpu, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType, LinuxMemory, LinuxPids,
    LinuxResources,
};
use sealed_spec::PodSpec;
use sealed_spec::podspec::{Container, Quantity};

use crate::OciError;

/// Microseconds; kubelet's default.
const CPU_PERIOD: u64 = 100_000;
/// Of a period, below which the kernel refuses.
const MIN_CPU_QUOTA: u64 = 1_000;
const MIN_CPU_SHARES: u64 = 2;
const MAX_CPU_SHARES: u64 = 262_144;
/// So that one container's processes don't take the last process id from the agent.
const MAX_PROCESSES: i64 = 16_384;

/// kubelet's scores by quality of service; its burstable range needs the node's size, so the range's end.
const OOM_GUARANTEED: i32 = -997;
const OOM_BURSTABLE: i32 = 999;
const OOM_BEST_EFFORT: i32 = 1000;

/// Devices that every container has: type, major, minor. Nothing else opens, whatever nodes it makes.
const DEVICES: [(LinuxDeviceType, i64, Option<i64>); 9] = [
    (LinuxDeviceType::C, 1, Some(3)), // null
    (LinuxDeviceType::C, 1, Some(5)), // zero
    (LinuxDeviceType::C, 1, Some(7)), // full
    (LinuxDeviceType::C, 1, Some(8)), // random
    (LinuxDeviceType::C, 1, Some(9)), // urandom
    (LinuxDeviceType::C, 5, Some(0)), // tty
    (LinuxDeviceType::C, 5, Some(1)), // console, the container's own pseudoterminal
    (LinuxDeviceType::C, 5, Some(2)), // ptmx
    (LinuxDeviceType::C, 136, None),  // pts
];

/// The cgroup settings of a container.
pub(crate) fn cgroup(container: &Container) -> Result<LinuxResources, OciError> {
    let empty = BTreeMap::new();
    let (limits, requests) = container
        .resources
        .as_ref()
        .map_or((&empty, &empty), |resources| (&resources.limits, &resources.requests));
    for name in limits.keys().chain(requests.keys()) {
        if !matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") {
            return Err(OciError::refused("resources", format!("{name} is not available in a sealed guest")));
        }
    }
    let mut cpu = LinuxCpu::default();
    let cpu_limit = limits.get("cpu").map(Quantity::millis);
    // The API server fills a missing request in from the limit.
    let cpu_request = requests.get("cpu").map(Quantity::millis).or(cpu_limit).unwrap_or(0);
    let shares = cpu_request.saturating_mul(1024) / 1000;
    cpu.set_shares(Some(shares.clamp(MIN_CPU_SHARES, MAX_CPU_SHARES)));
    if let Some(limit) = cpu_limit.filter(|limit| *limit > 0) {
        let quota = (limit.saturating_mul(CPU_PERIOD) / 1000).max(MIN_CPU_QUOTA);
        cpu.set_quota(Some(i64::try_from(quota).unwrap_or(i64::MAX)));
        cpu.set_period(Some(CPU_PERIOD));
    }
    let mut resources = LinuxResources::default();
    resources.set_cpu(Some(cpu));
    let memory_limit = limits.get("memory").map(Quantity::units).filter(|limit| *limit > 0);
    if let Some(limit) = memory_limit {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut memory = LinuxMemory::default();
        memory.set_limit(Some(limit));
        // Memory and swap together, as the specification counts: no swap.
        memory.set_swap(Some(limit));
        resources.set_memory(Some(memory));
    }
    let mut pids = LinuxPids::default();
    pids.set_limit(MAX_PROCESSES);
    resources.set_pids(Some(pids));
    resources.set_devices(Some(devices()?));
    // A container whose memory runs out ends whole, as kubelet has it on cgroup v2.
    resources.set_unified(Some(HashMap::from([("memory.oom.group".to_owned(), "1".to_owned())])));
    Ok(resources)
}

fn devices() -> Result<Vec<LinuxDeviceCgroup>, OciError> {
    let mut list = vec![LinuxDeviceCgroupBuilder::default().allow(false).access("rwm").build()?];
    for (kind, major, minor) in DEVICES {
        let mut device = LinuxDeviceCgroupBuilder::default().allow(true).typ(kind).major(major).access("rwm");
        if let Some(minor) = minor {
            device = device.minor(minor);
        }
        list.push(device.build()?);
    }
    Ok(list)
}

/// Who goes first when the guest's memory runs out.
pub(crate) fn oom_score(pod: &PodSpec) -> i32 {
    let mut any = false;
    let mut guaranteed = true;
    for container in pod.all_containers() {
        let resources = container.resources.as_ref();
        for name in ["cpu", "memory"] {
            let limit = resources.and_then(|r| r.limits.get(name)).map(Quantity::millis).filter(|v| *v > 0);
            let request = resources.and_then(|r| r.requests.get(name)).map(Quantity::millis).or(limit);
            any |= limit.is_some() || request.is_some_and(|v| v > 0);
            guaranteed &= limit.is_some() && request == limit;
        }
    }
    match (any, guaranteed) {
        (false, _) => OOM_BEST_EFFORT,
        (true, true) => OOM_GUARANTEED,
        (true, false) => OOM_BURSTABLE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sealed_spec::podspec::ResourceRequirements;

    fn container(limits: &[(&str, &str)], requests: &[(&str, &str)]) -> Container {
        let map = |list: &[(&str, &str)]| {
            list.iter().map(|(n, q)| ((*n).to_owned(), Quantity::parse(q).unwrap())).collect()
        };
        let resources = Some(ResourceRequirements { limits: map(limits), requests: map(requests) });
        Container { resources, ..Default::default() }
    }

    #[test]
    fn cpu_and_memory_as_kubelet_computes_them() {
        let resources =
            cgroup(&container(&[("cpu", "1500m"), ("memory", "64Mi")], &[("cpu", "250m")])).unwrap();
        let cpu = resources.cpu().as_ref().unwrap();
        assert_eq!((cpu.shares(), cpu.quota(), cpu.period()), (Some(256), Some(150_000), Some(100_000)));
        let memory = resources.memory().as_ref().unwrap();
        assert_eq!((memory.limit(), memory.swap()), (Some(64 << 20), Some(64 << 20)));

        let resources = cgroup(&container(&[], &[])).unwrap();
        let cpu = resources.cpu().as_ref().unwrap();
        assert_eq!((cpu.shares(), cpu.quota()), (Some(2), None));
        assert!(resources.memory().is_none());

        let resources = cgroup(&container(&[("cpu", "1m")], &[])).unwrap();
        let cpu = resources.cpu().as_ref().unwrap();
        assert_eq!((cpu.shares(), cpu.quota()), (Some(2), Some(1000)));
    }

    #[test]
    fn other_resources_are_refused_by_name() {
        let error = cgroup(&container(&[("nvidia.com/gpu", "1")], &[])).unwrap_err().to_string();
        assert!(error.contains("nvidia.com/gpu"), "{error}");
        cgroup(&container(&[("hugepages-2Mi", "2Mi")], &[])).unwrap_err();
        cgroup(&container(&[("ephemeral-storage", "1Gi")], &[])).unwrap();
    }

    #[test]
    fn oom_scores_follow_quality_of_service() {
        let pod = |containers| PodSpec { containers, ..Default::default() };
        let full = [("cpu", "1"), ("memory", "1Mi")];
        assert_eq!(oom_score(&pod(vec![container(&[], &[])])), 1000);
        assert_eq!(oom_score(&pod(vec![container(&full, &full)])), -997);
        assert_eq!(oom_score(&pod(vec![container(&full, &[])])), -997);
        assert_eq!(oom_score(&pod(vec![container(&full, &[]), container(&[], &[])])), 999);
        assert_eq!(oom_score(&pod(vec![container(&[], &[("cpu", "1")])])), 999);
    }
}

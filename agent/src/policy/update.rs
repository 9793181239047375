//! UpdateContainer in a sealed VM: limits may be raised as far as the sealed spec says, and lowered; memory
//! not below what the spec asks for: the host would choose what the kernel kills, and when.

use protocols::oci;
use protocols::refusal::{Code, Refusal};
use sealed_spec::SealedSpec;
use sealed_spec::podspec::Quantity;

/// Microseconds; what the kernel takes when a quota comes without a period.
const DEFAULT_PERIOD: u64 = 100_000;
/// Microseconds, as the kernel bounds it.
const PERIODS: std::ops::RangeInclusive<u64> = 1_000..=1_000_000;
/// Microseconds, as the kernel bounds it.
const LEAST_QUOTA: i64 = 1_000;
/// As the kernel bounds it.
const SHARES: std::ops::RangeInclusive<u64> = 2..=262_144;

/// The part of a request that is carried out.
#[derive(Debug, Clone, PartialEq)]
pub struct Permitted {
    /// CPU and memory limits, and nothing else.
    pub resources: oci::LinuxResources,
    /// What else was asked for and is not done, by name.
    pub dropped: Vec<&'static str>,
}

/// Checks a request for a container by its sealed name.
pub fn check(spec: &SealedSpec, container: &str, wanted: &oci::LinuxResources) -> Result<Permitted, Refusal> {
    let bounds = Bounds::of(spec, container);
    // Its end decides on what comes after it; the kubelet changes nothing of it.
    let init = spec.pod.init_containers.iter().any(|init| init.name == container && !init.is_sidecar());
    let mut resources = oci::LinuxResources::new();
    if let Some(cpu) = wanted.CPU.as_ref() {
        resources.CPU = Some(bounds.cpu(container, cpu)?).into();
    }
    if let Some(memory) = wanted.Memory.as_ref().filter(|memory| memory.Limit != 0) {
        if init {
            return Err(refused(container, "memory"));
        }
        resources.Memory = Some(bounds.memory(container, memory)?).into();
    }
    Ok(Permitted { resources, dropped: dropped(wanted) })
}

/// At most; `None` where the sealed container has no limit, so that any is a lower one.
struct Bounds {
    millicpu: Option<u64>,
    memory: Option<u64>,
    /// At least: what the spec requests, or limits; without either, the host limits nothing.
    least_memory: Option<u64>,
}

impl Bounds {
    fn of(spec: &SealedSpec, container: &str) -> Self {
        let limits = spec.pod.container(container).and_then(|container| container.resources.as_ref());
        let ceiling = spec.grants.update_resources.get(container);
        let bound = |name: &str, ceiling: Option<&Quantity>, amount: fn(&Quantity) -> u64| {
            let limit = limits.and_then(|resources| resources.limits.get(name)).map(amount);
            limit.map(|limit| ceiling.map_or(limit, |ceiling| amount(ceiling).max(limit)))
        };
        Self {
            millicpu: bound("cpu", ceiling.and_then(|c| c.cpu.as_ref()), Quantity::millis),
            memory: bound("memory", ceiling.and_then(|c| c.memory.as_ref()), Quantity::units),
            least_memory: limits
                .and_then(|r| r.requests.get("memory").or_else(|| r.limits.get("memory")))
                .map(Quantity::units),
        }
    }

    fn cpu(&self, container: &str, wanted: &oci::LinuxCPU) -> Result<oci::LinuxCPU, Refusal> {
        let mut cpu = oci::LinuxCPU::new();
        if wanted.Shares != 0 {
            let most = self.millicpu.map_or(*SHARES.end(), |milli| milli.saturating_mul(1024) / 1000);
            if !SHARES.contains(&wanted.Shares) || wanted.Shares > most.max(*SHARES.start()) {
                return Err(refused(container, "CPU shares"));
            }
            cpu.Shares = wanted.Shares;
        }
        match wanted.Quota {
            0 if wanted.Period != 0 => return Err(refused(container, "a CPU period without a quota")),
            0 => {}
            quota => {
                let period = if wanted.Period == 0 { DEFAULT_PERIOD } else { wanted.Period };
                let fits = match self.millicpu {
                    None => true,
                    // Without loss: a quota of a bounded period, times a thousand.
                    Some(milli) => {
                        quota > 0 && i128::from(quota) * 1000 <= i128::from(period) * i128::from(milli)
                    }
                };
                if !PERIODS.contains(&period) || quota != -1 && quota < LEAST_QUOTA || !fits {
                    return Err(refused(container, "CPU time"));
                }
                (cpu.Quota, cpu.Period) = (quota, period);
            }
        }
        Ok(cpu)
    }

    fn memory(&self, container: &str, wanted: &oci::LinuxMemory) -> Result<oci::LinuxMemory, Refusal> {
        let fits = match (u64::try_from(wanted.Limit), self.memory) {
            (Ok(limit), bound) => {
                bound.is_none_or(|bound| limit <= bound)
                    && self.least_memory.is_some_and(|least| limit >= least)
            }
            (Err(_), bound) => wanted.Limit == -1 && bound.is_none(),
        };
        if !fits {
            return Err(refused(container, "memory"));
        }
        let mut memory = oci::LinuxMemory::new();
        // Memory and swap together: no swap.
        (memory.Limit, memory.Swap) = (wanted.Limit, wanted.Limit);
        Ok(memory)
    }
}

fn dropped(wanted: &oci::LinuxResources) -> Vec<&'static str> {
    let (cpu, memory) = (wanted.CPU.as_ref(), wanted.Memory.as_ref());
    let has = |present: bool, name| present.then_some(name);
    [
        has(cpu.is_some_and(|c| !c.Cpus.is_empty() || !c.Mems.is_empty()), "cpusets"),
        has(cpu.is_some_and(|c| c.RealtimeRuntime != 0 || c.RealtimePeriod != 0), "real-time CPU"),
        has(memory.is_some_and(|m| m.Swap != 0 && m.Swap != m.Limit), "swap"),
        has(memory.is_some_and(|m| m.Reservation != 0), "memory reservation"),
        has(memory.is_some_and(|m| m.Kernel != 0 || m.KernelTCP != 0), "kernel memory"),
        has(memory.is_some_and(|m| m.DisableOOMKiller || m.Swappiness != 0), "memory tuning"),
        has(!wanted.Devices.is_empty(), "devices"),
        has(wanted.Pids.is_some(), "pids"),
        has(wanted.BlockIO.is_some(), "block I/O"),
        has(!wanted.HugepageLimits.is_empty(), "huge pages"),
        has(wanted.Network.is_some(), "network classes"),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn refused(container: &str, what: &str) -> Refusal {
    Refusal::new(
        Code::UpdateDenied,
        format!("the sealed spec doesn't allow that change of {what} for container '{container}'"),
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use sealed_spec::grants::ResourceCeiling;
    use sealed_spec::podspec::{Container, ContainerRestartPolicy, PodSpec, ResourceRequirements};

    use super::*;

    fn quantity(text: &str) -> Quantity {
        Quantity::parse(text).unwrap()
    }

    fn spec() -> SealedSpec {
        let container = |name: &str, limits: &[(&str, &str)]| Container {
            name: name.into(),
            resources: Some(ResourceRequirements {
                limits: limits.iter().map(|(name, text)| ((*name).to_owned(), quantity(text))).collect(),
                requests: match name {
                    "web" => BTreeMap::from([("memory".to_owned(), quantity("16Mi"))]),
                    _ => BTreeMap::new(),
                },
            }),
            ..Container::default()
        };
        let limits = [("cpu", "1"), ("memory", "64Mi")];
        let containers = vec![container("web", &limits), container("db", &limits), container("free", &[])];
        let mut spec = SealedSpec::new(PodSpec { containers, ..PodSpec::default() });
        let ceiling = ResourceCeiling { cpu: Some(quantity("2")), memory: None };
        spec.grants.update_resources.insert("db".into(), ceiling);
        spec
    }

    fn cpu(quota: i64, period: u64, shares: u64) -> oci::LinuxResources {
        let mut cpu = oci::LinuxCPU::new();
        (cpu.Quota, cpu.Period, cpu.Shares) = (quota, period, shares);
        let mut wanted = oci::LinuxResources::new();
        wanted.CPU = Some(cpu).into();
        wanted
    }

    fn memory(limit: i64) -> oci::LinuxResources {
        let mut memory = oci::LinuxMemory::new();
        memory.Limit = limit;
        let mut wanted = oci::LinuxResources::new();
        wanted.Memory = Some(memory).into();
        wanted
    }

    fn allowed(container: &str, wanted: &oci::LinuxResources) -> bool {
        match check(&spec(), container, wanted) {
            Ok(_) => true,
            Err(refusal) => {
                assert_eq!(refusal.code, Code::UpdateDenied);
                false
            }
        }
    }

    #[test]
    fn limits_go_down_and_up_to_what_is_sealed() {
        for (quota, period, fits) in [
            (50_000, 100_000, true),
            (100_000, 100_000, true),
            (100_001, 100_000, false),
            (100_000, 0, true),
            (100_000, 50_000, false),
            (-1, 100_000, false),
            (-7, 100_000, false),
            (999, 100_000, false),
            (i64::MAX, 1_000_000, false),
            (1_000, u64::MAX, false),
            (0, 100_000, false),
        ] {
            assert_eq!(allowed("web", &cpu(quota, period, 0)), fits, "{quota}/{period}");
        }
        for (limit, fits) in [
            (16 << 20, true),
            ((16 << 20) - 1, false),
            (64 << 20, true),
            ((64 << 20) + 1, false),
            (-1, false),
            (-2, false),
        ] {
            assert_eq!(allowed("web", &memory(limit)), fits, "{limit}");
        }
        for (shares, fits) in [(2, true), (1024, true), (1025, false), (1, false), (u64::MAX, false)] {
            assert_eq!(allowed("web", &cpu(0, 0, shares)), fits, "{shares}");
        }
    }

    #[test]
    fn a_grant_raises_what_it_names_and_no_more() {
        assert!(allowed("db", &cpu(200_000, 100_000, 2048)));
        assert!(!allowed("db", &cpu(200_001, 100_000, 0)));
        assert!(!allowed("db", &memory((64 << 20) + 1)));
    }

    #[test]
    fn a_container_without_limits_may_get_and_lose_those_of_cpu() {
        for wanted in [cpu(-1, 100_000, 262_144), cpu(1_000, 1_000, 0), memory(-1)] {
            assert!(allowed("free", &wanted));
        }
        for limit in [-2, 1 << 20, 1 << 40] {
            assert!(!allowed("free", &memory(limit)), "{limit}");
        }
    }

    #[test]
    fn memory_never_goes_below_what_the_spec_asks_for_nor_changes_for_an_init_container() {
        // Without a request, the limit is what it asks for.
        assert!(allowed("db", &memory(64 << 20)));
        assert!(!allowed("db", &memory((64 << 20) - 1)));
        let mut with_init = spec();
        let web = with_init.pod.containers.remove(0);
        with_init.pod.init_containers.push(web);
        assert_eq!(check(&with_init, "web", &memory(64 << 20)).unwrap_err().code, Code::UpdateDenied);
        with_init.pod.init_containers[0].restart_policy = Some(ContainerRestartPolicy::Always);
        assert!(check(&with_init, "web", &memory(64 << 20)).is_ok());
    }

    #[test]
    fn everything_else_is_left_out_and_named() {
        let mut wanted = memory(32 << 20);
        wanted.Memory.mut_or_insert_default().Swap = -1;
        wanted.CPU.mut_or_insert_default().Cpus = "0".into();
        wanted.Devices.push(oci::LinuxDeviceCgroup::new());
        wanted.Pids = Some(oci::LinuxPids::new()).into();
        let permitted = check(&spec(), "web", &wanted).unwrap();
        assert_eq!(permitted.dropped, ["cpusets", "swap", "devices", "pids"]);
        assert_eq!(permitted.resources.Memory.Swap, 32 << 20);
        assert!(permitted.resources.CPU.Cpus.is_empty() && permitted.resources.Devices.is_empty());
    }
}

//! Memory and swap. A request's swap is memory and swap together, as in version 1.

use protocols::oci::LinuxMemory;

use super::values::malformed;
use super::{Cgroup, Plan};
use crate::error::Result;
use crate::hierarchy::Version;

const SWAP_V1: &str = "memory.memsw.limit_in_bytes";
const LIMIT_V1: &str = "memory.limit_in_bytes";

impl Cgroup {
    pub(super) fn plan_memory(&self, memory: &LinuxMemory, plan: &mut Plan) -> Result<()> {
        for (what, value) in [
            ("memory limit", memory.Limit),
            ("swap limit", memory.Swap),
            ("memory reservation", memory.Reservation),
        ] {
            if value < -1 {
                return Err(malformed(what, value));
            }
        }
        if memory.Limit > 0 && memory.Swap > 0 && memory.Swap < memory.Limit {
            return Err(malformed("limit of memory and swap below that of memory", memory.Swap));
        }
        if memory.Swappiness > 100 {
            return Err(malformed("swappiness", memory.Swappiness));
        }
        match self.version() {
            Version::V2 => self.plan_memory_v2(memory, plan),
            Version::V1 => self.plan_memory_v1(memory, plan),
        }
    }

    fn plan_memory_v2(&self, memory: &LinuxMemory, plan: &mut Plan) -> Result<()> {
        let swap = match (memory.Swap, memory.Limit) {
            (0, -1) | (-1, _) => Some("max".to_owned()),
            (0, _) => None,
            (_, -1) => Some("max".to_owned()),
            (swap, limit) => {
                let limit = if limit > 0 { Some(limit) } else { self.limit_v2() };
                let limit = limit.ok_or_else(|| malformed("swap limit without a memory limit", swap))?;
                let rest = swap.checked_sub(limit).filter(|rest| *rest >= 0);
                Some(rest.ok_or_else(|| malformed("limit of memory and swap", swap))?.to_string())
            }
        };
        if let Some(swap) = swap {
            // A guest without swap keeps to every limit of it.
            if self.present("memory", "memory.swap.max").is_some() {
                plan.add(self, "memory", "memory.swap.max", swap)?;
            }
        }
        if memory.Limit != 0 {
            plan.add(self, "memory", "memory.max", or_max(memory.Limit))?;
        }
        if memory.Reservation != 0 {
            plan.add(self, "memory", "memory.low", or_max(memory.Reservation))?;
        }
        Ok(())
    }

    fn limit_v2(&self) -> Option<i64> {
        self.text("memory", "memory.max").trim().parse().ok()
    }

    /// The kernel holds the limit of memory at or below that of memory and swap at every moment.
    fn plan_memory_v1(&self, memory: &LinuxMemory, plan: &mut Plan) -> Result<()> {
        let counted = self.present("memory", SWAP_V1).is_some();
        let together = self.text("memory", SWAP_V1).trim().parse::<u64>().unwrap_or(u64::MAX);
        let above = memory.Limit == -1 || u64::try_from(memory.Limit).is_ok_and(|limit| limit > together);
        let swap = match memory.Swap {
            // Nothing said: no more than is needed to let the memory through.
            0 if above => memory.Limit,
            swap => swap,
        };
        let with_swap = |plan: &mut Plan| {
            if swap != 0 && counted { plan.add(self, "memory", SWAP_V1, swap) } else { Ok(()) }
        };
        if above {
            with_swap(plan)?;
        }
        if memory.Limit != 0 {
            plan.add(self, "memory", LIMIT_V1, memory.Limit)?;
        }
        if !above {
            with_swap(plan)?;
        }
        if memory.Reservation != 0 {
            plan.add(self, "memory", "memory.soft_limit_in_bytes", memory.Reservation)?;
        }
        if memory.Swappiness != 0 {
            plan.add(self, "memory", "memory.swappiness", memory.Swappiness)?;
        }
        if memory.DisableOOMKiller {
            plan.add(self, "memory", "memory.oom_control", 1)?;
        }
        Ok(())
    }
}

fn or_max(limit: i64) -> String {
    if limit < 0 { "max".to_owned() } else { limit.to_string() }
}

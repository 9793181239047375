//! Shares, quota, processors.

use protocols::oci::LinuxCPU;

use super::values::{malformed, processors, weight_of_shares};
use super::{Cgroup, Plan};
use crate::error::{ResourceError, Result};
use crate::hierarchy::Version;

/// Microseconds that the kernel takes for a period.
const PERIODS: std::ops::RangeInclusive<u64> = 1_000..=1_000_000;
/// Least microseconds of a quota.
const LEAST_QUOTA: i64 = 1_000;

impl Cgroup {
    pub(super) fn plan_cpu(&self, cpu: &LinuxCPU, plan: &mut Plan) -> Result<()> {
        if cpu.Quota > 0 && cpu.Quota < LEAST_QUOTA {
            return Err(malformed("cpu quota", cpu.Quota));
        }
        if cpu.Period != 0 && !PERIODS.contains(&cpu.Period) {
            return Err(malformed("cpu period", cpu.Period));
        }
        if !cpu.Cpus.is_empty() {
            processors(&cpu.Cpus)?;
            plan.add(self, "cpuset", "cpuset.cpus", cpu.Cpus.trim())?;
        }
        if !cpu.Mems.is_empty() {
            processors(&cpu.Mems)?;
            plan.add(self, "cpuset", "cpuset.mems", cpu.Mems.trim())?;
        }
        match self.version() {
            Version::V2 => self.plan_cpu_v2(cpu, plan),
            Version::V1 => self.plan_cpu_v1(cpu, plan),
        }
    }

    fn plan_cpu_v2(&self, cpu: &LinuxCPU, plan: &mut Plan) -> Result<()> {
        if cpu.RealtimeRuntime != 0 || cpu.RealtimePeriod != 0 {
            return Err(ResourceError::Missing("real-time bandwidth for cgroups of version 2".into()));
        }
        if cpu.Shares != 0 {
            plan.add(self, "cpu", "cpu.weight", weight_of_shares(cpu.Shares))?;
        }
        if cpu.Quota == 0 && cpu.Period == 0 {
            return Ok(());
        }
        let now = self.text("cpu", "cpu.max");
        let mut now = now.split_whitespace();
        let quota = match cpu.Quota {
            0 => now.next().unwrap_or("max").to_owned(),
            quota if quota < 0 => "max".to_owned(),
            quota => quota.to_string(),
        };
        // Without a period the kernel keeps the one it has.
        let value = if cpu.Period == 0 { quota } else { format!("{quota} {}", cpu.Period) };
        plan.add(self, "cpu", "cpu.max", value)
    }

    fn plan_cpu_v1(&self, cpu: &LinuxCPU, plan: &mut Plan) -> Result<()> {
        if cpu.Shares != 0 {
            plan.add(self, "cpu", "cpu.shares", cpu.Shares.clamp(2, 262_144))?;
        }
        // Unlimited in between: the kernel refuses a period that an old quota doesn't fit.
        if cpu.Period != 0 && cpu.Quota != 0 {
            plan.add(self, "cpu", "cpu.cfs_quota_us", -1)?;
        }
        if cpu.Period != 0 {
            plan.add(self, "cpu", "cpu.cfs_period_us", cpu.Period)?;
        }
        if cpu.Quota != 0 {
            plan.add(self, "cpu", "cpu.cfs_quota_us", cpu.Quota.max(-1))?;
        }
        if cpu.RealtimePeriod != 0 {
            plan.add(self, "cpu", "cpu.rt_period_us", cpu.RealtimePeriod)?;
        }
        if cpu.RealtimeRuntime != 0 {
            plan.add(self, "cpu", "cpu.rt_runtime_us", cpu.RealtimeRuntime)?;
        }
        Ok(())
    }
}

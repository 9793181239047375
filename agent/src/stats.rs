//! Resource use of a container, from the files of its cgroup (version 2) to the API's version 1 shape.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use protocols::agent::{CgroupStats, CpuStats, CpuUsage, MemoryData, MemoryStats, PidsStats, ThrottlingData};

/// Reads a cgroup; what isn't there counts as zero.
pub fn read(cgroup: &Path) -> CgroupStats {
    let mut stats = CgroupStats::new();
    stats.cpu_stats = Some(cpu(&table(&cgroup.join("cpu.stat")))).into();
    stats.memory_stats = Some(memory(cgroup)).into();
    let mut pids = PidsStats::new();
    pids.current = number(&cgroup.join("pids.current"));
    pids.limit = number(&cgroup.join("pids.max"));
    stats.pids_stats = Some(pids).into();
    stats
}

/// The kernel counts microseconds, the API nanoseconds.
fn cpu(table: &HashMap<String, u64>) -> CpuStats {
    let nanoseconds = |key: &str| value(table, key).saturating_mul(1000);
    let mut usage = CpuUsage::new();
    usage.total_usage = nanoseconds("usage_usec");
    usage.usage_in_usermode = nanoseconds("user_usec");
    usage.usage_in_kernelmode = nanoseconds("system_usec");
    let mut throttling = ThrottlingData::new();
    throttling.periods = value(table, "nr_periods");
    throttling.throttled_periods = value(table, "nr_throttled");
    throttling.throttled_time = nanoseconds("throttled_usec");
    let mut stats = CpuStats::new();
    stats.cpu_usage = Some(usage).into();
    stats.throttling_data = Some(throttling).into();
    stats
}

fn memory(cgroup: &Path) -> MemoryStats {
    let table = table(&cgroup.join("memory.stat"));
    let mut usage = MemoryData::new();
    usage.usage = number(&cgroup.join("memory.current"));
    usage.max_usage = number(&cgroup.join("memory.peak"));
    usage.limit = number(&cgroup.join("memory.max"));
    let mut swap = MemoryData::new();
    swap.usage = number(&cgroup.join("memory.swap.current"));
    swap.limit = number(&cgroup.join("memory.swap.max"));
    let mut stats = MemoryStats::new();
    stats.cache = value(&table, "file");
    stats.usage = Some(usage).into();
    stats.swap_usage = Some(swap).into();
    stats.use_hierarchy = true;
    stats.stats = table;
    stats
}

fn table(path: &Path) -> HashMap<String, u64> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(key, value)| Some((key.to_owned(), value.trim().parse().ok()?)))
        .collect()
}

fn value(table: &HashMap<String, u64>, key: &str) -> u64 {
    table.get(key).copied().unwrap_or(0)
}

/// `max` is no limit.
fn number(path: &Path) -> u64 {
    match fs::read_to_string(path).unwrap_or_default().trim() {
        "max" => u64::MAX,
        text => text.parse().unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_2_files_become_version_1_numbers() {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("cpu.stat", "usage_usec 1500\nuser_usec 1000\nsystem_usec 500\nnr_throttled 2\n"),
            ("memory.current", "4096\n"),
            ("memory.max", "max\n"),
            ("memory.stat", "anon 100\nfile 200\n"),
            ("pids.current", "3\n"),
        ] {
            fs::write(dir.path().join(name), text).unwrap();
        }
        let stats = read(dir.path());
        assert_eq!(stats.cpu_stats.cpu_usage.total_usage, 1_500_000);
        assert_eq!(stats.cpu_stats.throttling_data.throttled_periods, 2);
        assert_eq!(stats.memory_stats.usage.usage, 4096);
        assert_eq!(stats.memory_stats.usage.limit, u64::MAX);
        assert_eq!(stats.memory_stats.cache, 200);
        assert_eq!(stats.pids_stats.current, 3);
    }

    #[test]
    fn a_cgroup_that_is_gone_reads_as_zero() {
        assert_eq!(read(Path::new("/nonexistent")).memory_stats.usage.usage, 0);
    }
}

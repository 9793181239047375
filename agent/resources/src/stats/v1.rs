//! Files of version 1.

use protocols::agent::{
    BlkioStats, BlkioStatsEntry, CgroupStats, CpuStats, CpuUsage, HugetlbStats, MemoryData, MemoryStats,
    PidsStats, ThrottlingData,
};

use super::{MAX_ENTRIES, entry};
use crate::cgroup::{Cgroup, table, value};
use crate::sys::ticks_per_second;

pub(super) fn read(cgroup: &Cgroup) -> CgroupStats {
    let mut stats = CgroupStats::new();
    stats.cpu_stats = Some(cpu(cgroup)).into();
    stats.memory_stats = Some(memory(cgroup)).into();
    let mut pids = PidsStats::new();
    pids.current = cgroup.number("pids", "pids.current");
    pids.limit = cgroup.number("pids", "pids.max");
    stats.pids_stats = Some(pids).into();
    stats.blkio_stats = Some(blkio(cgroup)).into();
    for size in cgroup.page_sizes(".usage_in_bytes") {
        let number = |file: &str| cgroup.number("hugetlb", &format!("hugetlb.{size}.{file}"));
        let mut pages = HugetlbStats::new();
        pages.usage = number("usage_in_bytes");
        pages.max_usage = number("max_usage_in_bytes");
        pages.failcnt = number("failcnt");
        stats.hugetlb_stats.insert(size, pages);
    }
    stats
}

fn cpu(cgroup: &Cgroup) -> CpuStats {
    let halves = cgroup.text("cpuacct", "cpuacct.stat");
    let nanoseconds = |key: &str| value(&halves, key).saturating_mul(1_000_000_000 / ticks_per_second());
    let mut usage = CpuUsage::new();
    usage.total_usage = cgroup.number("cpuacct", "cpuacct.usage");
    usage.usage_in_usermode = nanoseconds("user");
    usage.usage_in_kernelmode = nanoseconds("system");
    let each = cgroup.text("cpuacct", "cpuacct.usage_percpu");
    usage.percpu_usage = each.split_whitespace().filter_map(|number| number.parse().ok()).collect();
    let text = cgroup.text("cpu", "cpu.stat");
    let mut throttling = ThrottlingData::new();
    throttling.periods = value(&text, "nr_periods");
    throttling.throttled_periods = value(&text, "nr_throttled");
    throttling.throttled_time = value(&text, "throttled_time");
    let mut stats = CpuStats::new();
    stats.cpu_usage = Some(usage).into();
    stats.throttling_data = Some(throttling).into();
    stats
}

fn memory(cgroup: &Cgroup) -> MemoryStats {
    let data = |prefix: &str| {
        let mut data = MemoryData::new();
        data.usage = cgroup.number("memory", &format!("{prefix}.usage_in_bytes"));
        data.max_usage = cgroup.number("memory", &format!("{prefix}.max_usage_in_bytes"));
        data.failcnt = cgroup.number("memory", &format!("{prefix}.failcnt"));
        data.limit = cgroup.number("memory", &format!("{prefix}.limit_in_bytes"));
        data
    };
    let text = cgroup.text("memory", "memory.stat");
    let mut stats = MemoryStats::new();
    stats.cache = value(&text, "cache");
    stats.usage = Some(data("memory")).into();
    stats.swap_usage = Some(data("memory.memsw")).into();
    stats.kernel_usage = Some(data("memory.kmem")).into();
    stats.use_hierarchy = cgroup.number("memory", "memory.use_hierarchy") == 1;
    stats.stats = table(&text).map(|(key, value)| (key.to_owned(), value)).collect();
    stats
}

fn blkio(cgroup: &Cgroup) -> BlkioStats {
    let list = |files: &[&str]| -> Vec<BlkioStatsEntry> {
        let texts = files.iter().map(|file| cgroup.text("blkio", file));
        // The first that this kernel's I/O scheduler fills.
        let lists = texts.map(|text| entries(&text));
        lists.into_iter().find(|list| !list.is_empty()).unwrap_or_default()
    };
    let mut stats = BlkioStats::new();
    stats.io_service_bytes_recursive = list(&[
        "blkio.bfq.io_service_bytes_recursive",
        "blkio.throttle.io_service_bytes_recursive",
        "blkio.throttle.io_service_bytes",
    ]);
    stats.io_serviced_recursive = list(&[
        "blkio.bfq.io_serviced_recursive",
        "blkio.throttle.io_serviced_recursive",
        "blkio.throttle.io_serviced",
    ]);
    stats.io_queued_recursive = list(&["blkio.bfq.io_queued_recursive"]);
    stats.io_service_time_recursive = list(&["blkio.bfq.io_service_time_recursive"]);
    stats.io_wait_time_recursive = list(&["blkio.bfq.io_wait_time_recursive"]);
    stats.io_merged_recursive = list(&["blkio.bfq.io_merged_recursive"]);
    stats.io_time_recursive = list(&["blkio.bfq.time_recursive"]);
    stats.sectors_recursive = list(&["blkio.bfq.sectors_recursive"]);
    stats
}

/// `major:minor operation value`, or without operation; the line `Total value` is left out.
fn entries(text: &str) -> Vec<BlkioStatsEntry> {
    let one = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            [device, op, value] => entry(device, op, value.parse().ok()?),
            [device, value] => entry(device, "", value.parse().ok()?),
            _ => None,
        }
    };
    text.lines().filter_map(one).take(MAX_ENTRIES).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_io_is_read_by_device() {
        let text = "8:0 Read 10\n8:0 Write 20\n8:0 Total 30\nTotal 30\n";
        let found = entries(text);
        assert_eq!(found.len(), 3);
        assert_eq!((found[1].major, found[1].op.as_str(), found[1].value), (8, "Write", 20));
    }
}

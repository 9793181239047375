//! Files of version 2.

use protocols::agent::{
    BlkioStats, CgroupStats, CpuStats, CpuUsage, HugetlbStats, MemoryData, MemoryStats, PidsStats,
    ThrottlingData,
};

use super::{MAX_ENTRIES, entry};
use crate::cgroup::{Cgroup, table, value};

/// Names of version 1 that the host's side computes with, and what they are now.
const OLD_NAMES: [(&str, &str); 10] = [
    ("cache", "file"),
    ("rss", "anon"),
    ("mapped_file", "file_mapped"),
    ("total_cache", "file"),
    ("total_rss", "anon"),
    ("total_mapped_file", "file_mapped"),
    ("total_inactive_file", "inactive_file"),
    ("total_active_file", "active_file"),
    ("total_pgfault", "pgfault"),
    ("total_pgmajfault", "pgmajfault"),
];

pub(super) fn read(cgroup: &Cgroup) -> CgroupStats {
    let mut stats = CgroupStats::new();
    stats.cpu_stats = Some(cpu(&cgroup.text("cpu", "cpu.stat"))).into();
    stats.memory_stats = Some(memory(cgroup)).into();
    let mut pids = PidsStats::new();
    pids.current = cgroup.number("pids", "pids.current");
    pids.limit = cgroup.number("pids", "pids.max");
    stats.pids_stats = Some(pids).into();
    stats.blkio_stats = Some(blkio(&cgroup.text("blkio", "io.stat"))).into();
    for size in cgroup.page_sizes(".current") {
        let mut pages = HugetlbStats::new();
        pages.usage = cgroup.number("hugetlb", &format!("hugetlb.{size}.current"));
        pages.failcnt = value(&cgroup.text("hugetlb", &format!("hugetlb.{size}.events")), "max");
        stats.hugetlb_stats.insert(size, pages);
    }
    stats
}

/// The kernel counts microseconds, the API nanoseconds.
fn cpu(text: &str) -> CpuStats {
    let nanoseconds = |key: &str| value(text, key).saturating_mul(1000);
    let mut usage = CpuUsage::new();
    usage.total_usage = nanoseconds("usage_usec");
    usage.usage_in_usermode = nanoseconds("user_usec");
    usage.usage_in_kernelmode = nanoseconds("system_usec");
    let mut throttling = ThrottlingData::new();
    throttling.periods = value(text, "nr_periods");
    throttling.throttled_periods = value(text, "nr_throttled");
    throttling.throttled_time = nanoseconds("throttled_usec");
    let mut stats = CpuStats::new();
    stats.cpu_usage = Some(usage).into();
    stats.throttling_data = Some(throttling).into();
    stats
}

fn memory(cgroup: &Cgroup) -> MemoryStats {
    let text = cgroup.text("memory", "memory.stat");
    let data = |prefix: &str, failed: u64| {
        let mut data = MemoryData::new();
        data.usage = cgroup.number("memory", &format!("{prefix}.current"));
        data.max_usage = cgroup.number("memory", &format!("{prefix}.peak"));
        data.limit = cgroup.number("memory", &format!("{prefix}.max"));
        data.failcnt = failed;
        data
    };
    let failed = value(&cgroup.text("memory", "memory.events"), "max");
    let swap_failed = value(&cgroup.text("memory", "memory.swap.events"), "max");
    let mut kernel = MemoryData::new();
    kernel.usage = value(&text, "kernel");
    let mut stats = MemoryStats::new();
    stats.cache = value(&text, "file");
    stats.usage = Some(data("memory", failed)).into();
    stats.swap_usage = Some(data("memory.swap", swap_failed)).into();
    stats.kernel_usage = Some(kernel).into();
    stats.use_hierarchy = true;
    stats.stats = table(&text).map(|(key, value)| (key.to_owned(), value)).collect();
    for (old, new) in OLD_NAMES {
        if let Some(value) = stats.stats.get(new).copied() {
            stats.stats.entry(old.to_owned()).or_insert(value);
        }
    }
    stats
}

fn blkio(text: &str) -> BlkioStats {
    let mut stats = BlkioStats::new();
    for line in text.lines().take(MAX_ENTRIES) {
        let mut words = line.split(' ');
        let Some(device) = words.next() else { continue };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let Ok(value) = value.parse() else { continue };
            let (list, op) = match key {
                "rbytes" => (&mut stats.io_service_bytes_recursive, "Read"),
                "wbytes" => (&mut stats.io_service_bytes_recursive, "Write"),
                "dbytes" => (&mut stats.io_service_bytes_recursive, "Discard"),
                "rios" => (&mut stats.io_serviced_recursive, "Read"),
                "wios" => (&mut stats.io_serviced_recursive, "Write"),
                "dios" => (&mut stats.io_serviced_recursive, "Discard"),
                _ => continue,
            };
            list.extend(entry(device, op, value));
        }
    }
    stats
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use crate::Hierarchy;

    #[test]
    fn version_2_files_become_version_1_numbers() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("c")).unwrap();
        for (name, text) in [
            (
                "cpu.stat",
                "usage_usec 1500\nuser_usec 1000\nsystem_usec 500\nnr_periods 9\nnr_throttled 2\nthrottled_usec 7\n",
            ),
            ("memory.current", "4096\n"),
            ("memory.peak", "8192\n"),
            ("memory.max", "max\n"),
            ("memory.swap.current", "5\n"),
            ("memory.swap.max", "10\n"),
            ("memory.events", "low 0\nmax 3\noom_kill 1\n"),
            ("memory.stat", "anon 100\nfile 200\ninactive_file 150\nkernel 30\n"),
            ("pids.current", "3\n"),
            ("pids.max", "100\n"),
            ("io.stat", "254:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\nbroken\n"),
            ("hugetlb.2MB.current", "2097152\n"),
            ("hugetlb.2MB.rsvd.current", "1\n"),
            ("hugetlb.2MB.events", "max 4\n"),
        ] {
            fs::write(dir.path().join("c").join(name), text).unwrap();
        }
        let stats = Hierarchy::unified(dir.path()).cgroup("c").unwrap().stats();
        assert_eq!(stats.cpu_stats.cpu_usage.total_usage, 1_500_000);
        let throttling = &stats.cpu_stats.throttling_data;
        assert_eq!(
            (throttling.periods, throttling.throttled_periods, throttling.throttled_time),
            (9, 2, 7000)
        );
        let memory = &stats.memory_stats;
        assert_eq!((memory.usage.usage, memory.usage.max_usage, memory.usage.failcnt), (4096, 8192, 3));
        assert_eq!(memory.usage.limit, u64::MAX);
        assert_eq!((memory.swap_usage.usage, memory.swap_usage.limit), (5, 10));
        assert_eq!((memory.cache, memory.kernel_usage.usage), (200, 30));
        assert_eq!(memory.stats["total_inactive_file"], 150, "the kubelet's working set needs it");
        assert_eq!((stats.pids_stats.current, stats.pids_stats.limit), (3, 100));
        let bytes = &stats.blkio_stats.io_service_bytes_recursive;
        assert_eq!((bytes[0].major, bytes[0].op.as_str(), bytes[0].value), (254, "Read", 10));
        assert_eq!(stats.blkio_stats.io_serviced_recursive[1].value, 2);
        assert_eq!(stats.hugetlb_stats.len(), 1);
        assert_eq!((stats.hugetlb_stats["2MB"].usage, stats.hugetlb_stats["2MB"].failcnt), (2_097_152, 4));
    }

    #[test]
    fn a_cgroup_that_is_gone_reads_as_zero() {
        let stats = Hierarchy::unified(Path::new("/nonexistent")).cgroup("c").unwrap().stats();
        assert_eq!(stats.memory_stats.usage.usage, 0);
    }
}

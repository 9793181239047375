//! Numbers of the agent and of the guest in Prometheus' text format, under the names of the stock agent.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::sys::{page_size, ticks_per_second};

/// Devices, processors and interfaces of one answer, each.
const MAX_ENTRIES: usize = 256;

/// What `/proc/stat` counts of a processor.
const CPU_ITEMS: [&str; 10] =
    ["user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal", "guest", "guest_nice"];

/// What `/proc/diskstats` counts of a device, from the fourth word on.
const DISK_ITEMS: [&str; 11] = [
    "reads",
    "merged",
    "sectors_read",
    "time_reading",
    "writes",
    "writes_merged",
    "sectors_written",
    "time_writing",
    "in_progress",
    "time_in_progress",
    "weighted_time_in_progress",
];

/// What `/proc/net/dev` counts of an interface.
const NET_ITEMS: [&str; 16] = [
    "recv_bytes",
    "recv_packets",
    "recv_errs",
    "recv_drop",
    "recv_fifo",
    "recv_frame",
    "recv_compressed",
    "recv_multicast",
    "sent_bytes",
    "sent_packets",
    "sent_errs",
    "sent_drop",
    "sent_fifo",
    "sent_colls",
    "sent_carrier",
    "sent_compressed",
];

/// Counts how often it was asked.
#[derive(Debug, Default)]
pub struct Metrics {
    scrapes: AtomicU64,
}

impl Metrics {
    /// Everything, from the files below `proc`.
    pub fn text(&self, proc: &Path, containers: usize) -> String {
        let count = self.scrapes.fetch_add(1, Ordering::Relaxed) + 1;
        let read = |file: &str| fs::read_to_string(proc.join(file)).unwrap_or_default();
        let mut page = Page::default();
        page.family("kata_agent_scrape_count", "counter", "Metrics scrape count");
        page.plain(count);
        page.family("sealpod_agent_containers", "gauge", "Containers that exist");
        page.plain(containers as u64);
        agent(&mut page, &read("self/stat"), &read("self/status"), &read("self/io"));
        guest(&mut page, &read);
        page.0
    }
}

#[derive(Default)]
struct Page(String, &'static str);

impl Page {
    fn family(&mut self, name: &'static str, kind: &str, help: &str) {
        self.1 = name;
        // Writing to a string never fails.
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn plain(&mut self, value: impl std::fmt::Display) {
        let _ = writeln!(self.0, "{} {value}", self.1);
    }

    fn item(&mut self, item: &str, value: impl std::fmt::Display) {
        let _ = writeln!(self.0, "{}{{item=\"{}\"}} {value}", self.1, escape(item));
    }

    fn of(&mut self, label: &str, of: &str, item: &str, value: impl std::fmt::Display) {
        let _ = writeln!(self.0, "{}{{{label}=\"{}\",item=\"{item}\"}} {value}", self.1, escape(of));
    }
}

fn agent(page: &mut Page, stat: &str, status: &str, io: &str) {
    // The command's name may hold anything, also a bracket.
    let stat: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    // Numbered as in proc(5); the first two are gone.
    let field = |number: usize| stat.get(number - 3).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    page.family("kata_agent_threads", "gauge", "Agent process threads");
    page.plain(field(20));
    page.family("kata_agent_total_time", "gauge", "Agent process total time");
    let hundredths = (field(14) + field(15)) * 100 / ticks_per_second();
    page.plain(format_args!("{}.{:02}", hundredths / 100, hundredths % 100));
    page.family("kata_agent_total_vm", "gauge", "Agent process total VM size");
    page.plain(field(23));
    page.family("kata_agent_total_rss", "gauge", "Agent process total RSS size");
    page.plain(field(24).saturating_mul(page_size()));
    page.family("kata_agent_proc_stat", "gauge", "Agent process statistics.");
    for (item, number) in
        [("utime", 14), ("stime", 15), ("cutime", 16), ("cstime", 17), ("priority", 18), ("starttime", 22)]
    {
        page.item(item, field(number));
    }
    page.family("kata_agent_proc_status", "gauge", "Agent process status.");
    for (key, value) in numbers(status, str::to_ascii_lowercase) {
        if key.starts_with("vm") || key.starts_with("rss") || key.contains("ctxt_switches") {
            page.item(&key, value);
        }
    }
    page.family("kata_agent_io_stat", "gauge", "Agent process IO statistics.");
    for (key, value) in numbers(io, str::to_ascii_lowercase) {
        page.item(&key, value);
    }
}

fn guest(page: &mut Page, read: &dyn Fn(&str) -> String) {
    let load = read("loadavg");
    let words: Vec<&str> = load.split_whitespace().collect();
    let number = |text: &&str| text.parse::<f64>().is_ok();
    page.family("kata_guest_load", "gauge", "Guest system load.");
    for (item, value) in ["load1", "load5", "load15"].into_iter().zip(words.iter().filter(|w| number(w))) {
        page.item(item, value);
    }
    page.family("kata_guest_tasks", "gauge", "Guest system load.");
    if let Some((running, all)) = words.get(3).and_then(|tasks| tasks.split_once('/')) {
        for (item, value) in [("cur", running), ("max", all)] {
            page.item(item, value.parse::<u64>().unwrap_or(0));
        }
    }
    page.family("kata_guest_cpu_time", "gauge", "Guest CPU statistics.");
    for line in read("stat").lines().take(MAX_ENTRIES) {
        let mut words = line.split_whitespace();
        let Some(cpu) = words.next().and_then(|word| word.strip_prefix("cpu")) else { continue };
        let cpu = if cpu.is_empty() { "total" } else { cpu };
        for (item, ticks) in CPU_ITEMS.into_iter().zip(words) {
            page.of("cpu", cpu, item, ticks.parse::<u64>().unwrap_or(0) * 1000 / ticks_per_second());
        }
    }
    page.family("kata_guest_vm_stat", "gauge", "Guest virtual memory statistics.");
    for (key, value) in crate::cgroup::table(&read("vmstat")) {
        page.item(key, value);
    }
    page.family("kata_guest_netdev_stat", "gauge", "Guest net devices statistics.");
    for line in read("net/dev").lines().take(MAX_ENTRIES) {
        let Some((name, numbers)) = line.split_once(':') else { continue };
        for (item, value) in NET_ITEMS.into_iter().zip(numbers.split_whitespace()) {
            page.of("interface", name.trim(), item, value.parse::<u64>().unwrap_or(0));
        }
    }
    page.family("kata_guest_diskstat", "gauge", "Disks statistics in system.");
    for line in read("diskstats").lines().take(MAX_ENTRIES) {
        let mut words = line.split_whitespace().skip(2);
        let Some(disk) = words.next() else { continue };
        for (item, value) in DISK_ITEMS.into_iter().zip(words) {
            page.of("disk", disk, item, value.parse::<u64>().unwrap_or(0));
        }
    }
    page.family("kata_guest_meminfo", "gauge", "Statistics about memory usage in the system.");
    for (key, value) in numbers(&read("meminfo"), snake) {
        page.item(&key, value);
    }
}

/// `Key: 12 kB` lines as `key` and bytes.
fn numbers(text: &str, name: fn(&str) -> String) -> BTreeMap<String, u64> {
    let line = |line: &str| {
        let (key, value) = line.split_once(':')?;
        let mut words = value.split_whitespace();
        let number: u64 = words.next()?.parse().ok()?;
        let factor = if words.next() == Some("kB") { 1024 } else { 1 };
        Some((name(key), number.saturating_mul(factor)))
    };
    text.lines().filter_map(line).take(MAX_ENTRIES).collect()
}

/// `MemTotal` as `mem_total`, `Active(anon)` as `active_anon`, `SReclaimable` as `s_reclaimable`.
fn snake(key: &str) -> String {
    let key = key.replace("HugePages", "Hugepages").replace("Percpu", "PerCpu");
    let letters: Vec<char> = key.chars().collect();
    let mut name = String::with_capacity(key.len() + 4);
    for (at, letter) in letters.iter().enumerate() {
        let before = at.checked_sub(1).map_or('_', |at| letters[at]);
        let after = letters.get(at + 1).copied().unwrap_or('_');
        let word = match letter {
            'A'..='Z' => {
                before.is_ascii_lowercase() || before.is_ascii_uppercase() && after.is_ascii_lowercase()
            }
            '0'..='9' => before.is_ascii_alphabetic(),
            _ => false,
        };
        if word {
            name.push('_');
        }
        match letter {
            ')' => {}
            _ if before.is_ascii_digit() => name.push(*letter),
            'A'..='Z' => name.push(letter.to_ascii_lowercase()),
            'a'..='z' | '0'..='9' => name.push(*letter),
            _ => name.push('_'),
        }
    }
    name
}

fn escape(label: &str) -> String {
    label.chars().filter(|c| !c.is_control() && !matches!(c, '"' | '\\')).take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_named_as_in_the_stock_agent() {
        for (key, name) in [
            ("MemTotal", "mem_total"),
            ("MemAvailable", "mem_available"),
            ("Active(anon)", "active_anon"),
            ("SwapCached", "swap_cached"),
            ("SReclaimable", "s_reclaimable"),
            ("HugePages_Total", "hugepages_total"),
            ("DirectMap4k", "direct_map_4k"),
            ("Committed_AS", "committed_as"),
            ("VmallocTotal", "vmalloc_total"),
            ("Percpu", "per_cpu"),
            ("KReclaimable", "k_reclaimable"),
            ("AnonHugePages", "anon_hugepages"),
            ("Hugepagesize", "hugepagesize"),
            ("DirectMap2M", "direct_map_2M"),
            ("NFS_Unstable", "nfs_unstable"),
        ] {
            assert_eq!(snake(key), name);
        }
    }

    #[test]
    fn every_line_is_a_comment_or_a_sample() {
        let metrics = Metrics::default();
        metrics.text(Path::new("/proc"), 0);
        let text = metrics.text(Path::new("/proc"), 3);
        assert!(text.contains("kata_agent_scrape_count 2\n"), "{text}");
        assert!(text.contains("sealpod_agent_containers 3\n"), "{text}");
        for name in [
            "kata_agent_total_rss ",
            "kata_guest_load{item=\"load15\"} ",
            "kata_guest_cpu_time{cpu=\"total\",item=\"user\"} ",
            "kata_guest_meminfo{item=\"mem_total\"} ",
            "kata_guest_netdev_stat{interface=\"lo\",item=\"recv_bytes\"} ",
        ] {
            assert!(text.lines().any(|line| line.starts_with(name)), "{name}");
        }
        for line in text.lines().filter(|line| !line.starts_with("# ")) {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(value.parse::<f64>().is_ok() && name.starts_with(['k', 's']), "{line}");
        }
    }

    #[test]
    fn a_device_cannot_forge_a_line() {
        assert_eq!(escape("a\"} 1\nb\\"), "a} 1b");
    }
}

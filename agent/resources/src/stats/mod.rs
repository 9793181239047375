//! Numbers of a container, in the API's shape, which is version 1's; what isn't there counts as zero,
//! and no limit as the greatest number.

mod network;
mod v1;
mod v2;

use protocols::agent::{BlkioStatsEntry, CgroupStats};

pub use network::network;

use crate::cgroup::Cgroup;
use crate::hierarchy::Version;

/// Block devices and page sizes of one answer.
const MAX_ENTRIES: usize = 256;

impl Cgroup {
    /// Reads every controller.
    pub fn stats(&self) -> CgroupStats {
        match self.version() {
            Version::V1 => v1::read(self),
            Version::V2 => v2::read(self),
        }
    }

    /// `max` is no limit.
    fn number(&self, controller: &str, file: &str) -> u64 {
        match self.text(controller, file).trim() {
            "max" => u64::MAX,
            text => text.parse().unwrap_or(0),
        }
    }

    /// The sizes of huge pages, from the files' names.
    fn page_sizes(&self, suffix: &str) -> Vec<String> {
        let Some(path) = self.path("hugetlb", "x") else { return Vec::new() };
        let Some(entries) = path.parent().and_then(|directory| std::fs::read_dir(directory).ok()) else {
            return Vec::new();
        };
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        names
            .filter_map(|name| Some(name.strip_prefix("hugetlb.")?.strip_suffix(suffix)?.to_owned()))
            .filter(|size| !size.contains('.'))
            .take(MAX_ENTRIES)
            .collect()
    }
}

fn entry(device: &str, op: &str, value: u64) -> Option<BlkioStatsEntry> {
    let (major, minor) = device.split_once(':')?;
    let mut entry = BlkioStatsEntry::new();
    entry.major = major.parse().ok()?;
    entry.minor = minor.parse().ok()?;
    op.clone_into(&mut entry.op);
    entry.value = value;
    Some(entry)
}

//! The guest's hardware as the host adds to it: processors and memory brought online, devices found by
//! their place on the PCI bus, swap.

mod pci;
mod swap;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::cgroup::read;
use crate::error::{ResourceError, Result};

/// Between two looks for a processor or a device.
const LOOK: Duration = Duration::from_millis(20);
/// Memory blocks of one request.
const MAX_BLOCKS: usize = 4096;

/// The kernel's view of the machine.
#[derive(Debug, Clone)]
pub struct Machine {
    sys: PathBuf,
    dev: PathBuf,
}

impl Machine {
    /// The machine that this runs on.
    pub fn this() -> Self {
        Self::at("/sys", "/dev")
    }

    /// A machine with its files elsewhere.
    pub fn at(sys: impl Into<PathBuf>, dev: impl Into<PathBuf>) -> Self {
        Self { sys: sys.into(), dev: dev.into() }
    }

    /// Brings up every processor that was plugged in, until `wanted` are online; waits for those that
    /// are not there yet.
    pub async fn online_processors(&self, wanted: u32, patience: Duration) -> Result<u32> {
        let end = Instant::now() + patience;
        loop {
            let online = self.switch_on("cpu", "cpu").map_err(ResourceError::kernel("listing processors"))?;
            if online >= wanted {
                return Ok(online);
            }
            if Instant::now() >= end {
                return Err(ResourceError::State(format!(
                    "{online} of {wanted} processors are online after {} s",
                    patience.as_secs()
                )));
            }
            sleep(LOOK).await;
        }
    }

    /// Brings up every block of memory that was plugged in.
    pub fn online_memory(&self) -> Result<()> {
        match self.switch_on("memory", "memory") {
            Ok(_) => Ok(()),
            // A kernel without hot-plugged memory has nothing to bring up.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(ResourceError::kernel("listing memory blocks")(error)),
        }
    }

    /// Tells the kernel of memory at physical addresses that it is not told of otherwise.
    pub fn probe_memory(&self, addresses: &[u64]) -> Result<()> {
        if addresses.len() > MAX_BLOCKS {
            return Err(ResourceError::malformed("too many memory blocks in one request"));
        }
        let block = self.memory_block_size();
        if let Some(odd) = addresses.iter().find(|address| block != 0 && !address.is_multiple_of(block)) {
            return Err(ResourceError::malformed(format!("no memory block begins at {odd:#x}")));
        }
        let probe = self.memory("probe");
        if !probe.exists() {
            return Err(ResourceError::Missing("probing for hot-plugged memory".into()));
        }
        addresses.iter().try_for_each(|address| crate::cgroup::write(&probe, &format!("{address:#x}")))
    }

    /// Bytes of a memory block; 0 where memory can't be plugged in.
    pub fn memory_block_size(&self) -> u64 {
        let text = read(&self.memory("block_size_bytes")).unwrap_or_default();
        u64::from_str_radix(text.trim(), 16).unwrap_or(0)
    }

    /// Whether [`Machine::probe_memory`] can work.
    pub fn probes_memory(&self) -> bool {
        self.memory("probe").exists()
    }

    /// The processors that are online, as a list for a cpuset.
    pub fn processor_list(&self) -> Result<String> {
        let text = read(&self.sys.join("devices/system/cpu/online"));
        let text = text.map_err(ResourceError::kernel("listing processors"))?;
        Ok(text.trim().to_owned())
    }

    fn memory(&self, file: &str) -> PathBuf {
        self.sys.join("devices/system/memory").join(file)
    }

    /// Brings up everything of a kind; returns how many are online.
    fn switch_on(&self, class: &str, prefix: &str) -> io::Result<u32> {
        let mut online = 0;
        for entry in fs::read_dir(self.sys.join("devices/system").join(class))? {
            let entry = entry?;
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix(prefix));
            if number.is_none_or(|n| n.is_empty() || !n.bytes().all(|b| b.is_ascii_digit())) {
                continue;
            }
            online += u32::from(switched_on(&entry.path().join("online")));
        }
        Ok(online)
    }
}

fn switched_on(switch: &Path) -> bool {
    match fs::read_to_string(switch) {
        Ok(state) if state.trim() == "0" => fs::write(switch, "1").is_ok(),
        // The first processor has no switch.
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(dir: &Path) -> Machine {
        for kind in ["cpu", "memory"] {
            let class = dir.join("devices/system").join(kind);
            fs::create_dir_all(&class).unwrap();
            for (name, state) in [("0", None), ("1", Some("0\n")), ("2", Some("1\n")), ("freq", Some("0\n"))]
            {
                let one = class.join(format!("{kind}{name}"));
                fs::create_dir(&one).unwrap();
                if let Some(state) = state {
                    fs::write(one.join("online"), state).unwrap();
                }
            }
        }
        Machine::at(dir, dir)
    }

    #[tokio::test]
    async fn sleeping_processors_and_memory_are_woken() {
        let dir = tempfile::tempdir().unwrap();
        let machine = machine(dir.path());
        assert_eq!(machine.online_processors(3, Duration::ZERO).await.unwrap(), 3);
        let state = |name: &str| fs::read_to_string(dir.path().join("devices/system").join(name)).unwrap();
        assert_eq!(state("cpu/cpu1/online"), "1");
        assert_eq!(state("cpu/cpufreq/online"), "0\n");
        assert_eq!(state("memory/memory1/online"), "0\n");
        machine.online_memory().unwrap();
        assert_eq!(state("memory/memory1/online"), "1");
    }

    #[tokio::test]
    async fn processors_that_never_come_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        let error = machine(dir.path()).online_processors(4, Duration::ZERO).await.unwrap_err().to_string();
        assert_eq!(error, "3 of 4 processors are online after 0 s");
    }

    #[test]
    fn memory_is_probed_by_whole_blocks() {
        let dir = tempfile::tempdir().unwrap();
        let machine = machine(dir.path());
        assert!(matches!(machine.probe_memory(&[0x1000]), Err(ResourceError::Missing(_))));
        fs::write(machine.memory("block_size_bytes"), "8000000\n").unwrap();
        fs::write(machine.memory("probe"), "").unwrap();
        assert_eq!(machine.memory_block_size(), 0x800_0000);
        assert!(machine.probes_memory());
        assert!(matches!(machine.probe_memory(&[0x1000]), Err(ResourceError::Malformed(_))));
        machine.probe_memory(&[0x800_0000]).unwrap();
        assert_eq!(fs::read_to_string(machine.memory("probe")).unwrap(), "0x8000000");
        assert!(matches!(machine.probe_memory(&vec![0; MAX_BLOCKS + 1]), Err(ResourceError::Malformed(_))));
    }
}

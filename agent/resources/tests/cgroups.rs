//! Against the kernel's own control groups, of whichever version this machine has. Without the right to
//! make a cgroup there is nothing to test.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use agent_resources::{Cgroup, Hierarchy, ResourceError, Version};
use protocols::oci::{LinuxBlockIO, LinuxCPU, LinuxHugepageLimit, LinuxMemory, LinuxPids, LinuxResources};

const ROOT: &str = "/sys/fs/cgroup";

static NEXT: AtomicUsize = AtomicUsize::new(0);

/// A cgroup that is gone after the test, with whatever still runs in it.
struct Own {
    cgroup: Cgroup,
    directories: Vec<PathBuf>,
    children: Vec<Child>,
}

impl Own {
    /// `None` where the test's process may not make one.
    fn new(hierarchy: &Hierarchy, roots: &[PathBuf]) -> Option<Self> {
        let name = format!("test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let directories: Vec<PathBuf> = roots.iter().map(|root| root.join(&name)).collect();
        for directory in &directories {
            if let Err(error) = fs::create_dir(directory) {
                eprintln!("skipped: no cgroup at {}: {error}", directory.display());
                directories.iter().for_each(|made| drop(fs::remove_dir(made)));
                return None;
            }
        }
        let cgroup = hierarchy.cgroup(&name).unwrap();
        Some(Self { cgroup, directories, children: Vec::new() })
    }

    /// Where the kernel has controllers of version 1.
    fn v1() -> Option<Self> {
        let hierarchy = Hierarchy::detect(Path::new(ROOT)).unwrap();
        if hierarchy.version() != Version::V1 {
            eprintln!("skipped: this kernel has no controllers of version 1");
            return None;
        }
        let names = ["cpu", "cpuacct", "cpuset", "memory", "freezer", "blkio", "pids"];
        let roots: Vec<PathBuf> = names.iter().map(|name| Path::new(ROOT).join(name)).collect();
        Self::new(&hierarchy, &roots)
    }

    /// A tree of version 2, perhaps without controllers.
    fn v2() -> Option<Self> {
        let mounted = [ROOT, "/sys/fs/cgroup/unified"].map(Path::new);
        let root = mounted.into_iter().find(|root| root.join("cgroup.controllers").exists())?;
        Self::new(&Hierarchy::unified(root), &[root.to_owned()])
    }

    /// A shell in the cgroup; it is in before the script begins.
    fn run(&mut self, script: &str) -> u32 {
        // A cpuset of version 1 takes nobody in before it is filled.
        let entered =
            self.directories.iter().filter(|directory| !directory.starts_with("/sys/fs/cgroup/cpuset"));
        let enter: String = entered.map(|d| format!("echo $$ > {}/cgroup.procs && ", d.display())).collect();
        let script = format!("{enter} echo ready && {{ {script}; }}");
        let mut child = Command::new("/bin/sh").args(["-c", &script]).stdout(Stdio::piped()).spawn().unwrap();
        let mut ready = [0; 6];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut ready).unwrap();
        let pid = child.id();
        self.children.push(child);
        pid
    }

    fn text(&self, controller: &str, file: &str) -> String {
        let directory =
            self.directories.iter().find(|d| d.to_str().unwrap().contains(&format!("/{controller}/")));
        fs::read_to_string(directory.unwrap().join(file)).unwrap().trim().to_owned()
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let _ = self.cgroup.kill();
        for child in &mut self.children {
            let _ = child.wait();
        }
        // Grandchildren leave a moment later.
        while !self.cgroup.processes().is_empty() {
            std::thread::yield_now();
        }
        self.directories.iter().for_each(|directory| drop(fs::remove_dir(directory)));
    }
}

fn state(pid: u32) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    text.rsplit(')').next().unwrap().split_whitespace().next().unwrap().to_owned()
}

async fn pauses_and_goes_on(mut own: Own) {
    let pid = own.run("sleep 600");
    assert!(!own.cgroup.frozen().unwrap());
    assert!(matches!(own.cgroup.thaw().await, Err(ResourceError::State(_))), "it isn't paused");
    own.cgroup.freeze().await.unwrap();
    assert!(own.cgroup.frozen().unwrap());
    assert_ne!(state(pid), "R");
    assert!(matches!(own.cgroup.freeze().await, Err(ResourceError::State(_))), "it is paused already");
    own.cgroup.thaw().await.unwrap();
    assert!(!own.cgroup.frozen().unwrap());
    // Also what is paused can be killed.
    own.cgroup.freeze().await.unwrap();
    own.cgroup.kill().unwrap();
    let mut child = own.children.pop().unwrap();
    let status = tokio::task::spawn_blocking(move || child.wait().unwrap()).await.unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(libc::SIGKILL));
}

#[tokio::test]
async fn version_1_pauses_and_goes_on() {
    if let Some(own) = Own::v1() {
        pauses_and_goes_on(own).await;
    }
}

#[tokio::test]
async fn version_2_pauses_and_goes_on() {
    if let Some(own) = Own::v2() {
        pauses_and_goes_on(own).await;
    }
}

#[tokio::test]
async fn a_kill_for_want_of_memory_is_told_while_the_container_lives_on() {
    let Some(mut own) = Own::v1() else { return };
    let mut limit = LinuxResources::new();
    let mut memory = LinuxMemory::new();
    memory.Limit = 16 << 20;
    limit.Memory = Some(memory).into();
    own.cgroup.update(&limit).unwrap();
    let mut watch = own.cgroup.watch_oom().unwrap();
    own.run(
        "while :; do sh -c 'x=$(head -c 100000000 /dev/zero | tr \"\\0\" x); echo ${#x}'; sleep 600; done",
    );
    assert!(watch.next().await.is_some_and(|kills| kills > 0));
    assert!(own.children[0].try_wait().unwrap().is_none(), "the container lives on");
    assert_eq!(watch.rest(&own.cgroup), 0, "and nothing is left to tell");
}

#[tokio::test]
async fn the_end_of_a_cgroup_is_no_kill() {
    let Some(own) = Own::v1() else { return };
    let mut watch = own.cgroup.watch_oom().unwrap();
    drop(own);
    assert_eq!(watch.next().await, None);
}

fn cpu(shares: u64, quota: i64, period: u64) -> LinuxResources {
    let mut cpu = LinuxCPU::new();
    (cpu.Shares, cpu.Quota, cpu.Period) = (shares, quota, period);
    let mut wanted = LinuxResources::new();
    wanted.CPU = Some(cpu).into();
    wanted
}

fn memory(limit: i64, swap: i64) -> LinuxResources {
    let mut memory = LinuxMemory::new();
    (memory.Limit, memory.Swap) = (limit, swap);
    let mut wanted = LinuxResources::new();
    wanted.Memory = Some(memory).into();
    wanted
}

#[test]
fn version_1_takes_limits_up_and_down() {
    let Some(own) = Own::v1() else { return };
    for (wanted, shares, quota, period) in [
        (cpu(512, 20_000, 100_000), "512", "20000", "100000"),
        (cpu(0, 1_000, 1_000), "512", "1000", "1000"),
        (cpu(0, -1, 0), "512", "-1", "1000"),
        (cpu(0, 500_000, 1_000_000), "512", "500000", "1000000"),
    ] {
        own.cgroup.update(&wanted).unwrap();
        assert_eq!(own.text("cpu", "cpu.shares"), shares);
        assert_eq!(own.text("cpu", "cpu.cfs_quota_us"), quota);
        assert_eq!(own.text("cpu", "cpu.cfs_period_us"), period);
    }
    let (small, middle, large) = (64 << 20, 128 << 20, 256 << 20);
    for (limit, swap, together) in [
        (small, small, small),
        (large, large, large),
        (small, middle, middle),
        (large, 0, large),
        (small, 0, large),
    ] {
        own.cgroup.update(&memory(limit, swap)).unwrap();
        assert_eq!(own.text("memory", "memory.limit_in_bytes"), limit.to_string());
        assert_eq!(own.text("memory", "memory.memsw.limit_in_bytes"), together.to_string());
    }
    own.cgroup.update(&memory(-1, 0)).unwrap();
    assert!(own.text("memory", "memory.limit_in_bytes").parse::<u64>().unwrap() > 1 << 50);
    for (limit, text) in [(5, "5"), (-1, "max")] {
        let mut wanted = LinuxResources::new();
        let mut pids = LinuxPids::new();
        pids.Limit = limit;
        wanted.Pids = Some(pids).into();
        own.cgroup.update(&wanted).unwrap();
        assert_eq!(own.text("pids", "pids.max"), text);
    }
}

#[test]
fn version_1_counts_what_runs() {
    let Some(mut own) = Own::v1() else { return };
    own.cgroup.update(&memory(64 << 20, 0)).unwrap();
    let mut pids = LinuxPids::new();
    pids.Limit = 100;
    let mut wanted = LinuxResources::new();
    wanted.Pids = Some(pids).into();
    own.cgroup.update(&wanted).unwrap();
    own.run("sleep 600 & exec sleep 600");
    let mut stats = own.cgroup.stats();
    // Counted when a process gives its processor back.
    while stats.cpu_stats.cpu_usage.total_usage == 0 {
        stats = own.cgroup.stats();
    }
    assert!(!stats.cpu_stats.cpu_usage.percpu_usage.is_empty());
    assert_eq!(stats.memory_stats.usage.limit, 64 << 20);
    assert!(
        stats.memory_stats.usage.usage > 0 && stats.memory_stats.stats.contains_key("total_inactive_file")
    );
    assert!(stats.pids_stats.current >= 1);
    assert_eq!(stats.pids_stats.limit, 100);
}

#[test]
fn nothing_is_set_when_one_value_is_wrong() {
    let Some(own) = Own::v1() else { return };
    own.cgroup.update(&cpu(512, 0, 0)).unwrap();
    let malformed = |wanted: LinuxResources| {
        assert!(matches!(own.cgroup.update(&wanted), Err(ResourceError::Malformed(_))), "{wanted:?}");
    };
    malformed(cpu(1024, 10, 100_000));
    malformed(cpu(1024, 0, 10));
    malformed(cpu(1024, 0, 2_000_000));
    malformed(memory(-2, 0));
    malformed(memory(2 << 20, 1 << 20));
    let mut wanted = cpu(1024, 0, 0);
    wanted.CPU.as_mut().unwrap().Cpus = "0\n1".into();
    malformed(wanted);
    let mut wanted = cpu(1024, 0, 0);
    let mut blkio = LinuxBlockIO::new();
    blkio.Weight = 5;
    wanted.BlockIO = Some(blkio).into();
    malformed(wanted);
    let mut wanted = cpu(1024, 0, 0);
    let mut pages = LinuxHugepageLimit::new();
    pages.Pagesize = "../../x".into();
    wanted.HugepageLimits.push(pages.clone());
    malformed(wanted.clone());
    // A size that the guest doesn't have: no limit is no news, another one can't be kept.
    wanted.HugepageLimits[0].Pagesize = "64KB".into();
    wanted.HugepageLimits[0].Limit = 1;
    assert!(matches!(own.cgroup.update(&wanted), Err(ResourceError::Missing(_))));
    assert_eq!(own.text("cpu", "cpu.shares"), "512");
    wanted.HugepageLimits[0].Limit = 0;
    own.cgroup.update(&wanted).unwrap();
    assert_eq!(own.text("cpu", "cpu.shares"), "1024");
}

#[test]
fn plugged_in_processors_reach_every_container() {
    let Some(own) = Own::v1() else { return };
    let online = fs::read_to_string("/sys/fs/cgroup/cpuset/cpuset.cpus").unwrap().trim().to_owned();
    own.cgroup.widen_cpuset(&online, "").unwrap();
    assert_eq!(own.text("cpuset", "cpuset.cpus"), online);
    own.cgroup.widen_cpuset(&online, "0").unwrap();
    assert_eq!(own.text("cpuset", "cpuset.cpus"), "0", "a container with a list of its own keeps it");
    assert!(own.cgroup.widen_cpuset(&online, "x").is_err());
}

#[test]
fn a_cgroup_that_is_gone_takes_no_limits() {
    let hierarchy = Hierarchy::detect(Path::new(ROOT)).unwrap();
    let gone = hierarchy.cgroup("no-such-cgroup").unwrap();
    assert!(matches!(gone.update(&cpu(512, 0, 0)), Err(ResourceError::State(_))));
}

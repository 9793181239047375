//! Plans for version 2, over a directory that has the kernel's files.

use std::fs;

use protocols::oci::{
    LinuxBlockIO, LinuxCPU, LinuxHugepageLimit, LinuxMemory, LinuxPids, LinuxThrottleDevice,
    LinuxWeightDevice,
};

use super::*;
use crate::Hierarchy;

const FILES: [(&str, &str); 11] = [
    ("cgroup.procs", ""),
    ("cpu.weight", "100\n"),
    ("cpu.max", "20000 50000\n"),
    ("cpuset.cpus", "\n"),
    ("cpuset.mems", "\n"),
    ("memory.max", "1000000\n"),
    ("memory.low", "0\n"),
    ("memory.swap.max", "max\n"),
    ("pids.max", "max\n"),
    ("hugetlb.2MB.max", "max\n"),
    ("io.max", ""),
];

fn cgroup(more: &[(&str, &str)]) -> (tempfile::TempDir, Cgroup) {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("c")).unwrap();
    for (name, text) in FILES.iter().chain(more) {
        fs::write(dir.path().join("c").join(name), text).unwrap();
    }
    let cgroup = Hierarchy::unified(dir.path()).cgroup("c").unwrap();
    (dir, cgroup)
}

/// File names and values.
fn planned(cgroup: &Cgroup, wanted: &LinuxResources) -> Result<Vec<(String, String)>> {
    let name = |path: &std::path::Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    Ok(cgroup.plan(wanted)?.0.into_iter().map(|step| (name(&step.path), step.value)).collect())
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(file, value)| ((*file).to_owned(), (*value).to_owned())).collect()
}

fn cpu(shares: u64, quota: i64, period: u64) -> LinuxResources {
    let mut cpu = LinuxCPU::new();
    (cpu.Shares, cpu.Quota, cpu.Period) = (shares, quota, period);
    let mut wanted = LinuxResources::new();
    wanted.CPU = Some(cpu).into();
    wanted
}

fn memory(limit: i64, swap: i64, reservation: i64) -> LinuxResources {
    let mut memory = LinuxMemory::new();
    (memory.Limit, memory.Swap, memory.Reservation) = (limit, swap, reservation);
    let mut wanted = LinuxResources::new();
    wanted.Memory = Some(memory).into();
    wanted
}

#[test]
fn cpu_time_is_a_weight_and_a_quota() {
    let (_dir, cgroup) = cgroup(&[]);
    for (wanted, expected) in [
        (cpu(1024, 0, 0), &[("cpu.weight", "100")][..]),
        (cpu(0, 50_000, 100_000), &[("cpu.max", "50000 100000")]),
        (cpu(0, 50_000, 0), &[("cpu.max", "50000")]),
        (cpu(0, -1, 0), &[("cpu.max", "max")]),
        (cpu(0, -1, 100_000), &[("cpu.max", "max 100000")]),
        (cpu(0, 0, 100_000), &[("cpu.max", "20000 100000")]),
        (cpu(0, 0, 0), &[]),
    ] {
        assert_eq!(planned(&cgroup, &wanted).unwrap(), pairs(expected));
    }
    let mut wanted = cpu(0, 0, 0);
    wanted.CPU.as_mut().unwrap().Cpus = "0-1".into();
    wanted.CPU.as_mut().unwrap().Mems = "0".into();
    assert_eq!(planned(&cgroup, &wanted).unwrap(), pairs(&[("cpuset.cpus", "0-1"), ("cpuset.mems", "0")]));
    wanted.CPU.as_mut().unwrap().RealtimeRuntime = 1;
    assert!(matches!(cgroup.plan(&wanted), Err(ResourceError::Missing(_))));
}

#[test]
fn memory_and_swap_are_counted_apart() {
    let (_dir, cgroup) = cgroup(&[]);
    for (wanted, expected) in [
        (memory(2_000_000, 0, 0), &[("memory.max", "2000000")][..]),
        (memory(2_000_000, 2_000_000, 0), &[("memory.swap.max", "0"), ("memory.max", "2000000")]),
        (memory(2_000_000, 2_500_000, 0), &[("memory.swap.max", "500000"), ("memory.max", "2000000")]),
        (memory(2_000_000, -1, 0), &[("memory.swap.max", "max"), ("memory.max", "2000000")]),
        (memory(-1, 0, 0), &[("memory.swap.max", "max"), ("memory.max", "max")]),
        (memory(0, 1_500_000, 0), &[("memory.swap.max", "500000")]),
        (memory(0, 0, 4096), &[("memory.low", "4096")]),
        (memory(0, 0, 0), &[]),
    ] {
        assert_eq!(planned(&cgroup, &wanted).unwrap(), pairs(expected));
    }
    for wanted in
        [memory(-2, 0, 0), memory(0, -2, 0), memory(0, 0, -2), memory(2, 1, 0), memory(0, 999_999, 0)]
    {
        assert!(matches!(cgroup.plan(&wanted), Err(ResourceError::Malformed(_))), "{wanted:?}");
    }
    let mut wanted = memory(0, 0, 0);
    wanted.Memory.as_mut().unwrap().Swappiness = 101;
    assert!(matches!(cgroup.plan(&wanted), Err(ResourceError::Malformed(_))));
}

#[test]
fn a_guest_without_swap_keeps_to_every_limit_of_it() {
    let (dir, cgroup) = cgroup(&[]);
    fs::remove_file(dir.path().join("c/memory.swap.max")).unwrap();
    let steps = planned(&cgroup, &memory(2_000_000, 2_000_000, 0)).unwrap();
    assert_eq!(steps, pairs(&[("memory.max", "2000000")]));
}

#[test]
fn processes_and_huge_pages_are_limited() {
    let (_dir, cgroup) = cgroup(&[]);
    let wanted = |pids: i64, size: &str, limit: u64| {
        let mut wanted = LinuxResources::new();
        let mut list = LinuxPids::new();
        list.Limit = pids;
        wanted.Pids = Some(list).into();
        let mut pages = LinuxHugepageLimit::new();
        (pages.Pagesize, pages.Limit) = (size.into(), limit);
        wanted.HugepageLimits.push(pages);
        wanted
    };
    let steps = planned(&cgroup, &wanted(10, "2MB", 4 << 20)).unwrap();
    assert_eq!(steps, pairs(&[("pids.max", "10"), ("hugetlb.2MB.max", "4194304")]));
    assert_eq!(planned(&cgroup, &wanted(-1, "1GB", 0)).unwrap(), pairs(&[("pids.max", "max")]));
    assert!(matches!(cgroup.plan(&wanted(1, "1GB", 1)), Err(ResourceError::Missing(_))));
    assert!(matches!(cgroup.plan(&wanted(1, "2MB/../pids", 1)), Err(ResourceError::Malformed(_))));
    let mut many = wanted(1, "2MB", 1);
    many.HugepageLimits = vec![many.HugepageLimits[0].clone(); MAX_LIST + 1];
    assert!(matches!(cgroup.plan(&many), Err(ResourceError::Malformed(_))));
}

fn blkio(weight: u32) -> LinuxBlockIO {
    let mut rate = LinuxThrottleDevice::new();
    (rate.Major, rate.Minor, rate.Rate) = (254, 0, 1000);
    let mut none = rate.clone();
    none.Rate = 0;
    let mut device = LinuxWeightDevice::new();
    (device.Major, device.Minor, device.Weight) = (254, 0, 1000);
    let mut blkio = LinuxBlockIO::new();
    blkio.Weight = weight;
    blkio.WeightDevice = vec![device];
    blkio.ThrottleReadBpsDevice = vec![rate];
    blkio.ThrottleWriteIOPSDevice = vec![none];
    blkio
}

#[test]
fn block_io_is_weighed_on_the_schedulers_scale() {
    let mut wanted = LinuxResources::new();
    wanted.BlockIO = Some(blkio(1000)).into();
    let rates = [("io.max", "254:0 rbps=1000"), ("io.max", "254:0 wiops=max")];
    for (file, weight) in [("io.bfq.weight", "1000"), ("io.weight", "10000")] {
        let (_dir, cgroup) = cgroup(&[(file, "")]);
        let device = format!("254:0 {weight}");
        let expected = [&[(file, weight), (file, &device)][..], &rates].concat();
        assert_eq!(planned(&cgroup, &wanted).unwrap(), pairs(&expected));
    }
    let (_dir, cgroup) = cgroup(&[]);
    assert!(matches!(cgroup.plan(&wanted), Err(ResourceError::Missing(_))), "no scheduler weighs");
    for weight in [9, 1001] {
        wanted.BlockIO = Some(blkio(weight)).into();
        assert!(matches!(cgroup.plan(&wanted), Err(ResourceError::Malformed(_))));
    }
    let mut odd = blkio(10);
    odd.ThrottleReadBpsDevice[0].Major = -1;
    odd.Weight = 0;
    odd.WeightDevice.clear();
    wanted.BlockIO = Some(odd).into();
    assert!(matches!(cgroup.plan(&wanted), Err(ResourceError::Malformed(_))));
}

#[test]
fn nothing_is_written_when_one_value_is_wrong() {
    let (dir, cgroup) = cgroup(&[]);
    let mut wanted = cpu(512, 0, 0);
    wanted.Memory = memory(-2, 0, 0).Memory;
    assert!(cgroup.update(&wanted).is_err());
    assert_eq!(fs::read_to_string(dir.path().join("c/cpu.weight")).unwrap(), "100\n");
    wanted.Memory = memory(-1, 0, 0).Memory;
    cgroup.update(&wanted).unwrap();
    // Over what was there, as a file of the kernel's doesn't mind.
    assert!(fs::read_to_string(dir.path().join("c/cpu.weight")).unwrap().starts_with("59"));
}

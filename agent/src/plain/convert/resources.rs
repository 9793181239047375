//! Limits of a container.

use protocols::oci as wire;
use serde_json::{Value, json};

use super::{Controllers, Notes, Result, bounded, malformed};

/// The wire has no word for «not set»: 0 is it.
fn set<T: Copy + Default + PartialEq + serde::Serialize>(value: &mut Value, key: &str, number: T) {
    if number != T::default() {
        value[key] = json!(number);
    }
}

pub(super) fn resources_value(
    resources: &wire::LinuxResources,
    controllers: Controllers,
    notes: &mut Notes,
) -> Result<Value> {
    let devices = bounded("device rules", &resources.Devices)?;
    let mut value = json!({ "devices": devices.iter().map(rule).collect::<Result<Vec<_>>>()? });
    if let Some(memory) = resources.Memory.as_ref() {
        let mut part = json!({});
        set(&mut part, "limit", memory.Limit);
        set(&mut part, "reservation", memory.Reservation);
        set(&mut part, "swap", memory.Swap);
        set(&mut part, "swappiness", memory.Swappiness);
        set(&mut part, "disableOOMKiller", memory.DisableOOMKiller);
        notes.unless(memory.Kernel == 0 && memory.KernelTCP == 0, "limits of kernel memory");
        value["memory"] = part;
    }
    if let Some(cpu) = resources.CPU.as_ref() {
        let mut part = json!({});
        set(&mut part, "shares", cpu.Shares);
        set(&mut part, "quota", cpu.Quota);
        set(&mut part, "period", cpu.Period);
        set(&mut part, "realtimeRuntime", cpu.RealtimeRuntime);
        set(&mut part, "realtimePeriod", cpu.RealtimePeriod);
        set(&mut part, "cpus", cpu.Cpus.as_str());
        set(&mut part, "mems", cpu.Mems.as_str());
        value["cpu"] = part;
    }
    if let Some(pids) = resources.Pids.as_ref().filter(|pids| pids.Limit != 0) {
        value["pids"] = json!({ "limit": pids.Limit });
    }
    if let Some(io) = resources.BlockIO.as_ref() {
        match controllers.io {
            true => value["blockIO"] = block_io(io)?,
            false => notes.unless(false, "block I/O limits, for which the kernel has no controller"),
        }
    }
    if !resources.HugepageLimits.is_empty() {
        let limits = bounded("huge page limits", &resources.HugepageLimits)?;
        let limits = limits.iter().map(|l| json!({ "pageSize": l.Pagesize, "limit": l.Limit }));
        match controllers.hugetlb {
            true => value["hugepageLimits"] = limits.collect(),
            false => notes.unless(false, "huge page limits, for which the kernel has no controller"),
        }
    }
    let network = resources.Network.as_ref();
    let has_network = network.is_some_and(|n| n.ClassID != 0 || !n.Priorities.is_empty());
    notes.unless(!has_network, "network classes and priorities");
    Ok(value)
}

/// The guest's numbers are put in later; -1, and 0 for both, mean any.
fn rule(rule: &wire::LinuxDeviceCgroup) -> Result<Value> {
    let kind = match rule.Type.as_str() {
        "" | "a" => "a",
        kind @ ("b" | "c") => kind,
        _ => {
            return Err(malformed(
                "device rules",
                "one is neither for all, nor block, nor character devices",
            ));
        }
    };
    if rule.Access.len() > 3 || !rule.Access.bytes().all(|b| b"rwm".contains(&b)) {
        return Err(malformed("device rules", "access is made of r, w and m"));
    }
    let mut value = json!({ "allow": rule.Allow, "type": kind });
    if (rule.Major, rule.Minor) != (0, 0) {
        for (key, number) in [("major", rule.Major), ("minor", rule.Minor)] {
            if number >= 0 {
                value[key] = json!(number);
            }
        }
    }
    value["access"] = json!(if rule.Access.is_empty() { "rwm" } else { &rule.Access });
    Ok(value)
}

fn block_io(io: &wire::LinuxBlockIO) -> Result<Value> {
    let weight = |weight: u32| {
        u16::try_from(weight).map_err(|_| malformed("block I/O", format!("a weight of {weight}")))
    };
    let mut value = json!({});
    set(&mut value, "weight", weight(io.Weight)?);
    set(&mut value, "leafWeight", weight(io.LeafWeight)?);
    let mut weights = Vec::new();
    for device in bounded("block I/O", &io.WeightDevice)? {
        let mut one = json!({ "major": device.Major, "minor": device.Minor });
        set(&mut one, "weight", weight(device.Weight)?);
        set(&mut one, "leafWeight", weight(device.LeafWeight)?);
        weights.push(one);
    }
    if !weights.is_empty() {
        value["weightDevice"] = json!(weights);
    }
    for (key, list) in [
        ("throttleReadBpsDevice", &io.ThrottleReadBpsDevice),
        ("throttleWriteBpsDevice", &io.ThrottleWriteBpsDevice),
        ("throttleReadIOPSDevice", &io.ThrottleReadIOPSDevice),
        ("throttleWriteIOPSDevice", &io.ThrottleWriteIOPSDevice),
    ] {
        let list = bounded("block I/O", list)?.iter();
        let list: Vec<_> =
            list.map(|d| json!({ "major": d.Major, "minor": d.Minor, "rate": d.Rate })).collect();
        if !list.is_empty() {
            value[key] = json!(list);
        }
    }
    Ok(value)
}

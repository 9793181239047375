//! Block I/O: weights and rates.

use protocols::oci::{LinuxBlockIO, LinuxThrottleDevice};

use super::values::{device, io_weight, malformed};
use super::{Cgroup, MAX_LIST, Plan};
use crate::error::Result;
use crate::hierarchy::Version;

/// Weights as the OCI specification bounds them.
const WEIGHTS: std::ops::RangeInclusive<u32> = 10..=1000;

impl Cgroup {
    pub(super) fn plan_blkio(&self, blkio: &LinuxBlockIO, plan: &mut Plan) -> Result<()> {
        let throttles = [
            (&blkio.ThrottleReadBpsDevice, "rbps", "blkio.throttle.read_bps_device"),
            (&blkio.ThrottleWriteBpsDevice, "wbps", "blkio.throttle.write_bps_device"),
            (&blkio.ThrottleReadIOPSDevice, "riops", "blkio.throttle.read_iops_device"),
            (&blkio.ThrottleWriteIOPSDevice, "wiops", "blkio.throttle.write_iops_device"),
        ];
        let entries = blkio.WeightDevice.len() + throttles.iter().map(|(list, ..)| list.len()).sum::<usize>();
        if entries > MAX_LIST {
            return Err(malformed("number of block devices", entries));
        }
        if blkio.Weight != 0 {
            let weight = checked(blkio.Weight)?;
            let (file, value) = self.weight_file("", weight);
            plan.add(self, "blkio", &file, value)?;
        }
        for of in &blkio.WeightDevice {
            let name = device(of.Major, of.Minor)?;
            let weight = checked(of.Weight)?;
            let (file, value) = self.weight_file("_device", weight);
            plan.add(self, "blkio", &file, format!("{name} {value}"))?;
        }
        for (list, key, file) in throttles {
            for LinuxThrottleDevice { Major, Minor, Rate, .. } in list {
                let name = device(*Major, *Minor)?;
                let (file, value) = match (self.version(), *Rate) {
                    (Version::V1, rate) => (file, format!("{name} {rate}")),
                    (Version::V2, 0) => ("io.max", format!("{name} {key}=max")),
                    (Version::V2, rate) => ("io.max", format!("{name} {key}={rate}")),
                };
                plan.add(self, "blkio", file, value)?;
            }
        }
        Ok(())
    }

    /// Which file this kernel's I/O scheduler reads, and the weight on its scale.
    fn weight_file(&self, suffix: &str, weight: u32) -> (String, u64) {
        match self.version() {
            Version::V2 if self.present("blkio", "io.bfq.weight").is_some() => {
                ("io.bfq.weight".to_owned(), weight.into())
            }
            Version::V2 => ("io.weight".to_owned(), io_weight(weight)),
            Version::V1 => {
                let bfq = format!("blkio.bfq.weight{suffix}");
                let file =
                    if self.present("blkio", &bfq).is_some() { bfq } else { format!("blkio.weight{suffix}") };
                (file, weight.into())
            }
        }
    }
}

fn checked(weight: u32) -> Result<u32> {
    if WEIGHTS.contains(&weight) { Ok(weight) } else { Err(malformed("block I/O weight", weight)) }
}

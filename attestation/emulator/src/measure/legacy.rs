//! What QEMU puts into the memory of an SEV or SEV-ES guest: firmware, then the table of kernel hashes, then
//! for SEV-ES each processor's state. The launch digest is the SHA-256 of it, without addresses.

use super::{CpuModel, HashTable, MeasureError, VCPUS_MAX, vmsa};
use crate::firmware::Firmware;

/// Everything that the launch digest depends on.
#[derive(Debug)]
pub struct LegacyLaunch<'a> {
    /// The firmware file.
    pub firmware: &'a Firmware,
    /// Hashes of kernel, initrd and command line, with `kernel-hashes=on`.
    pub hashes: Option<&'a HashTable>,
    /// QEMU's `-smp`.
    pub vcpus: u32,
    /// QEMU's CPU model.
    pub cpu: CpuModel,
}

impl LegacyLaunch<'_> {
    /// What LAUNCH_UPDATE_DATA gets, in this order.
    pub fn data(&self) -> Result<Vec<Vec<u8>>, MeasureError> {
        let mut data = vec![self.firmware.bytes().to_vec()];
        if let Some(hashes) = self.hashes {
            if self.firmware.hash_table().is_none() {
                return Err(MeasureError::NoHashTable);
            }
            data.push(hashes.encode().to_vec());
        }
        Ok(data)
    }

    /// What LAUNCH_UPDATE_VMSA gets, in this order. SEV_FEATURES is zero before SNP.
    pub fn processors(&self) -> Result<Vec<Vec<u8>>, MeasureError> {
        if self.vcpus == 0 || self.vcpus > VCPUS_MAX {
            return Err(MeasureError::Vcpus(self.vcpus));
        }
        let start = |index| if index == 0 { vmsa::RESET_VECTOR } else { self.firmware.reset_address() };
        Ok((0..self.vcpus).map(|index| vmsa::page(start(index), self.cpu, 0).to_vec()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::vmsa::page;
    use std::path::{Path, PathBuf};

    fn vector(name: &str) -> Option<Vec<u8>> {
        let root = std::env::var_os("SEALPOD_VECTORS").map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/vectors"),
            PathBuf::from,
        );
        let bytes = std::fs::read(root.join("sev-legacy/sevctl").join(name)).ok();
        if bytes.is_none() {
            println!("skipped: no vectors");
        }
        bytes
    }

    #[test]
    fn processors_start_as_kvm_started_them() {
        for (name, start) in [("vmsa0.bin", vmsa::RESET_VECTOR), ("vmsa1.bin", 0x0080_b004)] {
            let Some(real) = vector(name) else { return };
            let signature = u32::from_le_bytes(real[0x310..0x314].try_into().unwrap());
            let model = ["EPYC", "EPYC-Rome", "EPYC-Milan", "EPYC-Genoa"]
                .map(|name| name.parse::<CpuModel>().unwrap())
                .into_iter()
                .find(|model| model.signature() == signature)
                .unwrap();
            let ours = page(start, model, 0);
            let different: Vec<_> = (0..real.len()).filter(|at| ours[*at] != real[*at]).collect();
            // Recorded on a kernel from before KVM put the x87 control word and MXCSR into the page.
            assert_eq!(different, [0x408, 0x409, 0x410, 0x411], "{name}");
        }
    }
}

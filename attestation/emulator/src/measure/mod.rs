//! The launch digest of an emulated SEV-SNP guest: SEV-SNP firmware ABI, section "Page Info", over what
//! QEMU puts into a guest's memory before its first instruction. [`LegacyLaunch`] is what it puts there for
//! SEV and SEV-ES.
//!
//! The emulator's own code, on purpose: a mistake shared with the verifier would go unnoticed.

mod cpu;
mod hashes;
mod legacy;
mod vmsa;

pub use cpu::{CpuModel, UnknownCpu};
pub use hashes::{BootFiles, FileError, HashTable};
pub use legacy::LegacyLaunch;

use crate::firmware::{Firmware, SectionKind};
use sha2::{Digest, Sha384};

/// SEV_FEATURES of a virtual processor: SNP active, nothing else.
pub const DEFAULT_GUEST_FEATURES: u64 = 1;
/// More virtual processors than a launch may declare.
pub const VCPUS_MAX: u32 = 512;

const PAGE: usize = 4096;
/// Virtual processors' state is measured as if it were at this address.
const VMSA_ADDRESS: u64 = 0xffff_ffff_f000;

/// Everything that the launch digest depends on.
#[derive(Debug)]
pub struct Launch<'a> {
    /// The firmware file.
    pub firmware: &'a Firmware,
    /// Hashes of kernel, initrd and command line.
    pub hashes: &'a HashTable,
    /// Number of virtual processors, 1 to [`VCPUS_MAX`].
    pub vcpus: u32,
    /// QEMU's CPU model.
    pub cpu: CpuModel,
    /// SEV_FEATURES of each virtual processor.
    pub guest_features: u64,
}

/// Why a launch can't be measured.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum MeasureError {
    /// Zero or too many.
    #[error("{0} virtual processors; a launch has 1 to {VCPUS_MAX}")]
    Vcpus(u32),
    /// Real firmware without the table can't vouch for kernel, initrd and command line.
    #[error(
        "the firmware has no room for kernel hashes, so kernel and initrd would not be measured; use an OVMF built with kernel hashes or `sealpod-emulator firmware`"
    )]
    NoHashTable,
    /// A firmware for SEV and SEV-ES.
    #[error(
        "the firmware has no SEV metadata, so it was not built for SEV-SNP; use `sealpod-emulator firmware`"
    )]
    NoMetadata,
}

impl Launch<'_> {
    /// The 48-byte launch digest.
    pub fn digest(&self) -> Result<[u8; 48], MeasureError> {
        if self.vcpus == 0 || self.vcpus > VCPUS_MAX {
            return Err(MeasureError::Vcpus(self.vcpus));
        }
        let hash_page = self.hash_page()?;
        let mut digest = Running([0; 48]);
        digest.pages(PageKind::Normal, self.firmware.address(), self.firmware.bytes());
        for section in self.firmware.sections().ok_or(MeasureError::NoMetadata)? {
            let address = u64::from(section.address);
            match section.kind {
                SectionKind::Memory | SectionKind::CallingArea => {
                    for offset in (0..u64::from(section.length)).step_by(PAGE) {
                        digest.page(PageKind::Zero, address + offset, None);
                    }
                }
                SectionKind::Secrets => digest.page(PageKind::Secrets, address, None),
                SectionKind::Cpuid => digest.page(PageKind::Cpuid, address, None),
                SectionKind::KernelHashes => digest.page(PageKind::Normal, address, Some(&hash_page)),
            }
        }
        for index in 0..self.vcpus {
            let start = if index == 0 { vmsa::RESET_VECTOR } else { self.firmware.reset_address() };
            let page = vmsa::page(start, self.cpu, self.guest_features);
            digest.page(PageKind::Vmsa, VMSA_ADDRESS, Some(&page));
        }
        Ok(digest.0)
    }

    fn hash_page(&self) -> Result<[u8; PAGE], MeasureError> {
        let base = self.firmware.hash_table().ok_or(MeasureError::NoHashTable)?;
        let sections = self.firmware.sections().ok_or(MeasureError::NoMetadata)?;
        if !sections.iter().any(|section| section.kind == SectionKind::KernelHashes) {
            return Err(MeasureError::NoHashTable);
        }
        let offset = base as usize % PAGE;
        let table = self.hashes.encode();
        let mut page = [0; PAGE];
        page.get_mut(offset..offset + table.len()).ok_or(MeasureError::NoHashTable)?.copy_from_slice(&table);
        Ok(page)
    }
}

#[derive(Clone, Copy)]
enum PageKind {
    Normal = 1,
    Vmsa = 2,
    Zero = 3,
    Secrets = 5,
    Cpuid = 6,
}

struct Running([u8; 48]);

impl Running {
    fn pages(&mut self, kind: PageKind, address: u64, bytes: &[u8]) {
        let mut at = address;
        for page in bytes.chunks_exact(PAGE) {
            self.extend(kind, at, &Sha384::digest(page).into());
            at += PAGE as u64;
        }
    }

    fn page(&mut self, kind: PageKind, address: u64, contents: Option<&[u8; PAGE]>) {
        match contents {
            Some(bytes) => self.pages(kind, address, bytes),
            None => self.extend(kind, address, &[0; 48]),
        }
    }

    /// One PAGE_INFO structure: the digest so far, the contents' digest, length 0x70, page type, not an
    /// initial migration image, no permissions for VMPL 3, 2 and 1, reserved, address.
    fn extend(&mut self, kind: PageKind, address: u64, contents: &[u8; 48]) {
        let mut info = Sha384::new();
        info.update(self.0);
        info.update(contents);
        info.update(0x70_u16.to_le_bytes());
        info.update([kind as u8, 0, 0, 0, 0, 0]);
        info.update(address.to_le_bytes());
        self.0 = info.finalize().into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::firmware;

    fn table(kernel: &[u8], initrd: &[u8], command_line: &str) -> HashTable {
        HashTable::of_bytes(kernel, initrd, command_line)
    }

    fn digest(hashes: &HashTable, vcpus: u32, cpu: &str, guest_features: u64) -> [u8; 48] {
        let firmware = Firmware::parse(firmware::generate()).unwrap();
        Launch { firmware: &firmware, hashes, vcpus, cpu: cpu.parse().unwrap(), guest_features }
            .digest()
            .unwrap()
    }

    #[test]
    fn each_input_changes_the_digest() {
        let hashes = table(b"kernel", b"initrd", "quiet");
        let all = [
            digest(&hashes, 1, "EPYC-Milan", 1),
            digest(&hashes, 2, "EPYC-Milan", 1),
            digest(&hashes, 1, "EPYC-Genoa", 1),
            digest(&hashes, 1, "EPYC-Milan", 0x21),
            digest(&table(b"kernem", b"initrd", "quiet"), 1, "EPYC-Milan", 1),
            digest(&table(b"kernel", b"initre", "quiet"), 1, "EPYC-Milan", 1),
            digest(&table(b"kernel", b"initrd", "quieter"), 1, "EPYC-Milan", 1),
        ];
        let different: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!(different.len(), all.len());
    }

    #[test]
    fn launches_without_processors_or_with_too_many_are_refused() {
        let firmware = Firmware::parse(firmware::generate()).unwrap();
        let hashes = table(b"", b"", "");
        for vcpus in [0, VCPUS_MAX + 1] {
            let cpu = "EPYC".parse().unwrap();
            let launch = Launch { firmware: &firmware, hashes: &hashes, vcpus, cpu, guest_features: 1 };
            assert_eq!(launch.digest(), Err(MeasureError::Vcpus(vcpus)));
        }
    }
}

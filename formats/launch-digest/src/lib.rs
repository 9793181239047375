//! The launch digest that the firmware of an AMD processor computes over what QEMU loads into a guest:
//! guest firmware, hashes of kernel, initrd and command line, and the first register state of each
//! vCPU. Pure functions over bytes; the same inputs as the launch, so the owner can say beforehand
//! what a genuine guest must report. SNP: AMD 56860 §8.17 (page info); SEV: AMD 55766 §6.4.

mod cpu;
mod firmware;
mod hash_table;
mod snp;
mod vmsa;

pub use cpu::{CpuModel, UnknownCpuModel};
pub use firmware::{Area, Firmware, FirmwareError, Section, SectionKind};
pub use hash_table::{HASH_TABLE_LEN, Kernel};

use sha2::{Digest, Sha256};

/// What a guest is launched with.
#[derive(Debug, Clone, Copy)]
pub struct Launch<'a> {
    /// The firmware image, mapped so that it ends at 4 GiB.
    pub firmware: &'a [u8],
    /// Kernel, initrd and command line, if QEMU loads them (`kernel-hashes=on`).
    pub kernel: Option<Kernel<'a>>,
    /// Number of vCPUs present at launch.
    pub vcpus: u32,
    /// Their model.
    pub cpu: CpuModel,
    /// SEV_FEATURES of the vCPUs; used for SNP only. [`GUEST_FEATURES_SNP`], with
    /// [`GUEST_FEATURES_DEBUG_SWAP`] where KVM turns that on.
    pub guest_features: u64,
}

/// SEV_FEATURES of an SNP guest: SNPActive.
pub const GUEST_FEATURES_SNP: u64 = 1;
/// SEV_FEATURES bit 5, DebugSwap.
pub const GUEST_FEATURES_DEBUG_SWAP: u64 = 1 << 5;
/// More vCPUs than QEMU starts.
pub const MAX_VCPUS: u32 = 4096;

/// Why there is no launch digest for an input.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LaunchError {
    /// The firmware image can't be read.
    #[error(transparent)]
    Firmware(#[from] FirmwareError),
    /// The firmware has no room for the hashes of a kernel, so the kernel would not be measured.
    #[error(
        "guest firmware has no usable kernel hash table ({0}); use an OVMF built for direct boot (AmdSev)"
    )]
    NoKernelHashes(&'static str),
    /// The firmware does not say where other vCPUs start.
    #[error("guest firmware has no SEV-ES reset block, so it can't start a guest with encrypted registers")]
    NoResetBlock,
    /// The firmware has no SNP metadata.
    #[error("guest firmware has no SEV metadata, so it can't start an SNP guest")]
    NoMetadata,
    /// No vCPU, or more than a guest can have.
    #[error("{0} vCPUs: a guest has 1 to {MAX_VCPUS}")]
    Vcpus(u32),
    /// QEMU hands the command line over as a C string.
    #[error("kernel command line holds a NUL byte")]
    CommandLine,
}

/// The launch digest of an SNP guest: the `measurement` of its reports.
pub fn snp(launch: &Launch<'_>) -> Result<[u8; 48], LaunchError> {
    snp::launch_digest(launch)
}

/// The launch digest of a SEV guest without encrypted registers. The number and model of vCPUs are not
/// measured.
pub fn sev(launch: &Launch<'_>) -> Result<[u8; 32], LaunchError> {
    Ok(legacy(launch, &Firmware::parse(launch.firmware)?)?.finalize().into())
}

/// The launch digest of a SEV-ES guest.
pub fn sev_es(launch: &Launch<'_>) -> Result<[u8; 32], LaunchError> {
    let firmware = Firmware::parse(launch.firmware)?;
    let mut digest = legacy(launch, &firmware)?;
    for page in vmsa::pages(&firmware, launch.vcpus, launch.cpu, 0)? {
        digest.update(page);
    }
    Ok(digest.finalize().into())
}

/// SHA-256 over firmware and hash table, as LAUNCH_UPDATE_DATA extends it.
fn legacy(launch: &Launch<'_>, firmware: &Firmware<'_>) -> Result<Sha256, LaunchError> {
    let mut digest = Sha256::new();
    digest.update(firmware.bytes());
    if let Some(kernel) = &launch.kernel {
        firmware.hash_table_area()?;
        digest.update(kernel.hash_table()?);
    }
    Ok(digest)
}

//! The first register state of each vCPU, as QEMU and KVM fill it in: one 4 KiB save area a vCPU.
//! AMD 24593 (APM volume 2) table B-4 for the layout; the values are the x86 reset state.

use crate::cpu::CpuModel;
use crate::firmware::Firmware;
use crate::{LaunchError, MAX_VCPUS};

/// Length of a save area.
pub(crate) const PAGE: usize = 4096;

/// The first vCPU starts at the reset vector.
const RESET_VECTOR: u32 = 0xffff_fff0;

/// The save areas of all vCPUs: the first starts at the reset vector, the others where the firmware's
/// reset block says.
pub(crate) fn pages(
    firmware: &Firmware<'_>,
    vcpus: u32,
    cpu: CpuModel,
    features: u64,
) -> Result<impl Iterator<Item = [u8; PAGE]>, LaunchError> {
    if !(1..=MAX_VCPUS).contains(&vcpus) {
        return Err(LaunchError::Vcpus(vcpus));
    }
    let others = firmware.reset_eip().filter(|&eip| eip != 0).ok_or(LaunchError::NoResetBlock)?;
    let first = page(RESET_VECTOR, cpu, features);
    let other = page(others, cpu, features);
    Ok((0..vcpus).map(move |n| if n == 0 { first } else { other }))
}

fn page(eip: u32, cpu: CpuModel, features: u64) -> [u8; PAGE] {
    let mut page = [0; PAGE];
    let mut put = |at: usize, bytes: &[u8]| page[at..at + bytes.len()].copy_from_slice(bytes);
    // Segments: selector u16, attributes u16, limit u32, base u64.
    for (at, selector, attributes, base) in [
        (0x00, 0, 0x93, 0),                      // ES
        (0x10, 0xf000, 0x9b, eip & 0xffff_0000), // CS
        (0x20, 0, 0x93, 0),                      // SS
        (0x30, 0, 0x93, 0),                      // DS
        (0x40, 0, 0x93, 0),                      // FS
        (0x50, 0, 0x93, 0),                      // GS
        (0x60, 0, 0, 0),                         // GDTR
        (0x70, 0, 0x82, 0),                      // LDTR
        (0x80, 0, 0, 0),                         // IDTR
        (0x90, 0u16, 0x8bu16, 0u32),             // TR
    ] {
        put(at, &selector.to_le_bytes());
        put(at + 2, &attributes.to_le_bytes());
        put(at + 4, &0xffff_u32.to_le_bytes());
        put(at + 8, &u64::from(base).to_le_bytes());
    }
    for (at, value) in [
        (0x0d0, 0x1000),                     // EFER: SVME
        (0x148, 0x40),                       // CR4: MCE
        (0x158, 0x10),                       // CR0: ET
        (0x160, 0x400),                      // DR7
        (0x168, 0xffff_0ff0),                // DR6
        (0x170, 2),                          // RFLAGS
        (0x178, u64::from(eip & 0xffff)),    // RIP
        (0x268, 0x0007_0406_0007_0406),      // PAT
        (0x310, u64::from(cpu.signature())), // RDX
        (0x3b0, features),                   // SEV_FEATURES
        (0x3e8, 1),                          // XCR0
    ] {
        put(at, &value.to_le_bytes());
    }
    put(0x408, &0x1f80_u32.to_le_bytes()); // MXCSR
    put(0x410, &0x037f_u16.to_le_bytes()); // x87 control word
    page
}

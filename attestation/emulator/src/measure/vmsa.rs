//! A virtual processor's state before its first instruction, as QEMU's KVM back-end leaves it: the VMSA
//! page of AMD64 Architecture Programmer's Manual volume 2, table B-4.

use super::{CpuModel, PAGE};

/// Where the first processor starts.
pub(super) const RESET_VECTOR: u32 = 0xffff_fff0;

/// The page for a processor that starts at `start`; the others start where the firmware's reset block says.
pub(super) fn page(start: u32, cpu: CpuModel, guest_features: u64) -> [u8; PAGE] {
    let mut page = [0; PAGE];
    let code_base = u64::from(start & 0xffff_0000);
    // Data segments and the stack: present, writable, accessed.
    for offset in [0x00, 0x20, 0x30, 0x40, 0x50] {
        segment(&mut page, offset, 0, 0x93, 0);
    }
    segment(&mut page, 0x10, 0xf000, 0x9b, code_base); // CS
    segment(&mut page, 0x60, 0, 0, 0); // GDTR
    segment(&mut page, 0x70, 0, 0x82, 0); // LDTR
    segment(&mut page, 0x80, 0, 0, 0); // IDTR
    segment(&mut page, 0x90, 0, 0x8b, 0); // TR
    for (offset, value) in [
        (0x0d0, 0x1000),                     // EFER: SVME, which the hardware demands
        (0x148, 0x40),                       // CR4: machine checks
        (0x158, 0x10),                       // CR0: extension type
        (0x160, 0x400),                      // DR7
        (0x168, 0xffff_0ff0),                // DR6
        (0x170, 2),                          // RFLAGS
        (0x178, u64::from(start & 0xffff)),  // RIP
        (0x268, 0x0007_0406_0007_0406),      // PAT
        (0x310, u64::from(cpu.signature())), // RDX: the CPUID signature
        (0x3b0, guest_features),             // SEV_FEATURES
        (0x3e8, 1),                          // XCR0: x87
    ] {
        put(&mut page, offset, &value.to_le_bytes());
    }
    put(&mut page, 0x408, &0x1f80_u32.to_le_bytes()); // MXCSR
    put(&mut page, 0x410, &0x037f_u16.to_le_bytes()); // x87 control word
    page
}

/// Selector u16, attributes u16, limit u32 (always 64 KiB), base u64.
fn segment(page: &mut [u8; PAGE], offset: usize, selector: u16, attributes: u16, base: u64) {
    put(page, offset, &selector.to_le_bytes());
    put(page, offset + 2, &attributes.to_le_bytes());
    put(page, offset + 4, &0xffff_u32.to_le_bytes());
    put(page, offset + 8, &base.to_le_bytes());
}

fn put(page: &mut [u8; PAGE], offset: usize, bytes: &[u8]) {
    page[offset..offset + bytes.len()].copy_from_slice(bytes);
}

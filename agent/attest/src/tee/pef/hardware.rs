//! The call itself, from user space: `sc 2` with `UV_ESMB_GET_FILE` in r3. Linux'
//! `Documentation/arch/powerpc/ultravisor.rst`; the call's arguments as the published firmware has them.
#![expect(unsafe_code, reason = "a call to the ultravisor is an instruction")]

use std::arch::asm;

use zeroize::Zeroize;

use super::{Chunk, Ultravisor};

/// Number of the call, and no system call's.
const UV_ESMB_GET_FILE: u64 = 0xF14C;
/// SO of cr0, in the condition register's word: how a kernel says that a system call failed.
const SUMMARY_OVERFLOW: u64 = 1 << 28;

/// The ultravisor of this VM.
#[derive(Debug)]
pub struct Hardware;

impl Ultravisor for Hardware {
    fn get_file(&mut self, name: &[u8; 64], offset: u64) -> Option<Chunk> {
        let mut word = [0u64; 10];
        word[0] = UV_ESMB_GET_FILE;
        word[1] = offset;
        // Both ways, a register holds eight bytes with the first one on top.
        for (register, bytes) in word[2..].iter_mut().zip(name.chunks_exact(8)) {
            *register = bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte));
        }
        let condition: u64;
        // SAFETY: the call takes and gives values in registers only, and every register that it may change
        // is named: what a function call may change, less what the ABI has for vectors and floats, which neither
        // the ultravisor nor a kernel that gets the call instead touches. A kernel takes it for the system call
        // of r0, which it doesn't know.
        unsafe {
            asm!(
                "crclr 3",
                "sc 2",
                "mfcr 0",
                inout("r0") UV_ESMB_GET_FILE => condition,
                inout("r3") word[0], inout("r4") word[1], inout("r5") word[2], inout("r6") word[3],
                inout("r7") word[4], inout("r8") word[5], inout("r9") word[6], inout("r10") word[7],
                inout("r11") word[8], inout("r12") word[9],
                out("ctr") _, out("xer") _, out("cr0") _, out("cr1") _, out("cr5") _, out("cr6") _, out("cr7") _,
                options(nostack),
            );
        }
        let mut data = [0; 64];
        for (bytes, register) in data.chunks_exact_mut(8).zip(&word[1..9]) {
            bytes.copy_from_slice(&register.to_be_bytes());
        }
        let length = word[0].cast_signed();
        word.zeroize();
        (condition & SUMMARY_OVERFLOW == 0).then_some(Chunk { length, data })
    }
}

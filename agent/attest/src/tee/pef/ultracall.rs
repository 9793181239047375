//! The call itself: `sc 2`, which only assembly can say (`ultracall.S`). Linux'
//! `Documentation/arch/powerpc/ultravisor.rst`; numbers from `arch/powerpc/include/asm/ultravisor-api.h` and the
//! published firmware.
#![expect(unsafe_code, reason = "an ultravisor call takes pointers to registers' contents")]

use super::{Chunk, Ultravisor};

/// The ultravisor of this VM.
pub(super) struct Ultracall;

/// r5 to r12 on the way in, r4 to r11 on the way out.
type Words = [u64; 8];

unsafe extern "C" {
    /// Makes `UV_ESMB_GET_FILE` with r4 = `offset`. `answered` is 0 afterwards if the kernel took the call for a
    /// system call.
    fn sealpod_uv_esmb_get_file(offset: u64, words: *mut Words, answered: *mut u64) -> i64;
}

impl Ultravisor for Ultracall {
    fn get_file(&mut self, name: &[u8; 64], offset: u64) -> Option<Chunk> {
        let mut words: Words = [0; 8];
        for (word, bytes) in words.iter_mut().zip(name.chunks_exact(8)) {
            let mut eight = [0; 8];
            eight.copy_from_slice(bytes);
            *word = u64::from_be_bytes(eight);
        }
        let mut answered = 0;
        // SAFETY: the function reads and writes eight words and writes one, in the two places given, which live
        // across the call and are borrowed by nothing else; it keeps to the ABI for all other registers.
        let length = unsafe { sealpod_uv_esmb_get_file(offset, &raw mut words, &raw mut answered) };
        let mut data = [0; 64];
        for (bytes, word) in data.chunks_exact_mut(8).zip(words) {
            bytes.copy_from_slice(&word.to_be_bytes());
        }
        zeroize::Zeroize::zeroize(&mut words);
        (answered != 0).then_some(Chunk { length, data })
    }
}

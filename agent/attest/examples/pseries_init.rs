//! PID 1 of a pseries guest without an ultravisor: the agent's reader asks for the file of an ESM blob by the
//! real call, once with nobody there to answer and once under a parent that traces it and answers in the
//! ultravisor's place. `cargo xtask ppc64le --boot` boots it.

#[cfg(all(target_arch = "powerpc64", target_endian = "little"))]
fn main() {
    guest::main();
}

#[cfg(not(all(target_arch = "powerpc64", target_endian = "little")))]
fn main() {
    println!("the ultravisor's call exists on powerpc64le only; run 'cargo xtask ppc64le --boot'");
}

#[cfg(all(target_arch = "powerpc64", target_endian = "little"))]
mod guest {
    #![allow(unsafe_code, reason = "fork and ptrace, in a test")]
    #![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

    use std::ffi::{c_int, c_void};
    use std::ptr::null_mut;

    use agent_attest::tee::Tee;
    use agent_attest::tee::pef::{Hardware, Pef};

    const NAME: &[u8] = b"sealpod";
    const UV_ESMB_GET_FILE: u64 = 0xF14C;
    /// The instruction `sc 2`.
    const CALL: u32 = 0x4400_0042;
    /// PTRACE_PEEKUSER and PTRACE_POKEUSER take eight times the register's number: r0 to r31, then these.
    const NIP: usize = 32;
    const CCR: usize = 38;
    /// SO in cr0: the kernel took the call for a system call of its own.
    const SUMMARY_OVERFLOW: u64 = 0x1000_0000;
    const SYSTEM_CALL_STOP: c_int = libc::SIGTRAP | 0x80;
    /// SHA-256 of the initdata, in the file.
    const INIT_DATA: [u8; 32] = [0xa5; 32];

    fn file() -> Vec<u8> {
        let digest = |byte: &str| format!("sha256:{}", byte.repeat(32));
        format!(
            r#"{{"version":1,"name":"sealpod","blob":"{}","init_data":"{}","sealed_spec":"{}","key":"{}="}}"#,
            "0f".repeat(16),
            digest("a5"),
            digest("5a"),
            "A".repeat(43)
        )
        .into_bytes()
    }

    pub(super) fn main() {
        match Pef::take(&mut Hardware) {
            Ok(None) => println!("nobody answers where there is no ultravisor"),
            other => println!("something answered where there is no ultravisor: {:?}", other.err()),
        }
        // SAFETY: nothing runs beside this thread; the child goes on as this program does.
        match unsafe { libc::fork() } {
            0 => traced(),
            child => Tracer(child).answer(),
        }
        // SAFETY: PID 1 ends the machine; there is nothing to lose.
        unsafe { libc::reboot(libc::RB_POWER_OFF) };
    }

    fn traced() -> ! {
        // SAFETY: asks to be traced and waits for the parent.
        unsafe {
            libc::ptrace(libc::PTRACE_TRACEME, 0, null_mut::<c_void>(), null_mut::<c_void>());
            libc::raise(libc::SIGSTOP);
        }
        match Pef::take(&mut Hardware).map(|found| found.map(|pef| pef.init_data_digest())) {
            Ok(Some(Ok(INIT_DATA))) => println!("the ESM file was read as it is: {} bytes", file().len()),
            Ok(other) => println!("the ESM file was read wrong: {other:?}"),
            Err(error) => println!("the ESM file was not read: {error}"),
        }
        std::process::exit(0)
    }

    struct Tracer(libc::pid_t);

    impl Tracer {
        fn request(&self, request: libc::c_uint, address: usize, data: usize) -> u64 {
            // SAFETY: a request about the child, with numbers in the place of pointers.
            let answer =
                unsafe { libc::ptrace(request, self.0, address as *mut c_void, data as *mut c_void) };
            answer.cast_unsigned()
        }

        fn register(&self, number: usize) -> u64 {
            // The wrapper of the C library returns what was peeked at.
            self.request(libc::PTRACE_PEEKUSER, 8 * number, 0)
        }

        fn set(&self, number: usize, value: u64) {
            self.request(libc::PTRACE_POKEUSER, 8 * number, value as usize);
        }

        /// The signal that the child stopped with; none: it has ended.
        fn wait(&self) -> Option<c_int> {
            let mut status = 0;
            // SAFETY: waits for the one child.
            let pid = unsafe { libc::waitpid(self.0, &raw mut status, 0) };
            (pid == self.0 && libc::WIFSTOPPED(status)).then(|| libc::WSTOPSIG(status))
        }

        fn answer(&self) {
            self.wait();
            self.request(libc::PTRACE_SETOPTIONS, 0, libc::PTRACE_O_TRACESYSGOOD as usize);
            let mut pending: Option<[u64; 9]> = None;
            loop {
                self.request(libc::PTRACE_SYSCALL, 0, 0);
                match self.wait() {
                    None => return,
                    Some(SYSTEM_CALL_STOP) => {}
                    Some(signal) => panic!("the reader got signal {signal}"),
                }
                if let Some(registers) = pending.take() {
                    for (number, value) in registers.into_iter().enumerate() {
                        self.set(3 + number, value);
                    }
                    self.set(CCR, self.register(CCR) & !SUMMARY_OVERFLOW);
                } else if self.instruction() == CALL {
                    pending = Some(self.serve());
                    // No system call: the kernel is to do nothing.
                    self.set(0, u64::MAX);
                }
            }
        }

        /// What the child executed to stop.
        fn instruction(&self) -> u32 {
            let at = self.register(NIP) as usize - 4;
            let word = self.request(libc::PTRACE_PEEKTEXT, at & !7, 0);
            if at & 4 == 0 { word as u32 } else { (word >> 32) as u32 }
        }

        fn serve(&self) -> [u64; 9] {
            assert_eq!(self.register(3), UV_ESMB_GET_FILE);
            let offset = self.register(4) as usize;
            let mut name: Vec<u8> = (5..=12).flat_map(|number| self.register(number).to_be_bytes()).collect();
            name.truncate(name.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
            let mut registers = [0; 9];
            if name != NAME {
                registers[0] = (-1i64).cast_unsigned();
                return registers;
            }
            let file = file();
            let rest = &file[offset.min(file.len())..];
            let mut chunk = [0; 64];
            let length = rest.len().min(64);
            chunk[..length].copy_from_slice(&rest[..length]);
            registers[0] = length as u64;
            for (register, bytes) in registers[1..].iter_mut().zip(chunk.chunks_exact(8)) {
                *register = u64::from_be_bytes(bytes.try_into().unwrap());
            }
            registers
        }
    }
}

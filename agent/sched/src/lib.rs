//! `sched_setattr(2)`, under the names by which libcontainer calls it.
//!
//! libcontainer takes it from the crate `nc`, which holds every system call of every system and doesn't
//! compile for powerpc64le. This is the one call, for every Linux.
#![expect(unsafe_code, reason = "a system call takes a pointer")]

use std::io;

/// `struct sched_attr` (sched_setattr(2), with the clamps of Linux 5.3).
#[allow(non_camel_case_types, reason = "libcontainer's name for it")]
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct sched_attr_t {
    /// Its own size.
    pub size: u32,
    /// SCHED_…
    pub sched_policy: u32,
    /// SCHED_FLAG_…
    pub sched_flags: u64,
    /// For the policies that have a nice value.
    pub sched_nice: i32,
    /// For the real-time policies.
    pub sched_priority: u32,
    /// Nanoseconds, for SCHED_DEADLINE.
    pub sched_runtime: u64,
    /// Nanoseconds, for SCHED_DEADLINE.
    pub sched_deadline: u64,
    /// Nanoseconds, for SCHED_DEADLINE.
    pub sched_period: u64,
    /// Lowest utilisation.
    pub sched_util_min: u32,
    /// Highest utilisation.
    pub sched_util_max: u32,
}

const _: () = assert!(size_of::<sched_attr_t>() == 56);

/// Sets the scheduling policy of a thread; 0 is the caller.
///
/// # Errors
/// The kernel's, and `EINVAL` for a size beyond the structure.
///
/// # Safety
/// None is needed, whatever the structure says; libcontainer calls it as unsafe.
pub unsafe fn sched_setattr(pid: i32, attr: &sched_attr_t, flags: u32) -> io::Result<()> {
    if attr.size as usize > size_of::<sched_attr_t>() {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // The kernel writes the size that it wants there when it refuses one.
    let mut attr = *attr;
    // SAFETY: the kernel reads `size` bytes of the structure, which is alive and, checked above, no shorter, and
    // writes its first field alone.
    match unsafe { libc::syscall(libc::SYS_sched_setattr, pid, &raw mut attr, flags) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_becomes_a_batch_job() {
        let size = size_of::<sched_attr_t>() as u32;
        let batch =
            sched_attr_t { size, sched_policy: libc::SCHED_BATCH.cast_unsigned(), ..Default::default() };
        // SAFETY: none is needed.
        unsafe { sched_setattr(0, &batch, 0) }.unwrap();
        // SAFETY: asks about the calling thread.
        assert_eq!(unsafe { libc::sched_getscheduler(0) }, libc::SCHED_BATCH);
        let unknown = sched_attr_t { sched_policy: 99, ..batch };
        // SAFETY: none is needed.
        assert!(unsafe { sched_setattr(0, &unknown, 0) }.is_err());
    }

    #[test]
    fn a_size_beyond_the_structure_is_refused() {
        let size = size_of::<sched_attr_t>() as u32;
        for size in [size + 1, size + 8, u32::MAX] {
            let attr = sched_attr_t { size, ..Default::default() };
            // SAFETY: none is needed.
            let error = unsafe { sched_setattr(0, &attr, 0) }.unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{size}");
        }
        let attr = sched_attr_t { size: 8, ..Default::default() };
        // SAFETY: none is needed.
        let error = unsafe { sched_setattr(0, &attr, 0) }.unwrap_err();
        assert_eq!((error.raw_os_error(), attr.size), (Some(libc::E2BIG), 8), "the kernel's own refusal");
    }
}

//! The end of the VM.

use nix::sys::reboot::{RebootMode, reboot};

/// Ends the machine, or the process where the agent isn't the first one.
pub trait PowerOff: Send + Sync {
    /// Doesn't return when it works.
    fn power_off(&self);
}

/// The machine's own switch.
pub struct Switch;

impl PowerOff for Switch {
    fn power_off(&self) {
        // Memory goes with the VM: nothing of a pod is on a disk that would have to be written.
        if std::process::id() == 1 && reboot(RebootMode::RB_POWER_OFF).is_err() {
            // Without ACPI the kernel refuses to power off; a restart with `-no-reboot` ends the VM too.
            let _ = reboot(RebootMode::RB_AUTOBOOT);
        }
        std::process::exit(0);
    }
}

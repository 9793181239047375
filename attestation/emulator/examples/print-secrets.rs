//! Shows, as the agent finds them, the secrets that were injected into an emulated SEV guest, and unlinks them.
//!
//! Static and able to be PID 1: put it into the test initrd as `/sealpod-agent` to try the way from the launch
//! into the guest by hand. As PID 1 it powers the machine off at the end.

use nix::sys::reboot::{RebootMode, reboot};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::{fs, io};

fn main() {
    if let Err(error) = run() {
        println!("print-secrets: {error}");
    }
    if std::process::id() == 1 {
        // The serial port sends what it has while this sleeps.
        std::thread::sleep(std::time::Duration::from_secs(1));
        let _ = reboot(RebootMode::RB_POWER_OFF);
    }
}

fn run() -> io::Result<()> {
    println!("/dev/sev-guest: {}", Path::new("/dev/sev-guest").exists());
    println!("ACPI tables to be seen: {}", fs::read_dir("/sys/firmware/acpi/tables")?.count());
    for entry in fs::read_dir("/sys/kernel/security/secrets/coco")? {
        let path = entry?.path();
        let mode = fs::metadata(&path)?.permissions().mode();
        println!("{} {mode:o}: {}", path.display(), String::from_utf8_lossy(&fs::read(&path)?));
        fs::remove_file(&path)?;
        println!("unlinked: {}", !path.exists());
    }
    Ok(())
}

//! Emulated machines: which processor, and what it or its host does wrong.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use launcher::Platform;

/// A kind of machine that the emulator stands in for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// The platform's kind in `guest.toml`.
    pub kind: &'static str,
    /// As the emulator names the processor.
    pub product: &'static str,
    /// As QEMU names it; the launch digest covers it.
    pub cpu_model: &'static str,
}

impl Machine {
    /// SEV-SNP on Milan: what every test uses that isn't about machines.
    pub const MILAN: Self = Self { kind: "snp-emulated", product: "Milan", cpu_model: "EPYC-Milan" };
    /// SEV-SNP on Genoa.
    pub const GENOA: Self = Self { kind: "snp-emulated", product: "Genoa", cpu_model: "EPYC-Genoa" };
    /// SEV-SNP on Turin, with another layout of its TCB and a short chip id.
    pub const TURIN: Self = Self { kind: "snp-emulated", product: "Turin", cpu_model: "EPYC-Turin" };
    /// SEV.
    pub const SEV: Self = Self { kind: "sev-emulated", product: "Milan", cpu_model: "EPYC-Milan" };
    /// SEV-ES.
    pub const SEV_ES: Self = Self { kind: "sev-es-emulated", product: "Milan", cpu_model: "EPYC-Milan" };

    /// Whether the relay launches its guests.
    #[must_use]
    pub fn is_sev(self) -> bool {
        self.kind.starts_with("sev")
    }
}

/// Has the platform's emulator run with more arguments: through a script beside the world's other files.
///
/// # Errors
/// When the platform isn't emulated, and when the script can't be written.
pub fn emulate_with(platform: &mut Platform, directory: &Path, arguments: &[&str]) -> Result<()> {
    let (Platform::SnpEmulated { emulator, .. } | Platform::SevEmulated { emulator, .. }) = platform else {
        anyhow::bail!("the platform is not emulated");
    };
    let script = directory.join("emulator-with-arguments");
    // In front of everything: what stands behind `--` is QEMU's.
    let text = format!(
        "#!/bin/sh\ncommand=$1\nshift\nexec '{}' \"$command\" {} \"$@\"\n",
        emulator.display(),
        arguments.iter().map(|argument| format!("'{argument}'")).collect::<Vec<_>>().join(" ")
    );
    fs::write(&script, text).context("cannot write the emulator's script")?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).context("cannot make it executable")?;
    *emulator = PathBuf::from(&script);
    Ok(())
}

//! Which accelerator really runs guests here. `/dev/kvm` opening proves nothing: on some machines virtual CPUs can
//! be made and no guest ever reaches userspace. So the first use boots the kernel with an `/init` of ours that
//! sleeps (timer), prints and powers off; the answer holds until the machine reboots or the kernel changes.

mod probe_initrd;

use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use crate::manifest::{GuestManifest, Platform};
use crate::process::{Process, ProcessError};
use crate::qemu::{self, Network};
use crate::rundir::{RunDir, RunDirError};

/// Ten times what a boot takes on an idle machine with working hardware virtualisation.
const PATIENCE: Duration = Duration::from_secs(15);

/// What executes the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accelerator {
    /// Hardware virtualisation.
    Kvm,
    /// QEMU's translator: slow, and works everywhere.
    Tcg,
}

/// What the caller wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// KVM if a guest has reached userspace with it on this machine, else TCG.
    #[default]
    Auto,
    /// This one, untested.
    Fixed(Accelerator),
}

impl std::fmt::Display for Accelerator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Accelerator::Kvm => "kvm",
            Accelerator::Tcg => "tcg",
        })
    }
}

impl std::str::FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Choice, String> {
        match text {
            "auto" => Ok(Choice::Auto),
            "kvm" => Ok(Choice::Fixed(Accelerator::Kvm)),
            "tcg" => Ok(Choice::Fixed(Accelerator::Tcg)),
            other => Err(format!("accelerator {other:?} is unknown; choose auto, kvm or tcg")),
        }
    }
}

/// What goes wrong with the probe itself; a guest that doesn't come up is an answer, not an error.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The kernel can't be read.
    #[error("cannot read kernel {path} to probe the accelerator")]
    Kernel {
        /// The kernel.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The probe's files can't be written.
    #[error("cannot write {path} to probe the accelerator")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// No run directory.
    #[error(transparent)]
    RunDir(#[from] RunDirError),
    /// QEMU did not start.
    #[error(transparent)]
    Process(#[from] ProcessError),
}

/// Resolves the choice; may boot a small guest once per machine boot and kernel.
pub(crate) async fn resolve(
    choice: Choice,
    guest: &GuestManifest,
    cache: &Path,
    runtime: &Path,
) -> Result<Accelerator, ProbeError> {
    match choice {
        Choice::Fixed(accelerator) => return Ok(accelerator),
        // Encrypted guests exist with KVM only.
        Choice::Auto if guest.platform.encrypted() => return Ok(Accelerator::Kvm),
        Choice::Auto => {}
    }
    if std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_err() {
        return Ok(Accelerator::Tcg);
    }
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let answer = cache.join(cache_name(boot_id.trim(), guest)?);
    match std::fs::read_to_string(&answer).as_deref() {
        Ok("kvm\n") => return Ok(Accelerator::Kvm),
        Ok("tcg\n") => return Ok(Accelerator::Tcg),
        _ => {}
    }
    let works = boots(guest, Accelerator::Kvm, runtime, PATIENCE).await?;
    let accelerator = if works { Accelerator::Kvm } else { Accelerator::Tcg };
    // A cache that can't be written costs time, not correctness.
    let _ = std::fs::create_dir_all(cache);
    let draft = answer.with_extension(std::process::id().to_string());
    if std::fs::write(&draft, format!("{accelerator}\n")).is_ok() {
        let _ = std::fs::rename(&draft, &answer);
    }
    Ok(accelerator)
}

fn cache_name(boot_id: &str, guest: &GuestManifest) -> Result<String, ProbeError> {
    let unreadable = |source| ProbeError::Kernel { path: guest.kernel.clone(), source };
    let mut hash = Sha256::new();
    for part in [boot_id, guest.qemu.to_string_lossy().as_ref()] {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    let mut kernel = std::fs::File::open(&guest.kernel).map_err(unreadable)?;
    let mut block = vec![0; 64 * 1024];
    loop {
        match std::io::Read::read(&mut kernel, &mut block).map_err(unreadable)? {
            0 => break,
            length => hash.update(&block[..length]),
        }
    }
    Ok(format!("accelerator-{}", hex::encode(&hash.finalize()[..16])))
}

/// Whether a guest with this accelerator reaches userspace, sleeps there and prints, within `patience`.
///
/// # Errors
/// [`ProbeError`] when the probe can't be made.
pub(crate) async fn boots(
    guest: &GuestManifest,
    accelerator: Accelerator,
    runtime: &Path,
    patience: Duration,
) -> Result<bool, ProbeError> {
    let run = RunDir::create(runtime)?;
    let console = run.join("console.log");
    let initrd = run.join("initrd");
    std::fs::write(&initrd, probe_initrd::build())
        .map_err(|source| ProbeError::Write { path: initrd.clone(), source })?;
    let mut probe = guest.clone();
    probe.platform = Platform::None;
    probe.initrd = initrd;
    probe.memory_mib = 256;
    probe.vcpus = 1;
    let boot = qemu::Boot {
        accelerator,
        vsock: None,
        console: &console,
        initdata: None,
        disks: &[],
        host_data: &[0; 32],
        network: Network::None,
    };
    let mut command = std::process::Command::new(&guest.qemu);
    command.args(qemu::arguments(&probe, &boot));
    command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
    command.stderr(std::process::Stdio::null());
    let process = Process::spawn(command)?;
    let deadline = tokio::time::Instant::now() + patience;
    loop {
        let ended = process.exited_within(Duration::from_millis(50)).await;
        if crate::console::tail(&console).contains(probe_initrd::MARK) {
            return Ok(true);
        }
        if ended || tokio::time::Instant::now() >= deadline {
            return Ok(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_answer_is_cached_per_kernel() {
        let base = tempfile::tempdir().unwrap();
        let text = "firmware='f'\nkernel='k'\ninitrd='i'\ncpu_model='c'\nqemu='/nonexistent/qemu'\n\
                    [platform]\nkind='snp-emulated'\nemulator='e'\nstate='s'";
        let guest = GuestManifest::parse(text, base.path()).unwrap();
        std::fs::write(base.path().join("k"), "one").unwrap();
        let one = cache_name("boot", &guest).unwrap();
        assert_eq!(one, cache_name("boot", &guest).unwrap());
        assert_ne!(one, cache_name("another boot", &guest).unwrap());
        std::fs::write(base.path().join("k"), "two").unwrap();
        assert_ne!(one, cache_name("boot", &guest).unwrap());
    }

    /// Whatever `/dev/kvm` claims, `Auto` answers with what runs guests, and remembers it.
    #[tokio::test]
    async fn auto_ends_in_an_accelerator_that_runs_guests() {
        let qemu = std::process::Command::new("qemu-system-x86_64").arg("--version").output().is_ok();
        let Some(kernel) = std::env::var_os("SEALPOD_TEST_KERNEL").filter(|_| qemu) else {
            eprintln!("skipped: needs qemu-system-x86_64 and SEALPOD_TEST_KERNEL=<bzImage>");
            return;
        };
        let base = tempfile::tempdir().unwrap();
        let text = "firmware='f'\nkernel='k'\ninitrd='i'\ncpu_model='c'\n\
                    [platform]\nkind='snp-emulated'\nemulator='e'\nstate='s'";
        let mut guest = GuestManifest::parse(text, base.path()).unwrap();
        guest.kernel = kernel.into();
        let cache = base.path().join("cache");
        let chosen = resolve(Choice::Auto, &guest, &cache, base.path()).await.unwrap();
        assert!(boots(&guest, chosen, base.path(), Duration::from_secs(120)).await.unwrap());
        eprintln!("auto chose {chosen}");
        assert_eq!(resolve(Choice::Auto, &guest, &cache, base.path()).await.unwrap(), chosen);
        let kvm = Path::new("/dev/kvm").exists();
        assert!(!kvm || std::fs::read_dir(&cache).unwrap().count() == 1);
    }

    #[test]
    fn choices_are_words() {
        assert_eq!("auto".parse(), Ok(Choice::Auto));
        assert_eq!("tcg".parse(), Ok(Choice::Fixed(Accelerator::Tcg)));
        assert!("hvf".parse::<Choice>().unwrap_err().contains("auto, kvm or tcg"));
    }
}

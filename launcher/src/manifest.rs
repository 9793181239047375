//! `guest.toml`: what a guest is booted from. The same file tells `sealpod measure` what to measure, so nothing
//! that is measured may come from anywhere else.

use std::path::{Path, PathBuf};

use serde::Deserialize;

/// The command line of a guest whose manifest names none. `no_timer_check`: without it an emulated guest on a busy
/// machine panics with "IO-APIC + timer doesn't work"; `panic=-1`: a panic ends the VM at once.
pub const DEFAULT_APPEND: &str = "console=ttyS0 quiet no_timer_check panic=-1";
/// Default SNP guest policy: ABI any, SMT allowed, the bit that must be one, no migration agent, no debug.
pub const DEFAULT_SNP_POLICY: u64 = 0x3_0000;
const LARGEST: u64 = 64 * 1024;

/// What goes wrong with a guest manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// It could not be read.
    #[error("cannot read guest manifest {path}")]
    Read {
        /// The manifest.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is larger than any honest manifest.
    #[error("guest manifest {path} is larger than {LARGEST} bytes; is it the right file?")]
    TooLarge {
        /// The manifest.
        path: PathBuf,
    },
    /// It is not what it should be.
    #[error("guest manifest {path}: {detail}")]
    Invalid {
        /// The manifest.
        path: PathBuf,
        /// Where and what.
        detail: String,
    },
    /// A file that it names is not there.
    #[error("guest manifest names {what} {path}, which is not a readable file")]
    Missing {
        /// `firmware`, `kernel`, …
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// A guest to boot. Relative paths in the file are relative to the file's directory; here they are resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestManifest {
    /// Guest firmware: booted on SNP; only measured when the platform is emulated.
    pub firmware: PathBuf,
    /// Linux `bzImage`.
    pub kernel: PathBuf,
    /// Initial RAM file system.
    pub initrd: PathBuf,
    /// Kernel command line, whole: the launcher adds nothing.
    pub append: String,
    /// Number of virtual CPUs, 1–255.
    pub vcpus: u32,
    /// Memory in MiB, at least 128.
    pub memory_mib: u32,
    /// QEMU's name of the CPU model, which the launch digest covers.
    pub cpu_model: String,
    /// The QEMU program.
    pub qemu: PathBuf,
    /// What vouches for the guest.
    pub platform: Platform,
}

/// What vouches for the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Platform {
    /// AMD SEV-SNP hardware; QEMU ≥ 9.1.
    Snp {
        /// Guest policy bits.
        policy: u64,
        /// Position of the C-bit in page table entries.
        cbitpos: u32,
        /// Physical address bits that encryption takes away.
        reduced_phys_bits: u32,
    },
    /// The emulated AMD secure processor: tests and demonstrations only.
    SnpEmulated {
        /// The `sealpod-emulator` program.
        emulator: PathBuf,
        /// Its state directory, made by `sealpod-emulator init`.
        state: PathBuf,
        /// Guest policy bits that reports carry.
        policy: u64,
    },
    /// AMD SEV or SEV-ES hardware: the relay launches it, and the guest policy is the broker's.
    Sev {
        /// SEV-ES: registers are encrypted too.
        es: bool,
        /// Position of the C-bit in page table entries, where QEMU's own word shall not count.
        cbitpos: Option<u32>,
        /// Physical address bits that encryption takes away, likewise.
        reduced_phys_bits: Option<u32>,
    },
    /// The emulated secure processor as legacy SEV, behind QEMU's monitor: tests and demonstrations only.
    SevEmulated {
        /// SEV-ES.
        es: bool,
        /// The `sealpod-emulator` program.
        emulator: PathBuf,
        /// Its state directory, made by `sealpod-emulator init`.
        state: PathBuf,
    },
    /// Nothing: an unsealed guest, for development.
    None,
}

impl Platform {
    /// The hardware encrypts the guest's memory: KVM only, and devices reach it through bounce buffers.
    #[must_use]
    pub fn encrypted(&self) -> bool {
        matches!(self, Platform::Snp { .. } | Platform::Sev { .. })
    }

    /// SEV-ES rather than SEV, where the relay launches the guest.
    #[must_use]
    pub fn launched_by_relay(&self) -> Option<bool> {
        match self {
            Platform::Sev { es, .. } | Platform::SevEmulated { es, .. } => Some(*es),
            Platform::Snp { .. } | Platform::SnpEmulated { .. } | Platform::None => None,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    firmware: PathBuf,
    kernel: PathBuf,
    initrd: PathBuf,
    append: Option<String>,
    vcpus: Option<u32>,
    memory_mib: Option<u32>,
    cpu_model: String,
    qemu: Option<PathBuf>,
    platform: PlatformTable,
}

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
enum PlatformTable {
    Snp { policy: Option<u64>, cbitpos: Option<u32>, reduced_phys_bits: Option<u32> },
    SnpEmulated { emulator: PathBuf, state: PathBuf, policy: Option<u64> },
    Sev { cbitpos: Option<u32>, reduced_phys_bits: Option<u32> },
    SevEs { cbitpos: Option<u32>, reduced_phys_bits: Option<u32> },
    SevEmulated { emulator: PathBuf, state: PathBuf },
    SevEsEmulated { emulator: PathBuf, state: PathBuf },
    None {},
}

impl GuestManifest {
    /// Reads and checks `guest.toml`.
    ///
    /// # Errors
    /// [`ManifestError`] that names the file and the field.
    pub fn load(path: &Path) -> Result<GuestManifest, ManifestError> {
        let unreadable = |source| ManifestError::Read { path: path.to_owned(), source };
        let mut text = String::new();
        let file = std::fs::File::open(path).map_err(unreadable)?;
        std::io::Read::read_to_string(&mut std::io::Read::take(file, LARGEST + 1), &mut text)
            .map_err(unreadable)?;
        if text.len() as u64 > LARGEST {
            return Err(ManifestError::TooLarge { path: path.to_owned() });
        }
        let absolute = std::path::absolute(path).map_err(unreadable)?;
        let directory = absolute.parent().unwrap_or(Path::new("/"));
        GuestManifest::parse(&text, directory)
            .map_err(|detail| ManifestError::Invalid { path: path.to_owned(), detail })
    }

    /// The same from text; relative paths are taken from `directory`.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn parse(text: &str, directory: &Path) -> Result<GuestManifest, String> {
        let file: File = toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())?;
        let within = |path: PathBuf| directory.join(path);
        // A bare name is looked up in PATH; anything else is a file.
        let program = |path: PathBuf| if path.components().count() == 1 { path } else { within(path) };
        let manifest = GuestManifest {
            firmware: within(file.firmware),
            kernel: within(file.kernel),
            initrd: within(file.initrd),
            append: file.append.unwrap_or_else(|| DEFAULT_APPEND.to_owned()),
            vcpus: file.vcpus.unwrap_or(1),
            memory_mib: file.memory_mib.unwrap_or(512),
            cpu_model: file.cpu_model,
            qemu: program(file.qemu.unwrap_or_else(|| PathBuf::from("qemu-system-x86_64"))),
            platform: match file.platform {
                PlatformTable::Snp { policy, cbitpos, reduced_phys_bits } => Platform::Snp {
                    policy: policy.unwrap_or(DEFAULT_SNP_POLICY),
                    cbitpos: cbitpos.unwrap_or(51),
                    reduced_phys_bits: reduced_phys_bits.unwrap_or(1),
                },
                PlatformTable::SnpEmulated { emulator, state, policy } => Platform::SnpEmulated {
                    emulator: program(emulator),
                    state: within(state),
                    policy: policy.unwrap_or(DEFAULT_SNP_POLICY),
                },
                PlatformTable::Sev { cbitpos, reduced_phys_bits } => {
                    Platform::Sev { es: false, cbitpos, reduced_phys_bits }
                }
                PlatformTable::SevEs { cbitpos, reduced_phys_bits } => {
                    Platform::Sev { es: true, cbitpos, reduced_phys_bits }
                }
                PlatformTable::SevEmulated { emulator, state } => {
                    Platform::SevEmulated { es: false, emulator: program(emulator), state: within(state) }
                }
                PlatformTable::SevEsEmulated { emulator, state } => {
                    Platform::SevEmulated { es: true, emulator: program(emulator), state: within(state) }
                }
                PlatformTable::None {} => Platform::None,
            },
        };
        manifest.check()?;
        Ok(manifest)
    }

    fn check(&self) -> Result<(), String> {
        if !(1..=255).contains(&self.vcpus) {
            return Err(format!("vcpus is {}; it must be 1 to 255", self.vcpus));
        }
        if !(128..=1024 * 1024).contains(&self.memory_mib) {
            return Err(format!("memory_mib is {}; it must be 128 to 1048576", self.memory_mib));
        }
        let name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if self.cpu_model.is_empty() || !self.cpu_model.chars().all(name) {
            return Err(format!("cpu_model {:?} is not a QEMU CPU name like EPYC-Milan", self.cpu_model));
        }
        if self.append.len() > 2047 || !self.append.chars().all(|c| matches!(c, ' '..='~')) {
            return Err("append must be at most 2047 printable ASCII characters in one line".to_owned());
        }
        Ok(())
    }

    /// Checks that every file it names can be opened.
    ///
    /// # Errors
    /// [`ManifestError::Missing`] for the first that can't.
    pub fn check_files(&self) -> Result<(), ManifestError> {
        let files = [("firmware", &self.firmware), ("kernel", &self.kernel), ("initrd", &self.initrd)];
        for (what, path) in files {
            std::fs::File::open(path).map_err(|source| ManifestError::Missing {
                what,
                path: path.clone(),
                source,
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        firmware = "firmware.fd"
        kernel = "/boot/bzImage"
        initrd = "out/test.cpio.gz"
        vcpus = 2
        cpu_model = "EPYC-Milan"
        [platform]
        kind = "snp-emulated"
        emulator = "bin/sealpod-emulator"
        state = "emulator"
    "#;

    #[test]
    fn relative_paths_are_taken_from_the_file() {
        let guest = GuestManifest::parse(GOOD, Path::new("/srv/guest")).unwrap();
        assert_eq!(guest.firmware, Path::new("/srv/guest/firmware.fd"));
        assert_eq!(guest.kernel, Path::new("/boot/bzImage"));
        assert_eq!(guest.append, DEFAULT_APPEND);
        assert_eq!((guest.vcpus, guest.memory_mib), (2, 512));
        assert_eq!(guest.qemu, Path::new("qemu-system-x86_64"));
        let Platform::SnpEmulated { emulator, state, policy } = guest.platform else { panic!() };
        assert_eq!(emulator, Path::new("/srv/guest/bin/sealpod-emulator"));
        assert_eq!(state, Path::new("/srv/guest/emulator"));
        assert_eq!(policy, DEFAULT_SNP_POLICY);
    }

    #[test]
    fn the_kinds_that_the_relay_launches() {
        let parse = |table: &str| {
            let (before, _) = GOOD.split_once("[platform]").unwrap();
            GuestManifest::parse(&format!("{before}[platform]\n{table}"), Path::new("/srv")).unwrap().platform
        };
        let sev = parse("kind = 'sev'");
        assert_eq!(sev, Platform::Sev { es: false, cbitpos: None, reduced_phys_bits: None });
        assert!(sev.encrypted());
        let es = parse("kind = 'sev-es'\ncbitpos = 47\nreduced_phys_bits = 5");
        assert_eq!(es, Platform::Sev { es: true, cbitpos: Some(47), reduced_phys_bits: Some(5) });
        for (kind, es) in [("sev-emulated", false), ("sev-es-emulated", true)] {
            let emulated = parse(&format!("kind = '{kind}'\nemulator = 'bin/emulator'\nstate = 's'"));
            assert!(!emulated.encrypted());
            assert_eq!(emulated.launched_by_relay(), Some(es));
            let Platform::SevEmulated { emulator, state, .. } = emulated else { panic!() };
            assert_eq!((emulator, state), ("/srv/bin/emulator".into(), "/srv/s".into()));
        }
        // The guest policy of these is the broker's, not the host's.
        let text = GOOD.replacen("snp-emulated", "sev-emulated", 1) + "policy = 1";
        assert!(GuestManifest::parse(&text, Path::new("/")).unwrap_err().contains("policy"));
    }

    #[test]
    fn a_bare_file_name_is_in_the_working_directory() {
        let error = GuestManifest::load(Path::new("no-such-guest.toml")).unwrap_err().to_string();
        assert!(error.contains("cannot read guest manifest no-such-guest.toml"), "{error}");
        // The crate's own manifest is TOML beside the tests' working directory: read, and not a guest.
        let error = GuestManifest::load(Path::new("Cargo.toml")).unwrap_err().to_string();
        assert!(error.contains("guest manifest Cargo.toml: "), "{error}");
    }

    #[test]
    fn each_mistake_is_named() {
        for (from, to, named) in [
            ("vcpus = 2", "vcpus = 0", "vcpus"),
            ("vcpus = 2", "memory_mib = 64", "memory_mib"),
            ("vcpus = 2", "vcpu = 2", "vcpu"),
            ("EPYC-Milan", "EPYC,host", "cpu_model"),
            ("vcpus = 2", "append = \"a\\nb\"", "append"),
            ("snp-emulated", "tdx", "tdx"),
            ("state = \"emulator\"", "state = \"emulator\"\npolicy2 = 1", "policy2"),
        ] {
            assert!(GOOD.contains(from));
            let error = GuestManifest::parse(&GOOD.replacen(from, to, 1), Path::new("/")).unwrap_err();
            assert!(error.contains(named), "{to}: {error}");
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let guest = GuestManifest::parse(GOOD, Path::new("/nonexistent")).unwrap();
        let error = guest.check_files().unwrap_err().to_string();
        assert!(error.contains("firmware /nonexistent/firmware.fd"), "{error}");
    }
}

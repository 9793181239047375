//! QEMU's command line as the caller wrote it: what the launch has to know of it, and the words that make it a SEV
//! guest's. Everything else is passed on untouched.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use serde_json::Value;
use thiserror::Error;

/// Name of our object; long enough not to be anybody else's.
const OBJECT: &str = "sealpod0";
/// Bit of the guest policy that asks for SEV-ES.
pub const POLICY_ES: u32 = 1 << 2;
/// Longest command line: words.
const MAX_WORDS: usize = 4096;

/// Options that take no value; every other one takes exactly one.
const FLAGS: &[&str] = &[
    "S",
    "daemonize",
    "enable-kvm",
    "enable-sync-profile",
    "full-screen",
    "mem-prealloc",
    "no-acpi",
    "no-fd-bootchk",
    "no-hpet",
    "no-reboot",
    "no-shutdown",
    "no-user-config",
    "nodefaults",
    "nographic",
    "only-migratable",
    "portrait",
    "s",
    "singlestep",
    "snapshot",
    "usb",
    "win2k-hack",
    "xen-attach",
    "xen-domid-restrict",
];
/// Options that only ask something: such a command line starts no guest.
const QUESTIONS: &[&str] = &["version", "h", "help", "audio-help"];
/// Options whose value can be `help`.
const ASKED: &[&str] =
    &["accel", "audiodev", "chardev", "cpu", "device", "display", "M", "machine", "netdev", "object"];
/// Objects for guests of another kind.
const OTHER_GUESTS: &[&str] = &["sev-snp-guest", "tdx-guest", "s390-pv-guest", "pef-guest"];

/// Why a command line can't be launched.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum CommandLineError {
    /// Longer than any real one.
    #[error("qemu's command line has more than {MAX_WORDS} words")]
    Long,
    /// The last option wants a value.
    #[error("qemu's option '{0}' has no value")]
    NoValue(String),
    /// A guest of another kind.
    #[error(
        "qemu's command line asks for a {0}; this wrapper launches SEV and SEV-ES guests only: turn the other kind off in Kata's configuration, or name the real QEMU there"
    )]
    OtherGuest(String),
    /// A guest that isn't started from its kernel.
    #[error("qemu's option '{0}' restores a guest; a SEV guest is launched from its firmware and kernel")]
    Restored(&'static str),
    /// QEMU's default firmware can't start a measured guest.
    #[error("qemu's command line names no firmware (-bios, -pflash); SEV guests need OVMF built for AmdSev")]
    NoFirmware,
    /// Nothing that the measurement covers.
    #[error(
        "qemu's command line names no kernel; a sealed pod's guest is started by -kernel, -initrd and -append"
    )]
    NoKernel,
}

/// A command line that starts a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandLine {
    /// Less what the wrapper replaces.
    words: Vec<OsString>,
    /// Files of its drives.
    pub drives: Vec<PathBuf>,
    /// The guest policy that it asked for.
    pub policy: Option<u32>,
    /// QEMU goes into the background once the guest is set up.
    pub daemonize: bool,
    /// The caller wants the guest paused.
    pub stopped: bool,
}

/// What makes the guest one of SEV.
#[derive(Debug)]
pub struct Object<'a> {
    /// Position of the C-bit.
    pub cbitpos: u32,
    /// Address bits taken away.
    pub reduced_phys_bits: u32,
    /// The guest policy.
    pub policy: u32,
    /// The broker's Diffie-Hellman certificate.
    pub godh: &'a Path,
    /// The session blob.
    pub session: &'a Path,
    /// Where the wrapper listens for QEMU's monitor.
    pub monitor: &'a Path,
}

/// Words of a QEMU without a guest, for asking about the platform.
#[must_use]
pub fn probe(monitor: &Path) -> Vec<OsString> {
    let words =
        ["-nodefaults", "-no-user-config", "-display", "none", "-machine", "none,accel=kvm", "-S", "-qmp"];
    words.into_iter().map(OsString::from).chain([value("unix:", monitor)]).collect()
}

impl CommandLine {
    /// Reads the caller's words; `None` where they only ask QEMU something.
    ///
    /// # Errors
    /// [`CommandLineError`].
    pub fn parse(words: Vec<OsString>) -> Result<Option<Self>, CommandLineError> {
        if words.len() > MAX_WORDS {
            return Err(CommandLineError::Long);
        }
        let mut line =
            Self { words: Vec::new(), drives: Vec::new(), policy: None, daemonize: false, stopped: false };
        let (mut firmware, mut kernel) = (false, false);
        let mut rest = words.into_iter();
        while let Some(word) = rest.next() {
            let Some(name) = option(&word) else {
                // A disk image without an option before it.
                line.drives.push(PathBuf::from(&word));
                line.words.push(word);
                continue;
            };
            if QUESTIONS.contains(&name.as_str()) {
                return Ok(None);
            }
            if FLAGS.contains(&name.as_str()) {
                match name.as_str() {
                    "S" => line.stopped = true,
                    "daemonize" => line.daemonize = true,
                    _ => {}
                }
                if name != "S" {
                    line.words.push(word);
                }
                continue;
            }
            let Some(value) = rest.next() else { return Err(CommandLineError::NoValue(name)) };
            if ASKED.contains(&name.as_str()) && asks(&value) {
                return Ok(None);
            }
            match name.as_str() {
                "incoming" => return Err(CommandLineError::Restored("incoming")),
                "loadvm" => return Err(CommandLineError::Restored("loadvm")),
                "bios" | "pflash" => firmware = true,
                "kernel" => kernel = true,
                "drive" => firmware |= line.drive(&value),
                "blockdev" => line.block_device(&value),
                "object" if line.object(&value)? => continue,
                "machine" | "M" => {
                    let Some(value) = machine(&value, &mut firmware) else { continue };
                    line.words.extend([word, value]);
                    continue;
                }
                _ => {}
            }
            line.words.extend([word, value]);
        }
        match (firmware, kernel) {
            (false, _) => Err(CommandLineError::NoFirmware),
            (_, false) => Err(CommandLineError::NoKernel),
            _ => Ok(Some(line)),
        }
    }

    /// The caller's words and ours.
    #[must_use]
    pub fn launch(&self, object: &Object<'_>) -> Vec<OsString> {
        let Object { cbitpos, reduced_phys_bits, policy, .. } = object;
        let mut sev = OsString::from(format!(
            "sev-guest,id={OBJECT},cbitpos={cbitpos},reduced-phys-bits={reduced_phys_bits},policy={policy:#x},"
        ));
        sev.push(value("dh-cert-file=", object.godh));
        sev.push(value(",session-file=", object.session));
        sev.push(",kernel-hashes=on");
        let mut words = self.words.clone();
        words.extend(["-S".into(), "-object".into(), sev, "-machine".into()]);
        words.extend([format!("confidential-guest-support={OBJECT}").into(), "-qmp".into()]);
        words.push(value("unix:", object.monitor));
        words
    }

    /// Notes a drive's file; true if it is the firmware.
    fn drive(&mut self, value: &OsStr) -> bool {
        let pairs = pairs(value.as_bytes());
        if let Some(file) = find(&pairs, "file") {
            self.drives.push(PathBuf::from(OsStr::from_bytes(file)));
        }
        find(&pairs, "if") == Some(b"pflash")
    }

    fn block_device(&mut self, value: &OsStr) {
        let file = if value.as_bytes().starts_with(b"{") {
            let json: Value = serde_json::from_slice(value.as_bytes()).unwrap_or_default();
            let name = json.get("filename").or_else(|| json.get("file")?.get("filename"));
            name.and_then(Value::as_str).map(PathBuf::from)
        } else {
            let pairs = pairs(value.as_bytes());
            let name = find(&pairs, "filename").or_else(|| find(&pairs, "file.filename"));
            name.map(|name| PathBuf::from(OsStr::from_bytes(name)))
        };
        self.drives.extend(file);
    }

    /// True if the object is a SEV guest's, which ours replaces.
    fn object(&mut self, value: &OsStr) -> Result<bool, CommandLineError> {
        let (kind, policy) = if value.as_bytes().starts_with(b"{") {
            let json: Value = serde_json::from_slice(value.as_bytes()).unwrap_or_default();
            let kind = json.get("qom-type").and_then(Value::as_str).unwrap_or_default().to_owned();
            (kind, json.get("policy").and_then(Value::as_u64).and_then(|policy| policy.try_into().ok()))
        } else {
            let pairs = pairs(value.as_bytes());
            let kind = match pairs.first() {
                Some((kind, None)) => String::from_utf8_lossy(kind).into_owned(),
                _ => String::from_utf8_lossy(find(&pairs, "qom-type").unwrap_or_default()).into_owned(),
            };
            (kind, find(&pairs, "policy").and_then(number))
        };
        if OTHER_GUESTS.contains(&kind.as_str()) {
            return Err(CommandLineError::OtherGuest(kind));
        }
        if kind != "sev-guest" {
            return Ok(false);
        }
        self.policy = policy.or(self.policy);
        Ok(true)
    }
}

/// The name of an option: QEMU takes one dash or two.
fn option(word: &OsStr) -> Option<String> {
    let bytes = word.as_bytes().strip_prefix(b"-")?;
    let bytes = bytes.strip_prefix(b"-").unwrap_or(bytes);
    Some(String::from_utf8_lossy(bytes).into_owned())
}

fn asks(value: &OsStr) -> bool {
    let help = |name: &[u8]| matches!(name, b"help" | b"?");
    pairs(value.as_bytes()).iter().any(|(name, value)| value.is_none() && help(name))
}

/// Less what names the object that ours replaces; `None` if nothing else was there.
fn machine(value: &OsStr, firmware: &mut bool) -> Option<OsString> {
    let pairs = pairs(value.as_bytes());
    *firmware |= find(&pairs, "pflash0").is_some();
    let ours = |name: &[u8]| matches!(name, b"confidential-guest-support" | b"memory-encryption");
    if !pairs.iter().any(|(name, _)| ours(name)) {
        return Some(value.to_owned());
    }
    let mut kept = Vec::new();
    for (name, value) in pairs.iter().filter(|(name, _)| !ours(name)) {
        if !kept.is_empty() {
            kept.push(b',');
        }
        escape(name, &mut kept);
        if let Some(value) = value {
            kept.push(b'=');
            escape(value, &mut kept);
        }
    }
    (!kept.is_empty()).then(|| OsString::from_vec(kept))
}

type Pair = (Vec<u8>, Option<Vec<u8>>);

/// QEMU's option syntax: `name=value` or a bare word, between commas; two commas are one in a value.
fn pairs(text: &[u8]) -> Vec<Pair> {
    let mut pairs: Vec<Pair> = Vec::new();
    let mut current = Vec::new();
    let mut bytes = text.iter().copied().peekable();
    let mut finish = |part: Vec<u8>| {
        let split = part.iter().position(|byte| *byte == b'=');
        pairs.push(match split {
            Some(at) => (part[..at].to_vec(), Some(part[at + 1..].to_vec())),
            None => (part, None),
        });
    };
    while let Some(byte) = bytes.next() {
        if byte != b',' {
            current.push(byte);
        } else if bytes.next_if_eq(&b',').is_some() {
            current.push(b',');
        } else {
            finish(std::mem::take(&mut current));
        }
    }
    finish(current);
    pairs
}

fn find<'a>(pairs: &'a [Pair], name: &str) -> Option<&'a [u8]> {
    // The last one counts.
    pairs.iter().rev().find(|(key, _)| key == name.as_bytes()).and_then(|(_, value)| value.as_deref())
}

fn number(text: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(text).ok()?;
    match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

fn escape(text: &[u8], out: &mut Vec<u8>) {
    for byte in text {
        out.push(*byte);
        if *byte == b',' {
            out.push(b',');
        }
    }
}

fn value(prefix: &str, path: &Path) -> OsString {
    let mut bytes = prefix.as_bytes().to_vec();
    escape(path.as_os_str().as_bytes(), &mut bytes);
    OsString::from_vec(bytes)
}

#[cfg(test)]
#[path = "command_line_tests.rs"]
mod tests;

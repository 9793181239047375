//! QEMU's command line: what of it an SEV launch is made of, and what is left for a QEMU without SEV.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// A command line taken apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CommandLine {
    /// The guest's SEV object.
    pub guest: Option<SevObject>,
    /// Monitors by unix socket, in their order.
    pub monitors: Vec<Monitor>,
    /// `-S`: nothing runs before `cont`.
    pub paused: bool,
    /// `-machine none`: nothing ever runs, the monitor alone is wanted.
    pub probe: bool,
    /// `-bios`.
    pub firmware: Option<PathBuf>,
    /// `-kernel`.
    pub kernel: Option<PathBuf>,
    /// `-initrd`.
    pub initrd: Option<PathBuf>,
    /// `-append`.
    pub append: Option<OsString>,
    /// `-smp`, 1 if it isn't there.
    pub vcpus: u32,
    /// The words for a QEMU without SEV.
    pub rest: Vec<OsString>,
}

/// `-object sev-guest,…`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SevObject {
    /// `policy=`; QEMU's default is 1.
    pub policy: u32,
    /// `dh-cert-file=`.
    pub dh_cert_file: Option<PathBuf>,
    /// `session-file=`.
    pub session_file: Option<PathBuf>,
    /// `kernel-hashes=`.
    pub kernel_hashes: bool,
}

/// `-qmp unix:PATH[,server=on][,wait=off]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Monitor {
    /// The socket.
    pub path: PathBuf,
    /// QEMU listens there; else it connects.
    pub listens: bool,
}

/// A command line that this program can't act on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WordsError {
    /// An option without its value.
    #[error("option {0} has no value")]
    Value(String),
    /// A value that is none.
    #[error("{option}: {value:?} is not {expected}")]
    Unreadable {
        /// The option.
        option: &'static str,
        /// Its value.
        value: String,
        /// What would be one.
        expected: &'static str,
    },
    /// SEV without the object, or the object twice.
    #[error("{0}")]
    Guest(&'static str),
}

impl CommandLine {
    /// Reads the words after the program's name.
    pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Self, WordsError> {
        let mut out = Self { vcpus: 1, ..Self::default() };
        let mut words = words.into_iter();
        let mut confidential = false;
        while let Some(word) = words.next() {
            let name = word.to_string_lossy().into_owned();
            let option = name.strip_prefix("--").map(|name| format!("-{name}")).unwrap_or(name);
            let mut value = || words.next().ok_or_else(|| WordsError::Value(option.clone()));
            match option.as_str() {
                "-S" => out.paused = true,
                "-object" => {
                    let value = value()?;
                    match object(&value)? {
                        Some(_) if out.guest.is_some() => {
                            return Err(WordsError::Guest("there are two sev-guest objects"));
                        }
                        Some(guest) => out.guest = Some(guest),
                        None => out.rest.extend([word, value]),
                    }
                }
                "-machine" | "-M" => {
                    let value = value()?;
                    let mut parts = split(&value);
                    let before = parts.len();
                    parts.retain(|(key, _)| {
                        !["confidential-guest-support", "memory-encryption"].contains(&key.as_str())
                    });
                    confidential |= parts.len() != before;
                    out.probe |= parts.first().is_some_and(|(key, value)| key == "none" && value.is_none());
                    if !parts.is_empty() {
                        out.rest.extend([word, join(&parts)]);
                    }
                }
                "-qmp" => {
                    let value = value()?;
                    match monitor(&value) {
                        Some(monitor) => {
                            // Who listens for QEMU has it all before `cont`; who connects to it, after.
                            if monitor.listens {
                                out.rest.extend([word, value]);
                            }
                            out.monitors.push(monitor);
                        }
                        None => out.rest.extend([word, value]),
                    }
                }
                "-bios" => out.firmware = Some(value()?.into()),
                "-smp" => {
                    let value = value()?;
                    out.vcpus = vcpus(&value)?;
                    out.rest.extend([word, value]);
                }
                "-kernel" | "-initrd" | "-append" => {
                    let value = value()?;
                    match option.as_str() {
                        "-kernel" => out.kernel = Some(value.clone().into()),
                        "-initrd" => out.initrd = Some(value.clone().into()),
                        _ => out.append = Some(value.clone()),
                    }
                    out.rest.extend([word, value]);
                }
                _ => out.rest.push(word),
            }
        }
        match (confidential, &out.guest) {
            (true, None) => Err(WordsError::Guest(
                "-machine names a confidential guest, and no sev-guest object is there",
            )),
            (false, Some(_)) => Err(WordsError::Guest(
                "a sev-guest object is there, and -machine names no confidential-guest-support",
            )),
            _ => Ok(out),
        }
    }
}

fn object(value: &OsStr) -> Result<Option<SevObject>, WordsError> {
    let parts = split(value);
    if parts.first().is_none_or(|(key, value)| key != "sev-guest" || value.is_some()) {
        return Ok(None);
    }
    let mut guest = SevObject { policy: 1, dh_cert_file: None, session_file: None, kernel_hashes: false };
    for (key, value) in &parts[1..] {
        let value = value.clone().unwrap_or_default();
        match key.as_str() {
            "policy" => guest.policy = number(&value)?,
            "dh-cert-file" => guest.dh_cert_file = Some(value.into()),
            "session-file" => guest.session_file = Some(value.into()),
            "kernel-hashes" => guest.kernel_hashes = value == "on",
            _ => {}
        }
    }
    Ok(Some(guest))
}

fn number(value: &OsStr) -> Result<u32, WordsError> {
    let text = value.to_string_lossy();
    let number = match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    number.map_err(|_| WordsError::Unreadable {
        option: "-object sev-guest,policy=",
        value: text.into_owned(),
        expected: "a number",
    })
}

fn vcpus(value: &OsStr) -> Result<u32, WordsError> {
    let parts = split(value);
    let count = parts.iter().enumerate().find_map(|(index, (key, value))| match value {
        None if index == 0 => Some(key.clone()),
        Some(value) if key == "cpus" => Some(value.to_string_lossy().into_owned()),
        _ => None,
    });
    count.and_then(|count| count.parse().ok()).ok_or_else(|| WordsError::Unreadable {
        option: "-smp",
        value: value.to_string_lossy().into_owned(),
        expected: "a number of processors",
    })
}

fn monitor(value: &OsStr) -> Option<Monitor> {
    let parts = split(value);
    let (first, None) = parts.first()? else { return None };
    let path = first.strip_prefix("unix:")?;
    let on = |value: &Option<OsString>| value.as_deref().is_none_or(|value| value == "on");
    let listens = parts[1..].iter().any(|(key, value)| key == "server" && on(value));
    Some(Monitor { path: path.into(), listens })
}

/// QEMU's option syntax: parts between commas, a comma in a value written twice.
fn split(value: &OsStr) -> Vec<(String, Option<OsString>)> {
    let mut parts = Vec::new();
    let mut part = Vec::new();
    let bytes = value.as_bytes();
    let mut at = 0;
    while at <= bytes.len() {
        match (bytes.get(at), bytes.get(at + 1)) {
            (Some(b','), Some(b',')) => {
                part.push(b',');
                at += 1;
            }
            (Some(b',') | None, _) => {
                let part = std::mem::take(&mut part);
                parts.push(match part.iter().position(|byte| *byte == b'=') {
                    Some(sign) => (
                        String::from_utf8_lossy(&part[..sign]).into_owned(),
                        Some(OsString::from_vec(part[sign + 1..].to_vec())),
                    ),
                    None => (String::from_utf8_lossy(&part).into_owned(), None),
                });
            }
            (Some(byte), _) => part.push(*byte),
        }
        at += 1;
    }
    parts
}

fn join(parts: &[(String, Option<OsString>)]) -> OsString {
    let mut out = Vec::new();
    for (index, (key, value)) in parts.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(key.as_bytes());
        if let Some(value) = value {
            out.push(b'=');
            for byte in value.as_bytes() {
                out.push(*byte);
                if *byte == b',' {
                    out.push(b',');
                }
            }
        }
    }
    OsString::from_vec(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<CommandLine, WordsError> {
        CommandLine::parse(words.iter().map(OsString::from))
    }

    const LAUNCH: [&str; 25] = [
        "-nodefaults",
        "-machine",
        "q35,accel=tcg,memory-backend=memory",
        "-qmp",
        "unix:/run/kata/qmp.sock,server=on,wait=off",
        "-smp",
        "2,cores=1,maxcpus=4",
        "-kernel",
        "/k",
        "-initrd",
        "/i",
        "-append",
        "console=ttyS0 quiet",
        "-bios",
        "/f",
        "-S",
        "-object",
        "sev-guest,id=s,cbitpos=51,reduced-phys-bits=1,policy=0x5,dh-cert-file=/d,,h,session-file=/s,kernel-hashes=on",
        "-machine",
        "confidential-guest-support=s",
        "-qmp",
        "unix:/run/relay.sock",
        "-object",
        "memory-backend-memfd,id=memory,size=512M,share=on",
        "-no-reboot",
    ];

    #[test]
    fn a_launch_is_told_from_what_qemu_gets() {
        let line = parse(&LAUNCH).unwrap();
        let guest = line.guest.unwrap();
        assert_eq!((guest.policy, guest.kernel_hashes), (5, true));
        assert_eq!(guest.dh_cert_file, Some("/d,h".into()), "a comma is written twice");
        assert_eq!(guest.session_file, Some("/s".into()));
        assert!(line.paused && !line.probe);
        assert_eq!(line.vcpus, 2);
        assert_eq!(line.firmware, Some("/f".into()));
        assert_eq!(line.append.unwrap(), "console=ttyS0 quiet");
        assert_eq!(
            line.monitors,
            [
                Monitor { path: "/run/kata/qmp.sock".into(), listens: true },
                Monitor { path: "/run/relay.sock".into(), listens: false }
            ]
        );
        let rest: Vec<_> = line.rest.iter().map(|word| word.to_str().unwrap()).collect();
        assert_eq!(
            rest,
            [
                "-nodefaults",
                "-machine",
                "q35,accel=tcg,memory-backend=memory",
                "-qmp",
                "unix:/run/kata/qmp.sock,server=on,wait=off",
                "-smp",
                "2,cores=1,maxcpus=4",
                "-kernel",
                "/k",
                "-initrd",
                "/i",
                "-append",
                "console=ttyS0 quiet",
                "-object",
                "memory-backend-memfd,id=memory,size=512M,share=on",
                "-no-reboot",
            ]
        );
    }

    #[test]
    fn a_probe_has_no_guest() {
        let line =
            parse(&["-display", "none", "-machine", "none,accel=kvm", "-S", "-qmp", "unix:/p"]).unwrap();
        assert!(line.probe && line.paused && line.guest.is_none());
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (words, part) in [
            (&["-object", "sev-guest,id=s"][..], "names no confidential-guest-support"),
            (&["-machine", "q35,confidential-guest-support=s"], "no sev-guest object"),
            (&["-object", "sev-guest", "-object", "sev-guest"], "two sev-guest"),
            (&["-object", "sev-guest,policy=five"], "not a number"),
            (&["-smp", "many"], "number of processors"),
            (&["-bios"], "-bios has no value"),
        ] {
            let message = parse(words).unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        }
    }
}

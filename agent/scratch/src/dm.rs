//! Device-mapper by ioctl on `/dev/mapper/control` (`linux/dm-ioctl.h`, interface version 4): make a device, load a
//! table, read back what the kernel made of it, take it into use, remove it.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;

use zeroize::Zeroize as _;

use crate::error::{Result, ScratchError};
use crate::sys;

const CONTROL: &str = "/dev/mapper/control";
/// Of a volume; its layers' names are a few bytes longer. Device-mapper's own limit is 127.
pub(crate) const LONGEST_NAME: usize = 96;
/// A table of ours with its answer: a few hundred bytes.
const BUFFER: usize = 8 * 1024;
const TARGET_HEADER: usize = 40;
const LARGEST_ANSWER: usize = 4 * 1024;

const DEV_CREATE: u8 = 3;
const DEV_REMOVE: u8 = 4;
const DEV_SUSPEND: u8 = 6;
const TABLE_LOAD: u8 = 9;
const TABLE_STATUS: u8 = 12;

const STATUS_TABLE: u32 = 1 << 4;
const BUFFER_FULL: u32 = 1 << 8;
const QUERY_INACTIVE: u32 = 1 << 12;
const SECURE_DATA: u32 = 1 << 15;
const DEFERRED_REMOVE: u32 = 1 << 17;

/// One line of a table, sectors of 512 bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) start: u64,
    pub(crate) length: u64,
    pub(crate) kind: &'static str,
    pub(crate) parameters: String,
}

/// The device-mapper of this guest.
pub(crate) struct Control(File);

impl Control {
    pub(crate) fn open(volume: &str) -> Result<Control> {
        let opened = File::options().read(true).write(true).open(CONTROL);
        let step = "be opened (/dev/mapper/control); is it in this kernel?";
        opened.map(Control).map_err(|source| ScratchError::Mapper { volume: volume.to_owned(), step, source })
    }

    /// Makes device `name` with `targets`; `accepted` judges the kernel's own words for each target before the device
    /// is taken into use. Nothing is left behind on error.
    pub(crate) fn make(
        &self,
        name: &str,
        targets: &[Target],
        accepted: impl Fn(&Target, &Target) -> bool,
    ) -> Result<Device> {
        let failed = |step| move |source| ScratchError::Mapper { volume: name.to_owned(), step, source };
        let answer = self.call(DEV_CREATE, name, 0, &[]).map_err(failed("make the device"))?;
        let device = Device { name: name.to_owned(), number: answer.number };
        let loaded = (|| {
            self.call(TABLE_LOAD, name, SECURE_DATA, targets).map_err(failed("load its table"))?;
            let answer = self
                .call(TABLE_STATUS, name, STATUS_TABLE | QUERY_INACTIVE, &[])
                .map_err(failed("read its table back"))?;
            let same = answer.targets.len() == targets.len()
                && targets.iter().zip(&answer.targets).all(|(asked, found)| {
                    (asked.start, asked.length, asked.kind) == (found.start, found.length, found.kind)
                        && accepted(asked, found)
                });
            if !same {
                let target = targets.first().map_or("empty", |target| target.kind);
                return Err(ScratchError::Table { volume: name.to_owned(), target });
            }
            self.call(DEV_SUSPEND, name, 0, &[]).map_err(failed("take its table into use"))
        })();
        match loaded {
            Ok(_) => Ok(device),
            Err(error) => {
                // The first error is the one to tell; what can't be removed stays unused.
                let _ = self.call(DEV_REMOVE, name, 0, &[]);
                Err(error)
            }
        }
    }

    /// Removes a device that nobody has open.
    pub(crate) fn remove(&self, device: &Device) -> Result<()> {
        let step = "remove the device; is it still mounted?";
        self.call(DEV_REMOVE, &device.name, 0, &[]).map(drop).map_err(|source| ScratchError::Mapper {
            volume: device.name.clone(),
            step,
            source,
        })
    }

    /// Removes a device as soon as nobody has it open any more.
    pub(crate) fn remove_when_unused(&self, device: &Device) {
        // Only used where nobody could be told.
        let _ = self.call(DEV_REMOVE, &device.name, DEFERRED_REMOVE, &[]);
    }

    fn call(&self, command: u8, name: &str, flags: u32, targets: &[Target]) -> io::Result<Answer> {
        let mut buffer = encode(name, flags, targets)?;
        let outcome = sys::device_mapper(self.0.as_fd(), command, &mut buffer);
        let answer = outcome.and_then(|()| decode(&buffer, command == TABLE_STATUS));
        buffer.zeroize();
        answer
    }
}

/// A device that was made.
#[derive(Debug)]
pub(crate) struct Device {
    name: String,
    /// Major and minor.
    number: (u32, u32),
}

impl Device {
    /// As tables name devices.
    pub(crate) fn numbers(&self) -> String {
        format!("{}:{}", self.number.0, self.number.1)
    }

    /// The node that devtmpfs makes.
    pub(crate) fn node(&self) -> std::path::PathBuf {
        format!("/dev/dm-{}", self.number.1).into()
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Answer {
    number: (u32, u32),
    targets: Vec<Target>,
}

/// Whether `name` can be a volume's.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if name.is_empty() || name.len() > LONGEST_NAME || !name.bytes().all(fine) {
        return Err(ScratchError::Name { length: name.len() });
    }
    Ok(())
}

fn encode(name: &str, flags: u32, targets: &[Target]) -> io::Result<Vec<u8>> {
    let too_long = || io::Error::from(io::ErrorKind::InvalidInput);
    let mut buffer = vec![0; BUFFER];
    buffer[0..4].copy_from_slice(&4u32.to_ne_bytes());
    put(&mut buffer, 12, BUFFER as u32);
    put(&mut buffer, 16, sys::DM_HEADER as u32);
    put(&mut buffer, 20, u32::try_from(targets.len()).map_err(|_| too_long())?);
    put(&mut buffer, 28, flags);
    if name.len() > 127 || name.contains('\0') {
        return Err(too_long());
    }
    buffer[48..48 + name.len()].copy_from_slice(name.as_bytes());
    let mut at = sys::DM_HEADER;
    for target in targets {
        // Its parameters end with a zero byte, and the next one is aligned.
        let size = (TARGET_HEADER + target.parameters.len() + 1).next_multiple_of(8);
        let room = buffer.get_mut(at..at + size).ok_or_else(too_long)?;
        room[0..8].copy_from_slice(&target.start.to_ne_bytes());
        room[8..16].copy_from_slice(&target.length.to_ne_bytes());
        put(room, 20, size as u32);
        room[24..24 + target.kind.len()].copy_from_slice(target.kind.as_bytes());
        room[TARGET_HEADER..TARGET_HEADER + target.parameters.len()]
            .copy_from_slice(target.parameters.as_bytes());
        at += size;
    }
    Ok(buffer)
}

/// Only the status command answers with targets.
fn decode(buffer: &[u8], with_targets: bool) -> io::Result<Answer> {
    let broken = || io::Error::new(io::ErrorKind::InvalidData, "its answer makes no sense");
    let word = |at: usize| u32_at(buffer, at).ok_or_else(broken);
    if word(28)? & BUFFER_FULL != 0 {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "its answer is too long"));
    }
    let device = u64_at(buffer, 40).ok_or_else(broken)?;
    // The kernel's huge_encode_dev.
    let number = (((device & 0xf_ff00) >> 8) as u32, ((device & 0xff) | ((device >> 12) & 0xf_ff00)) as u32);
    let mut targets = Vec::new();
    let data = buffer.get(sys::DM_HEADER..).ok_or_else(broken)?;
    let mut at = 0usize;
    let count = if with_targets { word(20)?.min(8) } else { 0 };
    for _ in 0..count {
        let target = data.get(at..).filter(|rest| rest.len() > TARGET_HEADER).ok_or_else(broken)?;
        let kind = match text(&target[24..TARGET_HEADER]) {
            Some("linear") => "linear",
            Some("integrity") => "integrity",
            Some("crypt") => "crypt",
            _ => return Err(broken()),
        };
        let bounded = &target[TARGET_HEADER..target.len().min(TARGET_HEADER + LARGEST_ANSWER)];
        targets.push(Target {
            start: u64_at(target, 0).ok_or_else(broken)?,
            length: u64_at(target, 8).ok_or_else(broken)?,
            kind,
            parameters: text(bounded).ok_or_else(broken)?.trim_end().to_owned(),
        });
        // In an answer `next` counts from the start of the data, in a request from the target itself.
        let next = u32_at(target, 20).ok_or_else(broken)? as usize;
        if next <= at {
            break;
        }
        at = next;
    }
    Ok(Answer { number, targets })
}

/// Up to the zero byte, which must be there.
fn text(bytes: &[u8]) -> Option<&str> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    std::str::from_utf8(&bytes[..end]).ok()
}

fn put(buffer: &mut [u8], at: usize, value: u32) {
    buffer[at..at + 4].copy_from_slice(&value.to_ne_bytes());
}

fn u32_at(buffer: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(buffer.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(buffer: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(buffer.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn linear(start: u64, parameters: &str) -> Target {
        Target { start, length: 8, kind: "linear", parameters: parameters.to_owned() }
    }

    #[test]
    fn a_request_is_laid_out_as_the_kernel_reads_it() {
        let buffer = encode("a.b", SECURE_DATA, &[linear(0, "7:0 0"), linear(8, "254:16 0")]).unwrap();
        assert_eq!(buffer[0..12], [4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(u32_at(&buffer, 12), Some(BUFFER as u32));
        assert_eq!(u32_at(&buffer, 16), Some(312));
        assert_eq!(u32_at(&buffer, 20), Some(2));
        assert_eq!(text(&buffer[48..]), Some("a.b"));
        assert_eq!(u32_at(&buffer, 312 + 20), Some(48));
        assert_eq!(text(&buffer[312 + 24..]), Some("linear"));
        assert_eq!(text(&buffer[312 + 40..]), Some("7:0 0"));
        assert_eq!(u64_at(&buffer, 312 + 48), Some(8));
        assert_eq!(text(&buffer[312 + 48 + 40..]), Some("254:16 0"));
    }

    #[test]
    fn what_does_not_fit_is_refused_before_the_kernel() {
        assert!(encode(&"n".repeat(128), 0, &[]).is_err());
        assert!(encode("n", 0, &[linear(0, &"p".repeat(BUFFER))]).is_err());
        for bad in ["", "a b", "a/b", "a\0", "ä", &"n".repeat(97)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
        check_name("pod-1_data.0").unwrap();
    }

    #[test]
    fn an_answer_is_read_within_its_bounds() {
        let mut buffer = encode("n", 0, &[linear(0, "7:0 0"), linear(8, "254:16 0")]).unwrap();
        // minor 300 of major 253, as huge_encode_dev has it
        buffer[40..48].copy_from_slice(&((253u64 << 8) | (300 & 0xff) | ((300 & !0xff) << 12)).to_ne_bytes());
        let answer = decode(&buffer, true).unwrap();
        assert_eq!(answer.number, (253, 300));
        assert_eq!(answer.targets, [linear(0, "7:0 0"), linear(8, "254:16 0")]);
        for (at, bytes) in [
            (312 + 24, *b"null"),                              // another target
            (312 + 20, (BUFFER as u32).to_ne_bytes()),         // the next one lies outside
            (312 + 20, ((BUFFER - 320) as u32).to_ne_bytes()), // or is cut off
        ] {
            let mut bad = buffer.clone();
            bad[at..at + 4].copy_from_slice(&bytes);
            assert!(decode(&bad, true).is_err(), "{at}");
        }
        put(&mut buffer, 28, BUFFER_FULL);
        assert!(decode(&buffer, true).is_err());
        assert!(decode(&buffer[..100], true).is_err());
    }
}

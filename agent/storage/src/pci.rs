//! PCI devices as the runtime names them: the way from the root complex, slot by slot (`02/03`).

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

const MAX_DEPTH: usize = 8;
/// Root complexes of NUMA expander bridges begin here; below, a first segment is a slot.
const FIRST_EXPANDER: u8 = 0x20;

/// A slot and function, as `03` or `03.1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct SlotFunction {
    slot: u8,
    function: u8,
}

/// The way to a device: slots of the bridges, then of the device.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PciPath {
    root: u8,
    slots: Vec<SlotFunction>,
}

/// Where a device is, as `0000:00:02.0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PciAddress {
    domain: u16,
    bus: u8,
    slot: u8,
    function: u8,
}

/// Not an address, or not a path, of PCI devices.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a PCI {1}")]
pub struct PciError(String, &'static str);

impl FromStr for SlotFunction {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (slot, function) = text.split_once('.').unwrap_or((text, "0"));
        let slot = hex(slot, 2).ok_or(())?;
        let function = hex(function, 1).ok_or(())?;
        if slot > 0x1f || function > 7 {
            return Err(());
        }
        Ok(Self { slot, function })
    }
}

/// At most `digits` lower- or upper-case hex digits, no sign.
fn hex(text: &str, digits: usize) -> Option<u8> {
    if text.is_empty() || text.len() > digits || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    u8::from_str_radix(text, 16).ok()
}

impl FromStr for PciPath {
    type Err = PciError;

    fn from_str(text: &str) -> Result<Self, PciError> {
        let wrong = || PciError(crate::error::clip(text), "path (slots as 02/03)");
        let mut segments: Vec<&str> = text.split('/').collect();
        let mut root = 0;
        if segments.len() >= 3
            && let Some(bus) = segments.first().and_then(|first| hex(first, 2))
            && bus >= FIRST_EXPANDER
        {
            root = bus;
            segments.remove(0);
        }
        if segments.len() > MAX_DEPTH {
            return Err(wrong());
        }
        let slots: Result<Vec<_>, ()> = segments.into_iter().map(str::parse).collect();
        Ok(Self { root, slots: slots.map_err(|()| wrong())? })
    }
}

impl fmt::Display for PciPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.root != 0 {
            write!(f, "{:02x}/", self.root)?;
        }
        for (at, slot) in self.slots.iter().enumerate() {
            let slash = if at == 0 { "" } else { "/" };
            write!(f, "{slash}{:02x}", slot.slot)?;
            if slot.function != 0 {
                write!(f, ".{}", slot.function)?;
            }
        }
        Ok(())
    }
}

impl FromStr for PciAddress {
    type Err = PciError;

    fn from_str(text: &str) -> Result<Self, PciError> {
        let parse = || {
            let (head, function) = text.rsplit_once('.')?;
            let mut parts = head.rsplit(':');
            let slot = hex(parts.next()?, 2)?;
            let bus = hex(parts.next()?, 2)?;
            let domain = match parts.next() {
                None => 0,
                Some(domain) if domain.len() == 4 && domain.bytes().all(|b| b.is_ascii_hexdigit()) => {
                    u16::from_str_radix(domain, 16).ok()?
                }
                Some(_) => return None,
            };
            let function = hex(function, 1)?;
            (parts.next().is_none() && slot <= 0x1f && function <= 7).then_some(Self {
                domain,
                bus,
                slot,
                function,
            })
        };
        parse().ok_or_else(|| PciError(crate::error::clip(text), "address (as 0000:00:02.0)"))
    }
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:02x}:{:02x}.{:x}", self.domain, self.bus, self.slot, self.function)
    }
}

impl PciPath {
    /// From plain slot numbers (AddSwap).
    pub fn from_slots(slots: &[u32]) -> Result<Self, PciError> {
        let wrong = || PciError(format!("{slots:?}"), "path (slots below 32)");
        if slots.is_empty() || slots.len() > MAX_DEPTH {
            return Err(wrong());
        }
        let slots = slots.iter().map(|slot| match u8::try_from(*slot) {
            Ok(slot @ 0..=0x1f) => Ok(SlotFunction { slot, function: 0 }),
            _ => Err(wrong()),
        });
        Ok(Self { root: 0, slots: slots.collect::<Result<_, _>>()? })
    }

    /// The device's directory in sysfs, if every bridge on the way and the device are there.
    pub(crate) fn find(&self, sys: &Path) -> Option<(PathBuf, PciAddress)> {
        let mut directory = sys.join(format!("devices/pci0000:{:02x}", self.root));
        let mut bus = format!("0000:{:02x}", self.root);
        for (at, slot) in self.slots.iter().enumerate() {
            let address = format!("{bus}:{:02x}.{}", slot.slot, slot.function);
            directory.push(&address);
            if !directory.is_dir() {
                return None;
            }
            if at + 1 == self.slots.len() {
                return Some((directory, address.parse().ok()?));
            }
            bus = only_entry(&directory.join("pci_bus"))?;
        }
        None
    }
}

/// A bridge has exactly one bus behind it.
fn only_entry(directory: &Path) -> Option<String> {
    let mut entries = fs::read_dir(directory).ok()?;
    let name = entries.next()?.ok()?.file_name().into_string().ok()?;
    entries.next().is_none().then_some(name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_are_read_and_written() {
        for path in ["02", "02/03", "1f.7/00", "20/00/02"] {
            assert_eq!(path.parse::<PciPath>().unwrap().to_string(), path);
        }
        // Below an expander's bus number the first segment is a slot like the others.
        assert_eq!("02/00/01".parse::<PciPath>().unwrap().root, 0);
        assert_eq!("20/00/02".parse::<PciPath>().unwrap().root, 0x20);
        for wrong in
            ["", "/", "02/", "20", "20/01", "+2", "02.8", "0002", "02/../03", "0x2", "a/b/c/d/e/f/1/2/3"]
        {
            assert!(wrong.parse::<PciPath>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn addresses_are_read_and_written() {
        assert_eq!("0000:01:1f.7".parse::<PciAddress>().unwrap().to_string(), "0000:01:1f.7");
        assert_eq!("01:02.0".parse::<PciAddress>().unwrap().to_string(), "0000:01:02.0");
        for wrong in ["", "0:0", "0000:01:20.0", "0000:01:02.8", "1:0000:01:02.0", "000:01:02.0", "01:02"] {
            assert!(wrong.parse::<PciAddress>().is_err(), "{wrong}");
        }
        assert!(PciPath::from_slots(&[2, 3]).is_ok());
        assert!(PciPath::from_slots(&[32]).is_err() && PciPath::from_slots(&[]).is_err());
    }

    #[test]
    fn a_device_behind_a_bridge_is_found() {
        let sys = tempfile::tempdir().unwrap();
        let bridge = sys.path().join("devices/pci0000:00/0000:00:02.0");
        let device = bridge.join("0000:01:03.0");
        fs::create_dir_all(&device).unwrap();
        let path: PciPath = "02/03".parse().unwrap();
        assert!(path.find(sys.path()).is_none());
        fs::create_dir_all(bridge.join("pci_bus/0000:01")).unwrap();
        assert_eq!(path.find(sys.path()).unwrap(), (device, "0000:01:03.0".parse().unwrap()));
        // Two buses behind one bridge: nobody knows which was meant.
        fs::create_dir_all(bridge.join("pci_bus/0000:02")).unwrap();
        assert!(path.find(sys.path()).is_none());
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,40}") {
            let _ = text.parse::<PciPath>();
            let _ = text.parse::<PciAddress>();
        }
    }
}

//! The host's words for addresses, interfaces and prefixes, checked.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use protocols::types::{IPAddress, IPFamily};

use super::error::NetworkError;
use super::request::Address;

/// Most entries of a list in one request.
pub(super) const MAX_LIST: usize = 256;

/// What requests may touch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// What leaves the pod: neither `lo` nor a loopback address. For sealed VMs.
    Outside,
    /// Everything.
    All,
}

impl Reach {
    pub(super) fn device(self, name: &str) -> Result<String, NetworkError> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'@');
        if name.is_empty()
            || name.len() > 15
            || !name.bytes().all(plain)
            || matches!(name, "." | ".." | "all" | "default")
        {
            return Err(malformed("interface name", name));
        }
        if name == "lo" && self == Self::Outside {
            return Err(NetworkError::Loopback("the interface 'lo'".into()));
        }
        Ok(name.to_owned())
    }

    pub(super) fn address(self, address: &IPAddress) -> Result<Address, NetworkError> {
        let prefix = address.mask.parse().map_err(|_| malformed("prefix length", &address.mask))?;
        checked(self.ip(&address.address)?, prefix)
    }

    pub(super) fn network(self, text: &str) -> Result<Address, NetworkError> {
        match text.split_once('/') {
            Some((ip_text, prefix)) => {
                let prefix = prefix.parse().map_err(|_| malformed("prefix length", text))?;
                let address: IpAddr = ip_text.parse().map_err(|_| malformed("address", text))?;
                if !(prefix == 0 && address.is_unspecified()) {
                    self.refuse_inner(address)?;
                }
                checked(address, prefix)
            }
            None => {
                let address = self.ip(text)?;
                checked(address, if address.is_ipv4() { 32 } else { 128 })
            }
        }
    }

    /// An address that may be left out, or carry a prefix that says nothing.
    pub(super) fn optional(self, text: &str) -> Result<Option<IpAddr>, NetworkError> {
        match text.split('/').next().unwrap_or_default() {
            "" => Ok(None),
            text => self.ip(text).map(Some),
        }
    }

    pub(super) fn ip(self, text: &str) -> Result<IpAddr, NetworkError> {
        let ip: IpAddr = text.parse().map_err(|_| malformed("address", text))?;
        self.refuse_inner(ip)?;
        Ok(ip)
    }

    fn refuse_inner(self, ip: IpAddr) -> Result<(), NetworkError> {
        let inner = |ip: Ipv4Addr| ip.is_loopback() || ip.octets()[0] == 0;
        let refused = match ip {
            IpAddr::V4(ip) => inner(ip),
            IpAddr::V6(ip) => {
                ip.is_loopback() || ip == Ipv6Addr::UNSPECIFIED || ip.to_ipv4().is_some_and(inner)
            }
        };
        if refused && self == Self::Outside {
            return Err(NetworkError::Loopback(format!("the address {ip}")));
        }
        Ok(())
    }
}

pub(super) fn bounded(length: usize) -> Result<(), NetworkError> {
    if length > MAX_LIST {
        return Err(malformed("list", "it is too long"));
    }
    Ok(())
}

fn checked(ip: IpAddr, prefix: u8) -> Result<Address, NetworkError> {
    if prefix > if ip.is_ipv4() { 32 } else { 128 } {
        return Err(malformed("prefix length", &prefix.to_string()));
    }
    Ok(Address { ip, prefix })
}

pub(super) fn mac(text: &str) -> Result<[u8; 6], NetworkError> {
    let mut bytes = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut bytes {
        let part = parts.next().filter(|part| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit()));
        let part = part.ok_or_else(|| malformed("MAC address", text))?;
        *byte = u8::from_str_radix(part, 16).map_err(|_| malformed("MAC address", text))?;
    }
    match parts.next() {
        None => Ok(bytes),
        Some(_) => Err(malformed("MAC address", text)),
    }
}

pub(super) fn mac_text(mac: &[u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// The family is the address' own.
pub(super) fn address_to_wire(address: &Address) -> IPAddress {
    let mut wire = IPAddress::new();
    wire.family = family(address.ip.is_ipv6()).into();
    wire.address = address.ip.to_string();
    wire.mask = address.prefix.to_string();
    wire
}

pub(super) fn family(v6: bool) -> IPFamily {
    if v6 { IPFamily::v6 } else { IPFamily::v4 }
}

pub(super) fn malformed(what: &str, text: &str) -> NetworkError {
    let text: String = text.chars().take(64).collect();
    NetworkError::Malformed(format!("{what} '{text}' can't be read"))
}

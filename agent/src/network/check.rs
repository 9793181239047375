//! Requests for the network, parsed and checked.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use protocols::agent::{ARPNeighbors, Routes};
use protocols::types::{ARPNeighbor, IPAddress, IPFamily, Interface, Route};

/// Most entries of a list in one request.
const MAX_LIST: usize = 256;

/// Why a request for the network is refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// It would touch what stays inside the pod.
    #[error("{0} would divert traffic inside the pod")]
    Loopback(String),
    /// It can't be read.
    #[error("{0}")]
    Malformed(String),
    /// There is no such interface.
    #[error("no interface {0}")]
    NoInterface(String),
    /// The kernel says no.
    #[error("{step}: {reason}")]
    Kernel {
        /// What was being done.
        step: &'static str,
        /// The kernel's words.
        reason: String,
    },
}

/// An address with the length of its prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// IPv4 or IPv6.
    pub ip: IpAddr,
    /// Bits of the network part.
    pub prefix: u8,
}

/// One interface as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceRequest {
    /// The name inside the guest.
    pub name: String,
    /// Selects the interface.
    pub mac: [u8; 6],
    /// Bytes; 0 = leave.
    pub mtu: u32,
    /// All of its addresses.
    pub addresses: Vec<Address>,
}

/// One route as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteRequest {
    /// `None`: the default route.
    pub destination: Option<Address>,
    /// Next hop.
    pub gateway: Option<IpAddr>,
    /// Preferred source address.
    pub source: Option<IpAddr>,
    /// Interface name.
    pub device: String,
    /// As in rtnetlink(7): 0 universe, 253 link.
    pub scope: u8,
    /// IPv6 rather than IPv4, where nothing else says so.
    pub v6: bool,
    /// RTNH_F_ONLINK.
    pub onlink: bool,
}

/// One permanent neighbour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NeighbourRequest {
    /// Its address.
    pub address: IpAddr,
    /// Interface name.
    pub device: String,
    /// Its MAC address.
    pub mac: [u8; 6],
}

impl InterfaceRequest {
    /// Checks a request of the host.
    pub fn parse(interface: &Interface) -> Result<Self, NetworkError> {
        bounded(interface.IPAddresses.len())?;
        let name = device(if interface.name.is_empty() { &interface.device } else { &interface.name })?;
        let addresses = interface.IPAddresses.iter().map(address).collect::<Result<_, _>>()?;
        let mtu = u32::try_from(interface.mtu).map_err(|_| malformed("mtu", &interface.mtu.to_string()))?;
        Ok(Self { name, mac: mac(&interface.hwAddr)?, mtu, addresses })
    }

    /// The wire form.
    pub fn to_wire(&self) -> Interface {
        let mut interface = Interface::new();
        interface.device.clone_from(&self.name);
        interface.name.clone_from(&self.name);
        interface.mtu = u64::from(self.mtu);
        interface.hwAddr = mac_text(&self.mac);
        interface.IPAddresses = self.addresses.iter().map(address_to_wire).collect();
        interface
    }
}

impl RouteRequest {
    /// Checks a request of the host.
    pub fn parse_all(routes: &Routes) -> Result<Vec<Self>, NetworkError> {
        bounded(routes.Routes.len())?;
        routes.Routes.iter().map(Self::parse).collect()
    }

    fn parse(route: &Route) -> Result<Self, NetworkError> {
        let v6 = route.family.enum_value() == Ok(IPFamily::v6);
        let destination = match route.dest.as_str() {
            "" | "default" => None,
            text => Some(network(text)?),
        };
        let gateway = optional(&route.gateway)?;
        let source = optional(&route.source)?;
        let families = [destination.map(|d| d.ip), gateway, source];
        let v6 = families.iter().flatten().next().map_or(v6, IpAddr::is_ipv6);
        if families.iter().flatten().any(|ip| ip.is_ipv6() != v6) {
            return Err(malformed("route", "it mixes IPv4 and IPv6"));
        }
        let scope = u8::try_from(route.scope).map_err(|_| malformed("scope", &route.scope.to_string()))?;
        let destination = destination.filter(|d| !(d.prefix == 0 && d.ip.is_unspecified()));
        let onlink = route.flags & 4 != 0;
        Ok(Self { destination, gateway, source, device: device(&route.device)?, scope, v6, onlink })
    }

    /// The wire form.
    pub fn to_wire(&self) -> Route {
        let mut route = Route::new();
        route.dest = self.destination.map(|d| format!("{}/{}", d.ip, d.prefix)).unwrap_or_default();
        route.gateway = self.gateway.map(|ip| ip.to_string()).unwrap_or_default();
        route.source = self.source.map(|ip| ip.to_string()).unwrap_or_default();
        route.device.clone_from(&self.device);
        route.scope = u32::from(self.scope);
        route.family = family(self.v6).into();
        route.flags = if self.onlink { 4 } else { 0 };
        route
    }
}

impl NeighbourRequest {
    /// Checks a request of the host.
    pub fn parse_all(neighbours: &ARPNeighbors) -> Result<Vec<Self>, NetworkError> {
        bounded(neighbours.ARPNeighbors.len())?;
        neighbours.ARPNeighbors.iter().map(Self::parse).collect()
    }

    fn parse(neighbour: &ARPNeighbor) -> Result<Self, NetworkError> {
        let text = neighbour.toIPAddress.address.split('/').next().unwrap_or_default();
        Ok(Self { address: ip(text)?, device: device(&neighbour.device)?, mac: mac(&neighbour.lladdr)? })
    }
}

fn bounded(length: usize) -> Result<(), NetworkError> {
    if length > MAX_LIST {
        return Err(malformed("list", "it is too long"));
    }
    Ok(())
}

fn device(name: &str) -> Result<String, NetworkError> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'@');
    if name.is_empty()
        || name.len() > 15
        || !name.bytes().all(plain)
        || matches!(name, "." | ".." | "all" | "default")
    {
        return Err(malformed("interface name", name));
    }
    if name == "lo" {
        return Err(NetworkError::Loopback("the interface 'lo'".into()));
    }
    Ok(name.to_owned())
}

fn address(address: &IPAddress) -> Result<Address, NetworkError> {
    let prefix = address.mask.parse().map_err(|_| malformed("prefix length", &address.mask))?;
    checked(ip(&address.address)?, prefix)
}

fn network(text: &str) -> Result<Address, NetworkError> {
    match text.split_once('/') {
        Some((ip_text, prefix)) => {
            let prefix = prefix.parse().map_err(|_| malformed("prefix length", text))?;
            let address: IpAddr = ip_text.parse().map_err(|_| malformed("address", text))?;
            if !(prefix == 0 && address.is_unspecified()) {
                refuse_inner(address)?;
            }
            checked(address, prefix)
        }
        None => {
            let address = ip(text)?;
            checked(address, if address.is_ipv4() { 32 } else { 128 })
        }
    }
}

fn checked(ip: IpAddr, prefix: u8) -> Result<Address, NetworkError> {
    if prefix > if ip.is_ipv4() { 32 } else { 128 } {
        return Err(malformed("prefix length", &prefix.to_string()));
    }
    Ok(Address { ip, prefix })
}

fn optional(text: &str) -> Result<Option<IpAddr>, NetworkError> {
    match text.split('/').next().unwrap_or_default() {
        "" => Ok(None),
        text => ip(text).map(Some),
    }
}

fn ip(text: &str) -> Result<IpAddr, NetworkError> {
    let ip: IpAddr = text.parse().map_err(|_| malformed("address", text))?;
    refuse_inner(ip)?;
    Ok(ip)
}

fn refuse_inner(ip: IpAddr) -> Result<(), NetworkError> {
    let inner = |ip: Ipv4Addr| ip.is_loopback() || ip.octets()[0] == 0;
    let refused = match ip {
        IpAddr::V4(ip) => inner(ip),
        IpAddr::V6(ip) => ip.is_loopback() || ip == Ipv6Addr::UNSPECIFIED || ip.to_ipv4().is_some_and(inner),
    };
    if refused {
        return Err(NetworkError::Loopback(format!("the address {ip}")));
    }
    Ok(())
}

fn mac(text: &str) -> Result<[u8; 6], NetworkError> {
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

fn mac_text(mac: &[u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

fn address_to_wire(address: &Address) -> IPAddress {
    let mut wire = IPAddress::new();
    wire.family = family(address.ip.is_ipv6()).into();
    wire.address = address.ip.to_string();
    wire.mask = address.prefix.to_string();
    wire
}

fn family(v6: bool) -> IPFamily {
    if v6 { IPFamily::v6 } else { IPFamily::v4 }
}

fn malformed(what: &str, text: &str) -> NetworkError {
    let text: String = text.chars().take(64).collect();
    NetworkError::Malformed(format!("{what} '{text}' can't be read"))
}

pub(super) fn kernel(step: &'static str, error: &rtnetlink::Error) -> NetworkError {
    NetworkError::Kernel { step, reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(name: &str, ip: &str, mask: &str, mac: &str) -> Interface {
        let mut address = IPAddress::new();
        address.address = ip.into();
        address.mask = mask.into();
        let mut interface = Interface::new();
        interface.name = name.into();
        interface.hwAddr = mac.into();
        interface.mtu = 1500;
        interface.IPAddresses = vec![address];
        interface
    }

    const MAC: &str = "52:54:00:12:34:56";

    #[test]
    fn an_interface_survives_the_round_trip() {
        for (ip, mask) in [("10.0.2.15", "24"), ("fd00::5", "64")] {
            let wanted = InterfaceRequest::parse(&interface("eth0", ip, mask, MAC)).unwrap();
            assert_eq!(InterfaceRequest::parse(&wanted.to_wire()).unwrap(), wanted);
            assert_eq!(
                wanted.to_wire().IPAddresses[0].family.enum_value().unwrap(),
                family(ip.contains(':'))
            );
        }
    }

    #[test]
    fn loopback_is_out_of_reach() {
        let inner = |name, ip, mask| {
            matches!(InterfaceRequest::parse(&interface(name, ip, mask, MAC)), Err(NetworkError::Loopback(_)))
        };
        assert!(inner("lo", "10.0.2.15", "24"));
        for ip in ["127.0.0.1", "127.8.9.10", "0.0.0.0", "::1", "::", "::ffff:127.0.0.1", "::127.0.0.1"] {
            assert!(inner("eth0", ip, "8"), "{ip}");
        }
    }

    fn route(dest: &str, gateway: &str, device: &str) -> Result<RouteRequest, NetworkError> {
        let mut route = Route::new();
        route.dest = dest.into();
        route.gateway = gateway.into();
        route.device = device.into();
        RouteRequest::parse(&route)
    }

    #[test]
    fn routes_into_the_pod_are_refused() {
        assert_eq!(route("", "10.0.2.2", "eth0").unwrap().destination, None);
        assert_eq!(route("0.0.0.0/0", "10.0.2.2", "eth0").unwrap().destination, None);
        assert!(route("::/0", "fe80::1", "eth0").unwrap().v6);
        for (dest, gateway, device) in [
            ("127.0.0.0/8", "10.0.2.2", "eth0"),
            ("127.0.0.53", "10.0.2.2", "eth0"),
            ("::1/128", "", "eth0"),
            ("0.0.0.0/1", "10.0.2.2", "eth0"),
            ("10.1.0.0/16", "127.0.0.1", "eth0"),
            ("10.1.0.0/16", "10.0.2.2", "lo"),
            ("::ffff:127.0.0.0/104", "", "eth0"),
        ] {
            assert!(
                matches!(route(dest, gateway, device), Err(NetworkError::Loopback(_))),
                "{dest} {gateway} {device}"
            );
        }
        assert!(matches!(route("10.0.0.0/8", "fd00::1", "eth0"), Err(NetworkError::Malformed(_))));
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        let refused = |i: &Interface| matches!(InterfaceRequest::parse(i), Err(NetworkError::Malformed(_)));
        assert!(refused(&interface("eth0", "10.0.2.999", "24", MAC)));
        assert!(refused(&interface("eth0", "10.0.2.15", "33", MAC)));
        assert!(refused(&interface("eth0", "10.0.2.15", "255.255.255.0", MAC)));
        for mac in [
            "",
            "52:54",
            "52:54:00:12:34:5",
            "52:54:00:12:34:56:78",
            "zz:54:00:12:34:56",
            "+1:54:00:12:34:56",
        ] {
            assert!(refused(&interface("eth0", "10.0.2.15", "24", mac)), "{mac}");
        }
        for name in ["", "a/b", "..", "all", "sixteen-letters-x", "a\0b", "eth 0"] {
            assert!(refused(&interface(name, "10.0.2.15", "24", MAC)), "{name:?}");
        }
        let mut many = interface("eth0", "10.0.2.15", "24", MAC);
        many.IPAddresses = vec![many.IPAddresses[0].clone(); MAX_LIST + 1];
        assert!(refused(&many));
    }
}

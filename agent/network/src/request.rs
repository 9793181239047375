//! Requests for the network, parsed and checked.

use std::net::IpAddr;

use protocols::agent::{ARPNeighbors, Routes};
use protocols::types::{ARPNeighbor, IPFamily, Interface, Route};

use super::check::{Reach, address_to_wire, bounded, family, mac, mac_text, malformed};
use super::error::NetworkError;

/// `IFF_NOARP` of netdevice(7).
const NOARP: u32 = 0x80;
/// `RTNH_F_PERVASIVE` and `RTNH_F_ONLINK`: the flags of a route that aren't the kernel's own state.
const ROUTE_FLAGS: u32 = 2 | 4;
/// States and flags of a neighbour that the kernel takes: `NUD_*`, `NTF_*`.
const NEIGHBOUR_BITS: i32 = 0xff;

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
    /// The name that it has now, for interfaces that no MAC address selects.
    pub device: String,
    /// Selects the interface.
    pub mac: Option<[u8; 6]>,
    /// Bytes; 0 = leave.
    pub mtu: u32,
    /// Whether it resolves addresses by ARP.
    pub arp: bool,
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
    /// `RTNH_F_*`.
    pub flags: u32,
    /// Bytes; 0 = the interface's.
    pub mtu: u32,
}

/// One neighbour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NeighbourRequest {
    /// Its address.
    pub address: IpAddr,
    /// Interface name.
    pub device: String,
    /// Its MAC address.
    pub mac: Option<[u8; 6]>,
    /// `NUD_*`; 0 = permanent.
    pub state: u16,
    /// `NTF_*`.
    pub flags: u8,
}

impl InterfaceRequest {
    /// Checks a request of the host. In a sealed VM an interface is selected by its MAC address only.
    pub fn parse(interface: &Interface, reach: Reach) -> Result<Self, NetworkError> {
        bounded(interface.IPAddresses.len())?;
        let given = |first: &str, second: &str| reach.device(if first.is_empty() { second } else { first });
        let name = given(&interface.name, &interface.device)?;
        let device = given(&interface.device, &interface.name)?;
        let addresses = interface.IPAddresses.iter().map(|a| reach.address(a)).collect::<Result<_, _>>()?;
        let mtu = u32::try_from(interface.mtu).map_err(|_| malformed("mtu", &interface.mtu.to_string()))?;
        let mac = match interface.hwAddr.as_str() {
            "" if reach == Reach::All => None,
            text => Some(mac(text)?),
        };
        Ok(Self { name, device, mac, mtu, arp: interface.raw_flags & NOARP == 0, addresses })
    }

    /// The wire form.
    pub fn to_wire(&self) -> Interface {
        let mut interface = Interface::new();
        interface.device.clone_from(&self.device);
        interface.name.clone_from(&self.name);
        interface.mtu = u64::from(self.mtu);
        interface.hwAddr = self.mac.as_ref().map(mac_text).unwrap_or_default();
        interface.raw_flags = if self.arp { 0 } else { NOARP };
        interface.IPAddresses = self.addresses.iter().map(address_to_wire).collect();
        interface
    }
}

impl RouteRequest {
    /// Checks a request of the host.
    pub fn parse_all(routes: &Routes, reach: Reach) -> Result<Vec<Self>, NetworkError> {
        bounded(routes.Routes.len())?;
        routes.Routes.iter().map(|route| Self::parse(route, reach)).collect()
    }

    fn parse(route: &Route, reach: Reach) -> Result<Self, NetworkError> {
        let v6 = route.family.enum_value() == Ok(IPFamily::v6);
        let destination = match route.dest.as_str() {
            "" | "default" => None,
            text => Some(reach.network(text)?),
        };
        let gateway = reach.optional(&route.gateway)?;
        let source = reach.optional(&route.source)?;
        let families = [destination.map(|d| d.ip), gateway, source];
        let v6 = families.iter().flatten().next().map_or(v6, IpAddr::is_ipv6);
        if families.iter().flatten().any(|ip| ip.is_ipv6() != v6) {
            return Err(malformed("route", "it mixes IPv4 and IPv6"));
        }
        let scope = u8::try_from(route.scope).map_err(|_| malformed("scope", &route.scope.to_string()))?;
        let destination = destination.filter(|d| !(d.prefix == 0 && d.ip.is_unspecified()));
        let device = reach.device(&route.device)?;
        let flags = route.flags & ROUTE_FLAGS;
        Ok(Self { destination, gateway, source, device, scope, v6, flags, mtu: route.mtu })
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
        route.flags = self.flags;
        route.mtu = self.mtu;
        route
    }
}

impl NeighbourRequest {
    /// Checks a request of the host.
    pub fn parse_all(neighbours: &ARPNeighbors, reach: Reach) -> Result<Vec<Self>, NetworkError> {
        bounded(neighbours.ARPNeighbors.len())?;
        neighbours.ARPNeighbors.iter().map(|neighbour| Self::parse(neighbour, reach)).collect()
    }

    fn parse(neighbour: &ARPNeighbor, reach: Reach) -> Result<Self, NetworkError> {
        let missing = || malformed("neighbour", "it has no address");
        let address = neighbour.toIPAddress.as_ref().ok_or_else(missing)?;
        let text = address.address.split('/').next().unwrap_or_default();
        let mac = match neighbour.lladdr.as_str() {
            "" if reach == Reach::All => None,
            text => Some(mac(text)?),
        };
        let bits = |what: &str, value: i32| match u8::try_from(value) {
            Ok(bits) if value & !NEIGHBOUR_BITS == 0 => Ok(bits),
            _ => Err(malformed(what, &value.to_string())),
        };
        Ok(Self {
            address: reach.ip(text)?,
            device: reach.device(&neighbour.device)?,
            mac,
            state: bits("neighbour state", neighbour.state)?.into(),
            flags: bits("neighbour flags", neighbour.flags)?,
        })
    }
}

#[cfg(test)]
mod tests;

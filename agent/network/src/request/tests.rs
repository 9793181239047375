//! Accepted and refused, in a sealed VM and outside of one.

use protocols::types::IPAddress;

use super::*;
use crate::check::MAX_LIST;

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

fn sealed(interface: &Interface) -> Result<InterfaceRequest, NetworkError> {
    InterfaceRequest::parse(interface, Reach::Outside)
}

#[test]
fn an_interface_survives_the_round_trip() {
    for (ip, mask) in [("10.0.2.15", "24"), ("fd00::5", "64")] {
        let wanted = sealed(&interface("eth0", ip, mask, MAC)).unwrap();
        assert_eq!(sealed(&wanted.to_wire()).unwrap(), wanted);
        assert_eq!(wanted.to_wire().IPAddresses[0].family.enum_value().unwrap(), family(ip.contains(':')));
    }
}

#[test]
fn loopback_is_out_of_reach() {
    let inner =
        |name, ip, mask| matches!(sealed(&interface(name, ip, mask, MAC)), Err(NetworkError::Loopback(_)));
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
    RouteRequest::parse(&route, Reach::Outside)
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
    let refused = |i: &Interface| matches!(sealed(i), Err(NetworkError::Malformed(_)));
    assert!(refused(&interface("eth0", "10.0.2.999", "24", MAC)));
    assert!(refused(&interface("eth0", "10.0.2.15", "33", MAC)));
    assert!(refused(&interface("eth0", "10.0.2.15", "255.255.255.0", MAC)));
    for mac in
        ["", "52:54", "52:54:00:12:34:5", "52:54:00:12:34:56:78", "zz:54:00:12:34:56", "+1:54:00:12:34:56"]
    {
        assert!(refused(&interface("eth0", "10.0.2.15", "24", mac)), "{mac}");
    }
    for name in ["", "a/b", "..", "all", "sixteen-letters-x", "a\0b", "eth 0"] {
        assert!(refused(&interface(name, "10.0.2.15", "24", MAC)), "{name:?}");
    }
    let mut many = interface("eth0", "10.0.2.15", "24", MAC);
    many.IPAddresses = vec![many.IPAddresses[0].clone(); MAX_LIST + 1];
    assert!(refused(&many));
}

#[test]
fn outside_of_a_sealed_vm_the_host_may_touch_loopback() {
    let all = |i: &Interface| InterfaceRequest::parse(i, Reach::All);
    let lo = all(&interface("lo", "127.0.0.1", "8", "")).unwrap();
    assert_eq!(lo.mac, None);
    assert_eq!(lo.to_wire().IPAddresses[0].family.enum_value(), Ok(IPFamily::v4), "127.0.0.1 is IPv4");
    let mut inner = Route::new();
    inner.dest = "127.0.0.0/8".into();
    inner.device = "lo".into();
    assert!(RouteRequest::parse(&inner, Reach::All).is_ok());
    // What can't be read stays refused.
    assert!(matches!(all(&interface("eth0", "x", "8", "")), Err(NetworkError::Malformed(_))));
    assert!(matches!(all(&interface("", "10.0.0.1", "8", "")), Err(NetworkError::Malformed(_))));
    assert!(matches!(all(&interface("a/b", "10.0.0.1", "8", "")), Err(NetworkError::Malformed(_))));
}

#[test]
fn what_a_request_says_of_an_interface_is_kept() {
    let mut wire = interface("eth0", "10.0.0.1", "8", MAC);
    wire.device = "tap0".into();
    wire.raw_flags = 0x80 | 0x1000;
    let wanted = sealed(&wire).unwrap();
    assert_eq!((wanted.device.as_str(), wanted.name.as_str(), wanted.arp), ("tap0", "eth0", false));
    wire.device = "lo".into();
    assert!(matches!(sealed(&wire), Err(NetworkError::Loopback(_))), "neither name may be lo");
}

#[test]
fn a_route_keeps_its_flags_and_mtu() {
    let mut wire = Route::new();
    wire.device = "eth0".into();
    wire.gateway = "10.0.0.1".into();
    wire.flags = 4 | 1;
    wire.mtu = 1400;
    let route = RouteRequest::parse(&wire, Reach::Outside).unwrap();
    assert_eq!((route.flags, route.mtu), (4, 1400), "dead is the kernel's to say");
    assert_eq!(RouteRequest::parse(&route.to_wire(), Reach::Outside).unwrap(), route);
}

fn neighbour(ip: Option<&str>, mac: &str, state: i32) -> Result<NeighbourRequest, NetworkError> {
    let mut wire = ARPNeighbor::new();
    wire.toIPAddress = ip
        .map(|ip| {
            let mut address = IPAddress::new();
            address.address = ip.into();
            address
        })
        .into();
    wire.device = "eth0".into();
    wire.lladdr = mac.into();
    wire.state = state;
    NeighbourRequest::parse(&wire, Reach::Outside)
}

#[test]
fn neighbours_are_read_or_refused() {
    assert_eq!(neighbour(Some("10.0.0.1"), MAC, 0x80).unwrap().state, 0x80);
    assert_eq!(neighbour(Some("fd00::1/64"), MAC, 0).unwrap().address, "fd00::1".parse::<IpAddr>().unwrap());
    assert!(matches!(neighbour(None, MAC, 0), Err(NetworkError::Malformed(_))));
    assert!(matches!(neighbour(Some(""), MAC, 0), Err(NetworkError::Malformed(_))));
    assert!(matches!(neighbour(Some("10.0.0.1"), "", 0), Err(NetworkError::Malformed(_))));
    assert!(matches!(neighbour(Some("10.0.0.1"), MAC, -1), Err(NetworkError::Malformed(_))));
    assert!(matches!(neighbour(Some("10.0.0.1"), MAC, 256), Err(NetworkError::Malformed(_))));
    assert!(matches!(neighbour(Some("127.0.0.1"), MAC, 0), Err(NetworkError::Loopback(_))));
}

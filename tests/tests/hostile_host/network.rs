//! The pod's network: its own cards, never `lo`.

use anyhow::Context;
use protobuf::MessageField;
use protocols::agent as wire;
use protocols::refusal::Code;
use protocols::types::{ARPNeighbor, IPAddress, IPFamily, Interface, Route};
use sealpod_tests::checks::Checks;
use sealpod_tests::kata::{answer_of, refused, soon};

use crate::Target;

fn address(text: &str, mask: &str) -> IPAddress {
    let family = if text.contains(':') { IPFamily::v6 } else { IPFamily::v4 };
    IPAddress { family: family.into(), address: text.to_owned(), mask: mask.to_owned(), ..Default::default() }
}

pub(crate) async fn check(checks: &mut Checks, target: &Target) {
    let agent = target.kata.agent();
    let denied = [Code::NetworkDenied];
    target
        .attempt(checks, "46: lo, and addresses of lo on another card", async {
            for (name, mac, ip, mask) in [
                ("lo", "00:00:00:00:00:00", "10.0.2.16", "24"),
                ("eth0", launcher::GUEST_MAC, "127.0.0.2", "8"),
                ("eth0", launcher::GUEST_MAC, "::1", "128"),
                ("eth0", launcher::GUEST_MAC, "0.0.0.0", "0"),
                ("lo", launcher::GUEST_MAC, "10.0.2.16", "24"),
            ] {
                let mut request = wire::UpdateInterfaceRequest::new();
                request.interface = MessageField::some(Interface {
                    device: name.to_owned(),
                    name: name.to_owned(),
                    hwAddr: mac.to_owned(),
                    IPAddresses: vec![address(ip, mask)],
                    mtu: 1500,
                    ..Default::default()
                });
                refused(answer_of(agent.update_interface(soon(), &request).await), &denied)
                    .with_context(|| format!("{name} {mac} {ip}"))?;
            }
            Ok(())
        })
        .await;
    target
        .attempt(checks, "46: routes over lo, and to 127.0.0.0/8 and ::1", async {
            for (dest, gateway, device) in [
                ("10.0.0.0/8", "", "lo"),
                ("127.0.0.0/8", "10.0.2.2", "eth0"),
                ("127.0.0.1/32", "", "eth0"),
                ("::1/128", "fd00::1", "eth0"),
                ("10.1.0.0/16", "127.0.0.1", "eth0"),
            ] {
                let mut request = wire::UpdateRoutesRequest::new();
                let route = Route {
                    dest: dest.to_owned(),
                    gateway: gateway.to_owned(),
                    device: device.to_owned(),
                    family: if dest.contains(':') { IPFamily::v6 } else { IPFamily::v4 }.into(),
                    ..Default::default()
                };
                request.routes =
                    MessageField::some(wire::Routes { Routes: vec![route], ..Default::default() });
                refused(answer_of(agent.update_routes(soon(), &request).await), &denied)
                    .with_context(|| format!("{dest} via {gateway} on {device}"))?;
            }
            Ok(())
        })
        .await;
    target
        .attempt(checks, "46: neighbours on lo and of lo's addresses", async {
            for (ip, device) in [("10.0.2.2", "lo"), ("127.0.0.1", "eth0"), ("::1", "eth0")] {
                let neighbour = ARPNeighbor {
                    toIPAddress: MessageField::some(address(ip, "")),
                    device: device.to_owned(),
                    lladdr: "52:55:0a:00:02:02".to_owned(),
                    state: 0x80,
                    ..Default::default()
                };
                let mut request = wire::AddARPNeighborsRequest::new();
                request.neighbors = MessageField::some(wire::ARPNeighbors {
                    ARPNeighbors: vec![neighbour],
                    ..Default::default()
                });
                refused(answer_of(agent.add_arp_neighbors(soon(), &request).await), &denied)
                    .with_context(|| format!("{ip} on {device}"))?;
            }
            Ok(())
        })
        .await;
}

//! Interfaces, routes, neighbours, packet filters.

use anyhow::{Context, ensure};
use launcher::GUEST_MAC;
use protobuf::MessageField;
use protocols::agent as wire;
use protocols::types::{ARPNeighbor, IPAddress, IPFamily, Interface, Route};
use sealpod_tests::checks::Checks;
use sealpod_tests::kata::{Answer, Kata, answer_of, fails, soon};
use ttrpc::Code;

use crate::Bench;

fn address(family: IPFamily, address: &str, mask: &str) -> IPAddress {
    IPAddress {
        family: family.into(),
        address: address.to_owned(),
        mask: mask.to_owned(),
        ..Default::default()
    }
}

fn card(mac: &str) -> Interface {
    Interface {
        device: "eth0".to_owned(),
        name: "eth0".to_owned(),
        IPAddresses: vec![
            address(IPFamily::v4, "10.0.2.15", "24"),
            address(IPFamily::v6, "fd00:1::15", "64"),
        ],
        mtu: 1400,
        hwAddr: mac.to_owned(),
        ..Default::default()
    }
}

fn routes() -> Vec<Route> {
    let on_link = Route {
        dest: "10.0.2.0/24".to_owned(),
        device: "eth0".to_owned(),
        source: "10.0.2.15".to_owned(),
        scope: 253,
        ..Default::default()
    };
    let default = Route { gateway: "10.0.2.2".to_owned(), device: "eth0".to_owned(), ..Default::default() };
    let six = Route {
        dest: "fd00:2::/64".to_owned(),
        gateway: "fd00:1::1".to_owned(),
        device: "eth0".to_owned(),
        family: IPFamily::v6.into(),
        ..Default::default()
    };
    vec![on_link, default, six]
}

async fn interface(kata: &Kata, interface: Option<Interface>) -> Answer<Interface> {
    let mut request = wire::UpdateInterfaceRequest::new();
    request.interface = interface.into();
    answer_of(kata.agent().update_interface(soon(), &request).await)
}

pub(crate) async fn check(checks: &mut Checks, bench: &Bench) {
    let kata = bench.kata();
    interfaces(checks, kata).await;
    routing(checks, kata).await;
    tables(checks, kata).await;
}

async fn interfaces(checks: &mut Checks, kata: &Kata) {
    checks
        .that("UpdateInterface accepts the card by its address and answers with it", async {
            // As the runtime: the card may come a moment after the agent.
            let mut answer = interface(kata, Some(card(GUEST_MAC))).await;
            for _ in 0..10 {
                if answer.is_ok() {
                    break;
                }
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                answer = interface(kata, Some(card(GUEST_MAC))).await;
            }
            let answer = answer?;
            ensure!(answer.name == "eth0" && answer.hwAddr == GUEST_MAC, "{answer:?}");
            Ok(())
        })
        .await;
    checks
        .that("UpdateInterface accepts the same again", async {
            interface(kata, Some(card(GUEST_MAC))).await?;
            Ok(())
        })
        .await;
    checks
        .that("UpdateInterface refuses a request without an interface: INVALID_ARGUMENT", async {
            fails(interface(kata, None).await, &[Code::INVALID_ARGUMENT])?;
            Ok(())
        })
        .await;
    checks
        .that("UpdateInterface refuses a card that isn't there", async {
            let mut other = card("52:54:00:00:00:01");
            (other.name, other.device) = ("eth9".to_owned(), "eth9".to_owned());
            fails(interface(kata, Some(other)).await, &[Code::INTERNAL])?;
            Ok(())
        })
        .await;
    checks
        .that("UpdateInterface refuses addresses that aren't", async {
            let mut other = card(GUEST_MAC);
            other.IPAddresses = vec![address(IPFamily::v4, "10.0.2.300", "24")];
            fails(interface(kata, Some(other)).await, &[Code::INTERNAL, Code::INVALID_ARGUMENT])?;
            Ok(())
        })
        .await;
    checks
        .that("ListInterfaces accepts, with families as they are", async {
            let request = wire::ListInterfacesRequest::new();
            let list = answer_of(kata.agent().list_interfaces(soon(), &request).await)?;
            let eth0 = list.Interfaces.iter().find(|one| one.name == "eth0").context("no eth0")?;
            ensure!(eth0.mtu == 1400, "{eth0:?}");
            for (text, family) in [("10.0.2.15", IPFamily::v4), ("fd00:1::15", IPFamily::v6)] {
                let found = eth0.IPAddresses.iter().find(|one| one.address == text);
                let found = found.with_context(|| format!("no {text} in {eth0:?}"))?;
                ensure!(found.family == family.into(), "{found:?}");
            }
            Ok(())
        })
        .await;
    checks
        .that("ListInterfaces accepts: 127.0.0.1 is of the IPv4 family", async {
            let request = wire::ListInterfacesRequest::new();
            let list = answer_of(kata.agent().list_interfaces(soon(), &request).await)?;
            let lo = list.Interfaces.iter().find(|one| one.name == "lo").context("no lo")?;
            let v4 = lo.IPAddresses.iter().find(|one| one.address == "127.0.0.1").context("no 127.0.0.1")?;
            ensure!(v4.family == IPFamily::v4.into(), "{v4:?}");
            Ok(())
        })
        .await;
}

async fn routing(checks: &mut Checks, kata: &Kata) {
    let update = async |routes: Option<Vec<Route>>| {
        let mut request = wire::UpdateRoutesRequest::new();
        request.routes = match routes {
            Some(list) => MessageField::some(wire::Routes { Routes: list, ..Default::default() }),
            None => MessageField::none(),
        };
        answer_of(kata.agent().update_routes(soon(), &request).await)
    };
    checks
        .that("UpdateRoutes accepts and answers with the full list", async {
            let list = update(Some(routes())).await?.Routes;
            ensure!(list.iter().any(|one| one.gateway == "10.0.2.2" && one.device == "eth0"), "{list:?}");
            ensure!(list.iter().any(|one| one.dest == "fd00:2::/64"), "{list:?}");
            Ok(())
        })
        .await;
    checks
        .that("UpdateRoutes refuses a request without routes: INVALID_ARGUMENT", async {
            fails(update(None).await, &[Code::INVALID_ARGUMENT])?;
            Ok(())
        })
        .await;
    checks
        .that("UpdateRoutes refuses a gateway that isn't an address", async {
            let wrong =
                Route { gateway: "gateway".to_owned(), device: "eth0".to_owned(), ..Default::default() };
            fails(update(Some(vec![wrong])).await, &[Code::INTERNAL, Code::INVALID_ARGUMENT])?;
            Ok(())
        })
        .await;
    checks
        .that("ListRoutes accepts and tells what was set", async {
            // The refused list may have taken the earlier one away.
            update(Some(routes())).await?;
            let list =
                answer_of(kata.agent().list_routes(soon(), &wire::ListRoutesRequest::new()).await)?.Routes;
            ensure!(list.iter().any(|one| one.gateway == "10.0.2.2"), "{list:?}");
            ensure!(list.iter().any(|one| one.dest == "10.0.2.0/24"), "{list:?}");
            Ok(())
        })
        .await;
    let neighbours = async |neighbours: Option<Vec<ARPNeighbor>>| {
        let mut request = wire::AddARPNeighborsRequest::new();
        request.neighbors = match neighbours {
            Some(list) => MessageField::some(wire::ARPNeighbors { ARPNeighbors: list, ..Default::default() }),
            None => MessageField::none(),
        };
        answer_of(kata.agent().add_arp_neighbors(soon(), &request).await).map(drop)
    };
    checks
        .that("AddARPNeighbors accepts, twice as well", async {
            let gateway = ARPNeighbor {
                toIPAddress: MessageField::some(address(IPFamily::v4, "10.0.2.2", "")),
                device: "eth0".to_owned(),
                lladdr: "52:55:0a:00:02:02".to_owned(),
                state: 0x80,
                ..Default::default()
            };
            neighbours(Some(vec![gateway.clone()])).await?;
            Ok(neighbours(Some(vec![gateway])).await?)
        })
        .await;
    checks
        .that("AddARPNeighbors refuses a request without neighbours: INVALID_ARGUMENT", async {
            fails(neighbours(None).await, &[Code::INVALID_ARGUMENT])?;
            Ok(())
        })
        .await;
}

/// The guest's initrd holds no iptables: both say what is missing, as often as they are asked.
async fn tables(checks: &mut Checks, kata: &Kata) {
    checks
        .that("GetIPTables refuses where iptables isn't in the guest: INTERNAL", async {
            let answer = kata.agent().get_ip_tables(soon(), &wire::GetIPTablesRequest::new()).await;
            let failure = fails(answer_of(answer), &[Code::INTERNAL])?;
            ensure!(failure.message.contains("iptables"), "{failure}");
            Ok(())
        })
        .await;
    checks
        .that("SetIPTables refuses where iptables isn't in the guest: INTERNAL", async {
            let mut request = wire::SetIPTablesRequest::new();
            request.data = b"*filter\nCOMMIT\n".to_vec();
            for _ in 0..40 {
                let failure =
                    fails(answer_of(kata.agent().set_ip_tables(soon(), &request).await), &[Code::INTERNAL])?;
                ensure!(!failure.message.contains("ECHILD"), "{failure}");
            }
            Ok(())
        })
        .await;
}

//! Against the kernel, in network namespaces of the tests' own. Without the right to make one there is
//! nothing to test.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::future::Future;
use std::time::Duration;

use agent_network::{InterfaceRequest, NeighbourRequest, Network, NetworkError, Reach, RouteRequest};
use nix::sched::{CloneFlags, unshare};
use protocols::agent::{ARPNeighbors, Routes};
use protocols::types::{ARPNeighbor, IPAddress, IPFamily, Interface, Route};
use rtnetlink::LinkVeth;

const MAC: &str = "52:54:00:00:00:01";
const NOW: Duration = Duration::ZERO;

/// Runs in a namespace with the two ends of a cable, `one` with [`MAC`], and `two`.
fn in_namespace<F: Future<Output = ()>>(test: impl FnOnce(Network, rtnetlink::Handle) -> F) {
    if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
        eprintln!("skipped: no network namespace: {error}");
        return;
    }
    // All on this thread, which alone is in the namespace.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection().unwrap();
        tokio::spawn(connection);
        let network = Network::connect().unwrap();
        network.loopback_up().await.unwrap();
        cable(&handle, "one", "two").await;
        test(network, handle).await;
    });
}

async fn cable(handle: &rtnetlink::Handle, one: &str, two: &str) {
    let mac = vec![0x52, 0x54, 0, 0, 0, 1];
    let message = LinkVeth::new(one, two).address(mac).build();
    handle.link().add(message).execute().await.unwrap();
}

fn interface(name: &str, mac: &str, addresses: &[(&str, &str)]) -> Interface {
    let mut interface = Interface::new();
    interface.device = name.into();
    interface.name = name.into();
    interface.hwAddr = mac.into();
    interface.mtu = 1400;
    interface.IPAddresses = addresses
        .iter()
        .map(|(ip, mask)| {
            let mut address = IPAddress::new();
            address.address = (*ip).into();
            address.mask = (*mask).into();
            address
        })
        .collect();
    interface
}

async fn update(network: &Network, wanted: &Interface, reach: Reach) -> Result<(), NetworkError> {
    network.update_interface(&InterfaceRequest::parse(wanted, reach).unwrap(), NOW).await
}

async fn listed(network: &Network, name: &str) -> InterfaceRequest {
    network.interfaces().await.unwrap().into_iter().find(|found| found.name == name).unwrap()
}

/// Addresses without the kernel's own link-local ones.
fn addresses(found: &InterfaceRequest) -> Vec<String> {
    let mut list: Vec<String> = found.addresses.iter().map(|a| format!("{}/{}", a.ip, a.prefix)).collect();
    list.retain(|address| !address.starts_with("fe80"));
    list.sort();
    list
}

#[test]
fn an_interface_becomes_what_the_request_says_and_changes_with_the_next() {
    in_namespace(|network, _| async move {
        let wanted = interface("eth0", MAC, &[("10.1.0.5", "24"), ("fd01::5", "64")]);
        update(&network, &wanted, Reach::Outside).await.unwrap();
        let found = listed(&network, "eth0").await;
        assert_eq!((found.mtu, found.arp), (1400, true));
        assert_eq!(addresses(&found), ["10.1.0.5/24", "fd01::5/64"]);

        let mut wanted = interface("eth0", MAC, &[("10.1.0.6", "16")]);
        wanted.mtu = 1300;
        wanted.raw_flags = 0x80;
        update(&network, &wanted, Reach::Outside).await.unwrap();
        let found = listed(&network, "eth0").await;
        assert_eq!((found.mtu, found.arp), (1300, false));
        assert_eq!(addresses(&found), ["10.1.0.6/16"], "the old ones are gone");
        assert_eq!(found.to_wire().hwAddr, MAC);
    });
}

#[test]
fn a_name_that_another_interface_has_is_swapped() {
    in_namespace(|network, _| async move {
        let before = listed(&network, "two").await.mac;
        update(&network, &interface("two", MAC, &[]), Reach::Outside).await.unwrap();
        assert_eq!(listed(&network, "two").await.to_wire().hwAddr, MAC);
        assert_eq!(listed(&network, "one").await.mac, before);
    });
}

#[test]
fn without_a_mac_address_the_name_selects() {
    in_namespace(|network, _| async move {
        let mut wanted = interface("eth7", "", &[("10.7.0.1", "24")]);
        wanted.device = "two".into();
        update(&network, &wanted, Reach::All).await.unwrap();
        assert_eq!(addresses(&listed(&network, "eth7").await), ["10.7.0.1/24"]);
    });
}

#[test]
fn an_interface_that_comes_late_is_waited_for_and_one_that_never_comes_is_named() {
    in_namespace(|network, handle| async move {
        let late = interface("eth9", "52:54:00:00:00:09", &[]);
        let error = update(&network, &late, Reach::Outside).await.unwrap_err().to_string();
        assert_eq!(error, "no interface with the MAC address 52:54:00:00:00:09 came within 0 s");
        let error =
            update(&network, &interface("no-such", "", &[]), Reach::All).await.unwrap_err().to_string();
        assert_eq!(error, "no interface named 'no-such' came within 0 s");

        let request = InterfaceRequest::parse(&late, Reach::Outside).unwrap();
        let plug = async {
            let mac = vec![0x52, 0x54, 0, 0, 0, 9];
            let message = LinkVeth::new("three", "four").address(mac).build();
            handle.link().add(message).execute().await.unwrap();
            // Others are answered meanwhile.
            network.routes().await.unwrap();
        };
        let (found, ()) = tokio::join!(network.update_interface(&request, Duration::from_secs(60)), plug);
        found.unwrap();
        listed(&network, "eth9").await;
    });
}

#[test]
fn loopback_is_listed_with_the_family_that_it_has() {
    in_namespace(|network, _| async move {
        let lo = listed(&network, "lo").await.to_wire();
        let family = |ip: &str| lo.IPAddresses.iter().find(|a| a.address == ip).unwrap().family.enum_value();
        assert_eq!(family("127.0.0.1"), Ok(IPFamily::v4));
        assert_eq!(family("::1"), Ok(IPFamily::v6));
    });
}

fn route(dest: &str, gateway: &str, source: &str) -> Route {
    let mut route = Route::new();
    route.dest = dest.into();
    route.gateway = gateway.into();
    route.source = source.into();
    route.device = "eth0".into();
    route.family = if format!("{dest}{gateway}").contains(':') { IPFamily::v6 } else { IPFamily::v4 }.into();
    route
}

fn parsed(routes: &[Route]) -> Vec<RouteRequest> {
    let mut list = Routes::new();
    list.Routes = routes.to_vec();
    RouteRequest::parse_all(&list, Reach::Outside).unwrap()
}

async fn has(network: &Network, wanted: &Route) -> bool {
    let wanted = parsed(std::slice::from_ref(wanted)).remove(0);
    network.routes().await.unwrap().iter().any(|found| {
        (found.destination, found.gateway, &found.device, found.mtu, found.flags)
            == (wanted.destination, wanted.gateway, &wanted.device, wanted.mtu, wanted.flags)
            && (wanted.source.is_none() || found.source == wanted.source)
    })
}

#[test]
fn routes_are_replaced_and_the_kernels_own_stay() {
    in_namespace(|network, _| async move {
        let wanted = interface("eth0", MAC, &[("10.1.0.5", "24"), ("fd01::5", "64")]);
        update(&network, &wanted, Reach::Outside).await.unwrap();
        update(&network, &interface("two", "", &[]), Reach::All).await.unwrap();
        // The default route comes first, but needs the others' networks.
        let mut far = route("10.9.0.0/16", "192.168.7.1", "");
        far.flags = 4;
        let mut narrow = route("10.8.0.0/16", "10.1.0.1", "10.1.0.5");
        narrow.mtu = 1280;
        let first = [
            route("", "169.254.1.1", ""),
            route("169.254.1.1/32", "", ""),
            route("::/0", "fd01::1", ""),
            route("fd02::/64", "fd01::2", "fd01::5"),
            route("10.1.0.0/24", "", "10.1.0.5"), // the kernel has it already
            far,
            narrow,
        ];
        network.update_routes(&parsed(&first)).await.unwrap();
        for wanted in &first {
            assert!(has(&network, wanted).await, "{wanted:?}");
        }
        network.update_routes(&parsed(&[route("", "10.1.0.1", "")])).await.unwrap();
        assert!(has(&network, &route("", "10.1.0.1", "")).await);
        assert!(has(&network, &route("10.1.0.0/24", "", "")).await, "the kernel's own");
        for gone in [&first[0], &first[1], &first[2], &first[3], &first[5], &first[6]] {
            assert!(!has(&network, gone).await, "{gone:?}");
        }
    });
}

#[test]
fn a_route_that_names_no_interface_changes_nothing() {
    in_namespace(|network, _| async move {
        let wanted = interface("eth0", MAC, &[("10.1.0.5", "24")]);
        update(&network, &wanted, Reach::Outside).await.unwrap();
        network.update_routes(&parsed(&[route("", "10.1.0.1", "")])).await.unwrap();
        let mut lost = route("10.2.0.0/16", "10.1.0.1", "");
        lost.device = "no-such".into();
        let refused = network.update_routes(&parsed(&[lost])).await;
        assert!(matches!(refused, Err(NetworkError::NoInterface(_))));
        assert!(has(&network, &route("", "10.1.0.1", "")).await);
    });
}

#[test]
fn neighbours_are_added_and_replaced() {
    in_namespace(|network, handle| async move {
        let wanted = interface("eth0", MAC, &[("10.1.0.5", "24"), ("fd01::5", "64")]);
        update(&network, &wanted, Reach::Outside).await.unwrap();
        let neighbour = |ip: &str, mac: &str| {
            let mut address = IPAddress::new();
            address.address = ip.into();
            let mut neighbour = ARPNeighbor::new();
            neighbour.toIPAddress = Some(address).into();
            neighbour.device = "eth0".into();
            neighbour.lladdr = mac.into();
            neighbour
        };
        for mac in ["52:54:00:00:00:aa", "52:54:00:00:00:bb"] {
            let mut list = ARPNeighbors::new();
            list.ARPNeighbors = vec![neighbour("10.1.0.1", mac), neighbour("fd01::1", mac)];
            let wanted = NeighbourRequest::parse_all(&list, Reach::Outside).unwrap();
            network.add_neighbours(&wanted).await.unwrap();
        }
        let mut found = 0;
        let mut all = std::pin::pin!(handle.neighbours().get().execute());
        while let Some(message) = futures::TryStreamExt::try_next(&mut all).await.unwrap() {
            let text = format!("{message:?}");
            if text.contains("10.1.0.1") || text.contains("fd01::1") {
                assert!(text.contains("Permanent") && text.contains("187"), "{text}");
                found += 1;
            }
        }
        assert_eq!(found, 2);
    });
}

#[test]
fn a_sealed_vm_never_finds_the_loopback_interface_by_its_mac_address() {
    in_namespace(|network, _| async move {
        let nobody = interface("eth0", "00:00:00:00:00:00", &[]);
        assert!(matches!(update(&network, &nobody, Reach::Outside).await, Err(NetworkError::NoInterface(_))));
    });
}

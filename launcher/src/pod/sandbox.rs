//! Network and sandbox: the requests between the guest's boot and the first container.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use protobuf::MessageField;
use protocols::agent::{
    ARPNeighbors, AddARPNeighborsRequest, CreateSandboxRequest, GetOOMEventRequest, GuestDetailsRequest,
    Routes, SetPolicyRequest, Storage, UpdateInterfaceRequest, UpdateRoutesRequest,
};
use protocols::types::{ARPNeighbor, IPAddress, Interface, Route};

use tokio::task::JoinHandle;

use super::Pod;
use crate::client::{AgentClient, AgentError, rpc};

/// The guest sees its card a moment after it listens; the runtime tries this often, 100 ms apart.
const LINK_TRIES: usize = 10;
/// `NUD_PERMANENT` and the scope of addresses on a link (linux/neighbour.h, rtnetlink.h).
const PERMANENT: i32 = 0x80;
const SCOPE_LINK: u32 = 253;

/// More events than a pod has containers; a guest that repeats itself is not recorded further.
const MEMORY_EVENTS: usize = 256;

/// What the runtime tells the guest about its network.
#[derive(Clone, Debug)]
pub struct NetworkConfig {
    /// The card's name in the guest.
    pub device: String,
    /// The card's address, which names it before it has its name.
    pub mac: String,
    /// IPv4 address.
    pub address: String,
    /// Prefix length.
    pub prefix: u8,
    /// The network, as `address/prefix`.
    pub network: String,
    /// Default gateway.
    pub gateway: String,
    /// The gateway's hardware address, where known.
    pub gateway_mac: Option<String>,
    /// Lines of resolv.conf.
    pub dns: Vec<String>,
    /// MTU in bytes.
    pub mtu: u64,
}

impl NetworkConfig {
    /// QEMU's user-mode network.
    #[must_use]
    pub fn user_mode() -> NetworkConfig {
        NetworkConfig {
            device: "eth0".to_owned(),
            mac: crate::qemu::GUEST_MAC.to_owned(),
            address: "10.0.2.15".to_owned(),
            prefix: 24,
            network: "10.0.2.0/24".to_owned(),
            gateway: "10.0.2.2".to_owned(),
            gateway_mac: Some("52:55:0a:00:02:02".to_owned()),
            dns: vec!["nameserver 10.0.2.3".to_owned(), String::new()],
            mtu: 1500,
        }
    }

    fn interface(&self) -> Interface {
        Interface {
            device: self.device.clone(),
            name: self.device.clone(),
            IPAddresses: vec![ipv4(&self.address, &self.prefix.to_string())],
            mtu: self.mtu,
            hwAddr: self.mac.clone(),
            ..Default::default()
        }
    }

    fn routes(&self) -> Vec<Route> {
        let on_link = Route {
            dest: self.network.clone(),
            device: self.device.clone(),
            source: self.address.clone(),
            scope: SCOPE_LINK,
            ..Default::default()
        };
        let default =
            Route { gateway: self.gateway.clone(), device: self.device.clone(), ..Default::default() };
        vec![on_link, default]
    }

    fn neighbors(&self) -> Vec<ARPNeighbor> {
        let neighbor = |mac: &String| ARPNeighbor {
            toIPAddress: MessageField::some(ipv4(&self.gateway, "")),
            device: self.device.clone(),
            lladdr: mac.clone(),
            state: PERMANENT,
            ..Default::default()
        };
        self.gateway_mac.iter().map(neighbor).collect()
    }
}

fn ipv4(address: &str, mask: &str) -> IPAddress {
    IPAddress { address: address.to_owned(), mask: mask.to_owned(), ..Default::default() }
}

/// `Check`, `SetPolicy`, network, `CreateSandbox`, `GetGuestDetails`: the Go shim's order.
pub(super) async fn create(
    client: &AgentClient,
    pod: &Pod,
    sandbox_id: &str,
    network: Option<&NetworkConfig>,
    timeout: Duration,
) -> Result<(), AgentError> {
    client.check(timeout).await?;
    if let Some(policy) = &pod.policy {
        let request = SetPolicyRequest { policy: policy.clone(), ..Default::default() };
        rpc!(client, set_policy, &request, timeout)?;
    }
    if let Some(network) = network {
        configure(client, network, timeout).await?;
    }
    let shm = Storage {
        driver: "ephemeral".to_owned(),
        source: "shm".to_owned(),
        fstype: "tmpfs".to_owned(),
        options: ["noexec", "nosuid", "nodev", "mode=1777", "size=67108864"].map(str::to_owned).to_vec(),
        mount_point: super::spec::SHM.to_owned(),
        ..Default::default()
    };
    let request = CreateSandboxRequest {
        hostname: pod.hostname.clone(),
        dns: network.map(|network| network.dns.clone()).unwrap_or_default(),
        storages: vec![shm],
        sandbox_id: sandbox_id.to_owned(),
        ..Default::default()
    };
    rpc!(client, create_sandbox, &request, timeout)?;
    let request = GuestDetailsRequest { mem_block_size: true, mem_hotplug_probe: true, ..Default::default() };
    rpc!(client, get_guest_details, &request, timeout)?;
    Ok(())
}

/// Asks for out-of-memory events, one after the other, until the agent has no more to say; ids of containers go to
/// `events`.
pub(super) fn watch_memory(client: AgentClient, events: Arc<Mutex<Vec<String>>>) -> JoinHandle<()> {
    tokio::spawn(async move {
        // An agent that can't tell ends it, as the end of the sandbox does.
        while let Ok(event) = rpc!(client, get_oom_event, &GetOOMEventRequest::default(), Duration::ZERO) {
            let mut events = events.lock().unwrap_or_else(PoisonError::into_inner);
            if events.len() < MEMORY_EVENTS {
                events.push(event.container_id);
            }
        }
    })
}

async fn configure(
    client: &AgentClient,
    network: &NetworkConfig,
    timeout: Duration,
) -> Result<(), AgentError> {
    let request =
        UpdateInterfaceRequest { interface: MessageField::some(network.interface()), ..Default::default() };
    for attempt in 1.. {
        match rpc!(client, update_interface, &request, timeout) {
            Ok(_) => break,
            // A refusal stays one.
            Err(error) if attempt == LINK_TRIES || error.code().is_none() => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
    let neighbors = ARPNeighbors { ARPNeighbors: network.neighbors(), ..Default::default() };
    let request = AddARPNeighborsRequest { neighbors: MessageField::some(neighbors), ..Default::default() };
    rpc!(client, add_arp_neighbors, &request, timeout)?;
    let routes = Routes { Routes: network.routes(), ..Default::default() };
    let request = UpdateRoutesRequest { routes: MessageField::some(routes), ..Default::default() };
    rpc!(client, update_routes, &request, timeout)?;
    Ok(())
}

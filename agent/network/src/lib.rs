//! The pod's interfaces, routes, neighbours and packet filter, as the runtime asks for them: over
//! rtnetlink, but for the packet filter, which only its own programs can write.
//!
//! The wire belongs to the host anyway; what it must not do in a sealed VM is divert traffic that stays
//! inside the pod. So there nothing may touch `lo` or a loopback address ([`Reach::Outside`]).

mod addresses;
mod check;
mod error;
pub mod iptables;
mod link;
mod request;
mod routes;

pub use check::Reach;
pub use error::NetworkError;
pub use request::{Address, InterfaceRequest, NeighbourRequest, RouteRequest};

use std::time::Duration;

use error::kernel;
use rtnetlink::packet_route::neighbour::{NeighbourFlags, NeighbourState};
use rtnetlink::{Error, Handle};
use tokio::sync::{Mutex, MutexGuard};

/// The kernel's network configuration.
pub struct Network {
    /// The kernel gives one list at a time on a connection.
    handle: Mutex<Handle>,
}

impl Network {
    /// Connects to the kernel; the connection is served by a task of the current run-time.
    pub fn connect() -> std::io::Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        Ok(Self { handle: Mutex::new(handle) })
    }

    /// Brings the loopback interface up.
    pub async fn loopback_up(&self) -> Result<(), NetworkError> {
        let handle = self.handle().await;
        let lo = link::by_name(&handle, "lo").await?;
        link::up(&handle, lo.index).await
    }

    /// Configures the interface with the request's MAC address, or else its name: name, MTU, ARP,
    /// addresses, up. It may be hot-plugged and come later than the request: `patience`.
    pub async fn update_interface(
        &self,
        request: &InterfaceRequest,
        patience: Duration,
    ) -> Result<(), NetworkError> {
        let link = link::wait_for(&self.handle, request, patience).await?;
        let handle = self.handle().await;
        link::configure(&handle, &link, request).await?;
        addresses::replace(&handle, link.index, &request.addresses).await?;
        link::up(&handle, link.index).await
    }

    /// Every interface.
    pub async fn interfaces(&self) -> Result<Vec<InterfaceRequest>, NetworkError> {
        let handle = self.handle().await;
        let mut found = Vec::new();
        for link in link::all(&handle).await? {
            let addresses = addresses::of(&handle, link.index).await?;
            found.push(InterfaceRequest {
                device: link.name.clone(),
                name: link.name,
                mac: Some(link.mac),
                mtu: link.mtu,
                arp: link.arp,
                addresses,
            });
        }
        Ok(found)
    }

    /// Replaces all routes of the main table but those that the kernel made itself.
    pub async fn update_routes(&self, wanted: &[RouteRequest]) -> Result<(), NetworkError> {
        routes::replace(&*self.handle().await, wanted).await
    }

    /// Routes of the main table.
    pub async fn routes(&self) -> Result<Vec<RouteRequest>, NetworkError> {
        routes::all(&*self.handle().await).await
    }

    /// Adds neighbours, or replaces what is known of them.
    pub async fn add_neighbours(&self, wanted: &[NeighbourRequest]) -> Result<(), NetworkError> {
        let handle = self.handle().await;
        for neighbour in wanted {
            let link = link::by_name(&handle, &neighbour.device).await?;
            let mut request = handle.neighbours().add(link.index, neighbour.address);
            if let Some(mac) = &neighbour.mac {
                request = request.link_layer_address(mac);
            }
            if neighbour.state != 0 {
                request = request.state(NeighbourState::from(neighbour.state));
            }
            let flags = NeighbourFlags::from_bits_retain(neighbour.flags);
            let added = request.flags(flags).replace().execute().await;
            added.map_err(|error: Error| kernel("adding a neighbour", &error))?;
        }
        Ok(())
    }

    async fn handle(&self) -> MutexGuard<'_, Handle> {
        self.handle.lock().await
    }
}

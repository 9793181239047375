//! The pod's interfaces, routes and neighbours, as the runtime asks for them over rtnetlink.
//!
//! The wire belongs to the host anyway; what it must not do is divert traffic that stays inside the
//! pod. So nothing may touch `lo` or a loopback address.

mod addresses;
mod check;
mod link;
mod routes;

pub use check::{Address, InterfaceRequest, NeighbourRequest, NetworkError, RouteRequest};

use std::time::Duration;

use rtnetlink::Handle;

/// A hot-plugged interface may come later than the request that names it.
const LINK_PATIENCE: Duration = Duration::from_secs(3);

/// The kernel's network configuration.
pub struct Network {
    handle: Handle,
}

impl Network {
    /// Connects to the kernel; the connection is served by a task of the current run-time.
    pub fn connect() -> std::io::Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// Brings the loopback interface up.
    pub async fn loopback_up(&self) -> Result<(), NetworkError> {
        let lo = link::by_name(&self.handle, "lo").await?;
        link::up(&self.handle, lo.index).await
    }

    /// Configures the interface with the request's MAC address: name, MTU, addresses, up.
    pub async fn update_interface(&self, request: &InterfaceRequest) -> Result<(), NetworkError> {
        let link = link::wait_for(&self.handle, &request.mac, LINK_PATIENCE).await?;
        link::configure(&self.handle, &link, request).await?;
        addresses::replace(&self.handle, link.index, &request.addresses).await?;
        link::up(&self.handle, link.index).await
    }

    /// Every interface but the loopback one.
    pub async fn interfaces(&self) -> Result<Vec<InterfaceRequest>, NetworkError> {
        let mut found = Vec::new();
        for link in link::all(&self.handle).await? {
            if link.loopback {
                continue;
            }
            let addresses = addresses::of(&self.handle, link.index).await?;
            found.push(InterfaceRequest { name: link.name, mac: link.mac, mtu: link.mtu, addresses });
        }
        Ok(found)
    }

    /// Replaces all routes that an earlier request made.
    pub async fn update_routes(&self, wanted: &[RouteRequest]) -> Result<(), NetworkError> {
        routes::replace(&self.handle, wanted).await
    }

    /// Routes of the main table, but for those that the kernel makes itself.
    pub async fn routes(&self) -> Result<Vec<RouteRequest>, NetworkError> {
        routes::all(&self.handle).await
    }

    /// Adds permanent neighbours.
    pub async fn add_neighbours(&self, wanted: &[NeighbourRequest]) -> Result<(), NetworkError> {
        for neighbour in wanted {
            let link = link::by_name(&self.handle, &neighbour.device).await?;
            self.handle
                .neighbours()
                .add(link.index, neighbour.address)
                .link_layer_address(&neighbour.mac)
                .replace()
                .execute()
                .await
                .map_err(|e| check::kernel("adding a neighbour", &e))?;
        }
        Ok(())
    }
}

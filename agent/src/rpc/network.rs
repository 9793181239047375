//! The pod's network.

use std::sync::Arc;

use protocols::agent as wire;
use protocols::empty::Empty;
use protocols::refusal::Code;
use protocols::types;
use ttrpc::r#async::TtrpcContext;

use crate::agent::Agent;
use crate::error::{Error, Result};
use crate::network::{InterfaceRequest, NeighbourRequest, Network, NetworkError, RouteRequest};

pub(super) async fn update_interface(
    agent: &Arc<Agent>,
    _: &TtrpcContext,
    request: wire::UpdateInterfaceRequest,
) -> Result<types::Interface> {
    let wanted = InterfaceRequest::parse(&request.interface).map_err(|e| translate(&e))?;
    network(agent)?.update_interface(&wanted).await.map_err(|e| translate(&e))?;
    if let Some(address) = wanted.addresses.first() {
        agent.set_address(address.ip);
    }
    Ok(request.interface.unwrap_or_default())
}

pub(super) async fn list_interfaces(
    agent: &Arc<Agent>,
    _: &TtrpcContext,
    _: wire::ListInterfacesRequest,
) -> Result<wire::Interfaces> {
    let mut response = wire::Interfaces::new();
    let found = network(agent)?.interfaces().await.map_err(|e| translate(&e))?;
    response.Interfaces = found.iter().map(InterfaceRequest::to_wire).collect();
    Ok(response)
}

pub(super) async fn update_routes(
    agent: &Arc<Agent>,
    _: &TtrpcContext,
    request: wire::UpdateRoutesRequest,
) -> Result<wire::Routes> {
    let wanted = RouteRequest::parse_all(&request.routes).map_err(|e| translate(&e))?;
    let network = network(agent)?;
    network.update_routes(&wanted).await.map_err(|e| translate(&e))?;
    routes(network).await
}

pub(super) async fn list_routes(
    agent: &Arc<Agent>,
    _: &TtrpcContext,
    _: wire::ListRoutesRequest,
) -> Result<wire::Routes> {
    routes(network(agent)?).await
}

pub(super) async fn add_neighbours(
    agent: &Arc<Agent>,
    _: &TtrpcContext,
    request: wire::AddARPNeighborsRequest,
) -> Result<Empty> {
    let wanted = NeighbourRequest::parse_all(&request.neighbors).map_err(|e| translate(&e))?;
    network(agent)?.add_neighbours(&wanted).await.map_err(|e| translate(&e))?;
    Ok(Empty::new())
}

async fn routes(network: &Network) -> Result<wire::Routes> {
    let mut response = wire::Routes::new();
    response.Routes =
        network.routes().await.map_err(|e| translate(&e))?.iter().map(RouteRequest::to_wire).collect();
    Ok(response)
}

fn network(agent: &Agent) -> Result<&Network> {
    agent.network.as_ref().ok_or_else(|| Error::Internal("the guest's kernel has no network".into()))
}

fn translate(error: &NetworkError) -> Error {
    match error {
        NetworkError::Loopback(_) => Error::refused(Code::NetworkDenied, error.to_string()),
        NetworkError::Malformed(_) => Error::InvalidArgument(error.to_string()),
        NetworkError::NoInterface(_) | NetworkError::Kernel { .. } => Error::Internal(error.to_string()),
    }
}

//! The pod's network.

use std::sync::Arc;

use agent_network::iptables::{self, Program};
use agent_network::{InterfaceRequest, NeighbourRequest, Network, NetworkError, Reach, RouteRequest};
use protocols::agent as wire;
use protocols::empty::Empty;
use protocols::refusal::Code;
use protocols::types;
use ttrpc::r#async::TtrpcContext;

use crate::agent::Agent;
use crate::error::{Error, Result};
use crate::mode::Mode;

impl From<NetworkError> for Error {
    fn from(error: NetworkError) -> Self {
        match error {
            NetworkError::Loopback(_) => Self::refused(Code::NetworkDenied, error.to_string()),
            NetworkError::Malformed(_) => Self::InvalidArgument(error.to_string()),
            other => Self::Internal(other.to_string()),
        }
    }
}

pub(super) async fn update_interface(
    agent: &Arc<Agent>,
    _: &TtrpcContext,
    request: wire::UpdateInterfaceRequest,
) -> Result<types::Interface> {
    let interface = request.interface.into_option().ok_or_else(|| missing("interface"))?;
    let wanted = InterfaceRequest::parse(&interface, reach(agent))?;
    network(agent)?.update_interface(&wanted, agent.config.hotplug).await?;
    if let Some(address) = wanted.addresses.first() {
        agent.set_address(address.ip);
    }
    Ok(interface)
}

pub(super) async fn list_interfaces(
    agent: &Arc<Agent>,
    _: &TtrpcContext,
    _: wire::ListInterfacesRequest,
) -> Result<wire::Interfaces> {
    let mut response = wire::Interfaces::new();
    let found = network(agent)?.interfaces().await?;
    response.Interfaces = found.iter().map(InterfaceRequest::to_wire).collect();
    Ok(response)
}

pub(super) async fn update_routes(
    agent: &Arc<Agent>,
    _: &TtrpcContext,
    request: wire::UpdateRoutesRequest,
) -> Result<wire::Routes> {
    let routes = request.routes.into_option().ok_or_else(|| missing("routes"))?;
    let wanted = RouteRequest::parse_all(&routes, reach(agent))?;
    let network = network(agent)?;
    network.update_routes(&wanted).await?;
    list(network).await
}

pub(super) async fn list_routes(
    agent: &Arc<Agent>,
    _: &TtrpcContext,
    _: wire::ListRoutesRequest,
) -> Result<wire::Routes> {
    list(network(agent)?).await
}

pub(super) async fn add_neighbours(
    agent: &Arc<Agent>,
    _: &TtrpcContext,
    request: wire::AddARPNeighborsRequest,
) -> Result<Empty> {
    let neighbours = request.neighbors.into_option().ok_or_else(|| missing("neighbors"))?;
    let wanted = NeighbourRequest::parse_all(&neighbours, reach(agent))?;
    network(agent)?.add_neighbours(&wanted).await?;
    Ok(Empty::new())
}

pub(super) async fn rules(
    agent: &Arc<Agent>,
    _: &TtrpcContext,
    request: wire::GetIPTablesRequest,
) -> Result<wire::GetIPTablesResponse> {
    let mut response = wire::GetIPTablesResponse::new();
    response.data = run(agent, &Program::save(request.is_ipv6)?, &[]).await?;
    Ok(response)
}

pub(super) async fn set_rules(
    agent: &Arc<Agent>,
    _: &TtrpcContext,
    request: wire::SetIPTablesRequest,
) -> Result<wire::SetIPTablesResponse> {
    iptables::check(&request.data)?;
    let mut response = wire::SetIPTablesResponse::new();
    response.data = run(agent, &Program::restore(request.is_ipv6)?, &request.data).await?;
    Ok(response)
}

async fn run(agent: &Agent, program: &Program, input: &[u8]) -> Result<Vec<u8>> {
    let ended = agent.reaper.output(&mut program.command(), input).await;
    let ended = ended.map_err(|error| program.failed(error))?;
    Ok(program.outcome(ended.code, ended.stdout, &ended.stderr)?)
}

async fn list(network: &Network) -> Result<wire::Routes> {
    let mut response = wire::Routes::new();
    response.Routes = network.routes().await?.iter().map(RouteRequest::to_wire).collect();
    Ok(response)
}

fn network(agent: &Agent) -> Result<&Network> {
    agent.network.as_ref().ok_or_else(|| Error::Internal("the guest's kernel has no network".into()))
}

/// In a confidential VM nothing that stays inside the pod is touched.
fn reach(agent: &Agent) -> Reach {
    match agent.mode {
        Mode::Sealed(_) | Mode::Policy(_) => Reach::Outside,
        Mode::Unsealed => Reach::All,
    }
}

fn missing(field: &str) -> Error {
    Error::InvalidArgument(format!("the request has no {field}"))
}

//! Routes of the main table.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures::TryStreamExt;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteProtocol,
    RouteScope, RouteType,
};
use rtnetlink::{Handle, RouteMessageBuilder};

use super::error::{NetworkError, exists, kernel};
use super::link;
use super::request::{Address, RouteRequest};

/// `RTNH_F_PERVASIVE` and `RTNH_F_ONLINK`, as in requests.
const FLAGS: RouteFlags = RouteFlags::Pervasive.union(RouteFlags::Onlink);

/// Removes every route but the kernel's own, then adds `wanted`: those without gateway first, because the
/// others' gateways must be reachable.
pub(super) async fn replace(handle: &Handle, wanted: &[RouteRequest]) -> Result<(), NetworkError> {
    let indices = indices(handle).await?;
    let mut messages = Vec::new();
    let mut ordered: Vec<&RouteRequest> = wanted.iter().collect();
    ordered.sort_by_key(|route| route.gateway.is_some());
    for route in ordered {
        let index = *indices
            .get(&route.device)
            .ok_or_else(|| NetworkError::NoInterface(format!("named '{}'", route.device)))?;
        messages.push(message(route, index));
    }
    for old in list(handle).await? {
        if old.header.protocol != RouteProtocol::Kernel {
            handle.route().del(old).execute().await.map_err(|e| kernel("removing a route", &e))?;
        }
    }
    for message in messages {
        match handle.route().add(message).execute().await {
            Ok(()) => {}
            // The kernel made it itself when the address was set.
            Err(error) if exists(&error) => {}
            Err(error) => return Err(kernel("adding a route", &error)),
        }
    }
    Ok(())
}

pub(super) async fn all(handle: &Handle) -> Result<Vec<RouteRequest>, NetworkError> {
    let names: HashMap<u32, String> =
        indices(handle).await?.into_iter().map(|(name, index)| (index, name)).collect();
    let routes = list(handle).await?;
    Ok(routes.iter().filter_map(|route| request(route, &names)).collect())
}

fn message(route: &RouteRequest, index: u32) -> RouteMessage {
    let mut message = if route.v6 {
        RouteMessageBuilder::<Ipv6Addr>::new().build()
    } else {
        RouteMessageBuilder::<Ipv4Addr>::new().build()
    };
    message.header.scope = RouteScope::from(route.scope);
    if route.gateway.is_none() && route.scope == 0 && !route.v6 {
        message.header.scope = RouteScope::Link;
    }
    message.attributes.push(RouteAttribute::Oif(index));
    if let Some(destination) = route.destination {
        message.header.destination_prefix_length = destination.prefix;
        message.attributes.push(RouteAttribute::Destination(to_attribute(destination.ip)));
    }
    if let Some(gateway) = route.gateway {
        message.attributes.push(RouteAttribute::Gateway(to_attribute(gateway)));
    }
    if let Some(source) = route.source {
        message.attributes.push(RouteAttribute::PrefSource(to_attribute(source)));
    }
    if route.mtu != 0 {
        message.attributes.push(RouteAttribute::Metrics(vec![RouteMetric::Mtu(route.mtu)]));
    }
    message.header.flags |= RouteFlags::from_bits_retain(route.flags) & FLAGS;
    message
}

fn request(message: &RouteMessage, names: &HashMap<u32, String>) -> Option<RouteRequest> {
    let mut route = RouteRequest {
        destination: None,
        gateway: None,
        source: None,
        device: String::new(),
        scope: message.header.scope.into(),
        v6: message.header.address_family == AddressFamily::Inet6,
        flags: (message.header.flags & FLAGS).bits(),
        mtu: 0,
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => route.device.clone_from(names.get(index)?),
            RouteAttribute::Destination(address) => {
                let ip = from_attribute(address)?;
                route.destination = Some(Address { ip, prefix: message.header.destination_prefix_length });
            }
            RouteAttribute::Gateway(address) => route.gateway = from_attribute(address),
            RouteAttribute::PrefSource(address) => route.source = from_attribute(address),
            RouteAttribute::Metrics(metrics) => {
                let mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) => Some(*mtu),
                    _ => None,
                });
                route.mtu = mtu.unwrap_or(0);
            }
            _ => {}
        }
    }
    Some(route)
}

async fn list(handle: &Handle) -> Result<Vec<RouteMessage>, NetworkError> {
    let mut found = Vec::new();
    for query in
        [RouteMessageBuilder::<Ipv4Addr>::new().build(), RouteMessageBuilder::<Ipv6Addr>::new().build()]
    {
        let mut stream = std::pin::pin!(handle.route().get(query).execute());
        while let Some(route) = stream.try_next().await.map_err(|e| kernel("listing routes", &e))? {
            if route.header.table == RouteHeader::RT_TABLE_MAIN && route.header.kind == RouteType::Unicast {
                found.push(route);
            }
        }
    }
    Ok(found)
}

async fn indices(handle: &Handle) -> Result<HashMap<String, u32>, NetworkError> {
    Ok(link::all(handle).await?.into_iter().map(|link| (link.name, link.index)).collect())
}

fn to_attribute(ip: IpAddr) -> RouteAddress {
    match ip {
        IpAddr::V4(ip) => RouteAddress::Inet(ip),
        IpAddr::V6(ip) => RouteAddress::Inet6(ip),
    }
}

fn from_attribute(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some(IpAddr::V4(*ip)),
        RouteAddress::Inet6(ip) => Some(IpAddr::V6(*ip)),
        _ => None,
    }
}

//! Addresses of a link.

use futures::TryStreamExt;
use rtnetlink::Handle;
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope};

use super::error::{NetworkError, kernel};
use super::request::Address;

/// Makes `wanted` the link's addresses; the kernel's own link-local ones stay.
pub(super) async fn replace(handle: &Handle, index: u32, wanted: &[Address]) -> Result<(), NetworkError> {
    for (address, message) in list(handle, index).await? {
        if !wanted.contains(&address) && message.header.scope != AddressScope::Link {
            handle.address().del(message).execute().await.map_err(|e| kernel("removing an address", &e))?;
        }
    }
    for address in wanted {
        let mut request = handle.address().add(index, address.ip, address.prefix).replace();
        if address.ip.is_ipv6() {
            // The host gave it away once; a route may name it as its source right now.
            request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        }
        request.execute().await.map_err(|e| kernel("adding an address", &e))?;
    }
    Ok(())
}

pub(super) async fn of(handle: &Handle, index: u32) -> Result<Vec<Address>, NetworkError> {
    Ok(list(handle, index).await?.into_iter().map(|(address, _)| address).collect())
}

async fn list(handle: &Handle, index: u32) -> Result<Vec<(Address, AddressMessage)>, NetworkError> {
    let mut found = Vec::new();
    let mut stream = std::pin::pin!(handle.address().get().set_link_index_filter(index).execute());
    while let Some(message) = stream.try_next().await.map_err(|e| kernel("listing addresses", &e))? {
        let own = message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(ip) => Some(*ip),
            _ => None,
        });
        // Where there is a peer, this is the peer's.
        let other = message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(ip) => Some(*ip),
            _ => None,
        });
        let ip = own.or(other);
        if let Some(ip) = ip {
            found.push((Address { ip, prefix: message.header.prefix_len }, message));
        }
    }
    Ok(found)
}

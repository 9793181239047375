//! Links: found by MAC address or name, named, sized, brought up.

use std::time::Duration;

use futures::TryStreamExt;
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags};
use rtnetlink::{Handle, LinkUnspec};
use tokio::time::{Instant, sleep};

use super::check::{InterfaceRequest, NetworkError, kernel};

pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) mac: [u8; 6],
    pub(super) mtu: u32,
    pub(super) loopback: bool,
    pub(super) up: bool,
}

pub(super) async fn all(handle: &Handle) -> Result<Vec<Link>, NetworkError> {
    let mut links = Vec::new();
    let mut stream = std::pin::pin!(handle.link().get().execute());
    while let Some(message) = stream.try_next().await.map_err(|e| kernel("listing interfaces", &e))? {
        let mut link = Link {
            index: message.header.index,
            name: String::new(),
            mac: [0; 6],
            mtu: 0,
            loopback: message.header.flags.contains(LinkFlags::Loopback),
            up: message.header.flags.contains(LinkFlags::Up),
        };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::Address(bytes) => link.mac = bytes.try_into().unwrap_or_default(),
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                _ => {}
            }
        }
        links.push(link);
    }
    Ok(links)
}

pub(super) async fn by_name(handle: &Handle, name: &str) -> Result<Link, NetworkError> {
    let found = all(handle).await?.into_iter().find(|link| link.name == name);
    found.ok_or_else(|| NetworkError::NoInterface(format!("named '{name}'")))
}

pub(super) async fn wait_for(
    handle: &Handle,
    mac: &[u8; 6],
    patience: Duration,
) -> Result<Link, NetworkError> {
    let end = Instant::now() + patience;
    loop {
        let found = all(handle).await?.into_iter().find(|link| link.mac == *mac && !link.loopback);
        match found {
            Some(link) => return Ok(link),
            None if Instant::now() < end => sleep(Duration::from_millis(20)).await,
            None => return Err(NetworkError::NoInterface("with that MAC address".into())),
        }
    }
}

pub(super) async fn configure(
    handle: &Handle,
    link: &Link,
    wanted: &InterfaceRequest,
) -> Result<(), NetworkError> {
    let rename = link.name != wanted.name;
    if rename && link.up {
        // A link that is up can't be renamed.
        set(handle, LinkUnspec::new_with_index(link.index).down().build(), "bringing an interface down")
            .await?;
    }
    let mut message = LinkUnspec::new_with_index(link.index);
    if rename {
        message = message.name(&wanted.name);
    }
    if wanted.mtu != 0 && wanted.mtu != link.mtu {
        message = message.mtu(wanted.mtu);
    }
    set(handle, message.build(), "configuring an interface").await
}

pub(super) async fn up(handle: &Handle, index: u32) -> Result<(), NetworkError> {
    set(handle, LinkUnspec::new_with_index(index).up().build(), "bringing an interface up").await
}

async fn set(
    handle: &Handle,
    message: rtnetlink::packet_route::link::LinkMessage,
    step: &'static str,
) -> Result<(), NetworkError> {
    handle.link().set(message).execute().await.map_err(|e| kernel(step, &e))
}

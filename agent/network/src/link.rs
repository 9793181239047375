//! Links: found by MAC address or name, named, sized, brought up.

use std::time::Duration;

use futures::TryStreamExt;
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::{Handle, LinkUnspec};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use super::check::mac_text;
use super::error::{NetworkError, kernel};
use super::request::InterfaceRequest;

/// Between two looks for a link that isn't there yet.
const LOOK: Duration = Duration::from_millis(20);

pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) mac: [u8; 6],
    pub(super) mtu: u32,
    pub(super) arp: bool,
    loopback: bool,
    up: bool,
}

pub(super) async fn all(handle: &Handle) -> Result<Vec<Link>, NetworkError> {
    let mut links = Vec::new();
    let mut stream = std::pin::pin!(handle.link().get().execute());
    while let Some(message) = stream.try_next().await.map_err(|e| kernel("listing interfaces", &e))? {
        let flags = message.header.flags;
        let mut link = Link {
            index: message.header.index,
            name: String::new(),
            mac: [0; 6],
            mtu: 0,
            arp: !flags.contains(LinkFlags::Noarp),
            loopback: flags.contains(LinkFlags::Loopback),
            up: flags.contains(LinkFlags::Up),
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

/// The link that a request means, once it is there. Others may ask the kernel meanwhile.
pub(super) async fn wait_for(
    handle: &Mutex<Handle>,
    wanted: &InterfaceRequest,
    patience: Duration,
) -> Result<Link, NetworkError> {
    let end = Instant::now() + patience;
    loop {
        let links = all(&*handle.lock().await).await?;
        let found = links.into_iter().find(|link| match &wanted.mac {
            Some(mac) => link.mac == *mac && !link.loopback,
            None => link.name == wanted.device,
        });
        if let Some(link) = found {
            return Ok(link);
        }
        if Instant::now() >= end {
            let which = match &wanted.mac {
                Some(mac) => format!("with the MAC address {}", mac_text(mac)),
                None => format!("named '{}'", wanted.device),
            };
            return Err(NetworkError::NoInterface(format!("{which} came within {} s", patience.as_secs())));
        }
        sleep(LOOK).await;
    }
}

/// Names and sizes a link. Another one that has the name takes the link's old one.
pub(super) async fn configure(
    handle: &Handle,
    link: &Link,
    wanted: &InterfaceRequest,
) -> Result<(), NetworkError> {
    if link.name != wanted.name {
        let other = all(handle).await?.into_iter().find(|other| other.name == wanted.name);
        if let Some(other) = &other {
            rename(handle, other, &format!("swap{}", other.index)).await?;
        }
        rename(handle, link, &wanted.name).await?;
        if let Some(other) = &other {
            rename(handle, other, &link.name).await?;
            if other.up {
                up(handle, other.index).await?;
            }
        }
    }
    let mut message = LinkUnspec::new_with_index(link.index);
    if wanted.mtu != 0 && wanted.mtu != link.mtu {
        message = message.mtu(wanted.mtu);
    }
    if wanted.arp != link.arp {
        message = message.arp(wanted.arp);
    }
    set(handle, message.build(), "configuring an interface").await
}

async fn rename(handle: &Handle, link: &Link, name: &str) -> Result<(), NetworkError> {
    if link.up {
        // A link that is up can't be renamed.
        let down = LinkUnspec::new_with_index(link.index).down().build();
        set(handle, down, "bringing an interface down").await?;
    }
    set(handle, LinkUnspec::new_with_index(link.index).name(name).build(), "renaming an interface").await
}

pub(super) async fn up(handle: &Handle, index: u32) -> Result<(), NetworkError> {
    set(handle, LinkUnspec::new_with_index(index).up().build(), "bringing an interface up").await
}

async fn set(handle: &Handle, message: LinkMessage, step: &'static str) -> Result<(), NetworkError> {
    handle.link().set(message).execute().await.map_err(|e| kernel(step, &e))
}

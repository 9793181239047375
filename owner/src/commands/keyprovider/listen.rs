//! `sealpod keyprovider --listen`: loopback and unix sockets; beyond them only over TLS with clients' certificates,
//! since whoever reaches this service opens the owner's images.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use owner_image::provider::server::{self, TlsFiles};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use super::KeyProviderArgs;
use super::handler::KeyProvider;

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ListenAddress {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form =
            || "an IP address with a port, such as 127.0.0.1:50051, or unix:/PATH is needed".to_owned();
        match text.strip_prefix("unix:") {
            Some(path) => {
                let path = PathBuf::from(path.strip_prefix("//").unwrap_or(path));
                path.is_absolute().then_some(Self::Unix(path)).ok_or_else(form)
            }
            None => text.parse().map(Self::Tcp).map_err(|_| form()),
        }
    }
}

/// Serves until it is told to end.
pub(super) fn run(address: &ListenAddress, args: &KeyProviderArgs, provider: KeyProvider) -> Result<()> {
    let files = match (&args.tls_cert, &args.tls_key, &args.client_ca) {
        (Some(certificate), Some(key), Some(client_ca)) => Some(TlsFiles {
            certificate: certificate.clone(),
            key: key.clone(),
            client_ca: client_ca.clone(),
        }),
        _ => None,
    };
    check(address, files.is_some())?;
    let tls = files.as_ref().map(server::tls).transpose()?;
    let provider = Arc::new(provider);
    crate::block_on(async {
        let mut end = signal(SignalKind::terminate()).context("signals")?;
        let serving = async {
            match address {
                ListenAddress::Tcp(address) => {
                    let listener = TcpListener::bind(address)
                        .await
                        .with_context(|| format!("listening on {address}"))?;
                    println!("listening on {}", listener.local_addr()?);
                    Ok(server::serve_tcp(listener, tls, provider).await?)
                }
                ListenAddress::Unix(path) => {
                    let listener = server::listen_unix(path).with_context(|| path.display().to_string())?;
                    println!("listening on unix:{}", path.display());
                    Ok(server::serve_unix(listener, provider).await?)
                }
            }
        };
        let result = tokio::select! {
            result = serving => result,
            _ = end.recv() => Ok(()),
            _ = tokio::signal::ctrl_c() => Ok(()),
        };
        if let ListenAddress::Unix(path) = address {
            let _ = std::fs::remove_file(path);
        }
        result
    })?
}

fn check(address: &ListenAddress, tls: bool) -> Result<()> {
    match address {
        ListenAddress::Tcp(address) => ensure!(
            address.ip().is_loopback() || tls,
            "--listen {address} is reached from other machines, and whoever reaches it opens your images; give \
             --tls-cert, --tls-key and --client-ca, or listen on 127.0.0.1 or unix:PATH"
        ),
        ListenAddress::Unix(_) => ensure!(!tls, "a unix socket needs no TLS; leave --tls-cert out"),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_unless_clients_show_certificates() {
        for (text, plain, over_tls) in [
            ("127.0.0.1:1", true, true),
            ("[::1]:1", true, true),
            ("0.0.0.0:1", false, true),
            ("192.0.2.1:1", false, true),
            ("[::]:1", false, true),
            ("unix:/run/x", true, false),
            ("unix:///run/x", true, false),
        ] {
            let address = text.parse().unwrap();
            assert_eq!(
                (check(&address, false).is_ok(), check(&address, true).is_ok()),
                (plain, over_tls),
                "{text}"
            );
        }
        for bad in ["localhost:1", "127.0.0.1", "unix:x", "unix:", ":1", ""] {
            assert!(bad.parse::<ListenAddress>().is_err(), "{bad}");
        }
    }
}

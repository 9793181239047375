//! Host names to addresses. The binary is static, so libc's resolver can't load its plug-ins; the name
//! servers are those in `/etc/resolv.conf`, read anew for each look-up because the agent writes it late.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use hickory_resolver::config::LookupIpStrategy;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::{TokioResolver, system_conf};

/// More than this much of a resolver configuration isn't one.
const MAX_CONFIGURATION: u64 = 64 << 10;

/// Turns registry hosts into socket addresses.
#[derive(Clone, Debug)]
pub(crate) struct Resolver {
    configuration: PathBuf,
}

impl Default for Resolver {
    fn default() -> Self {
        Self::from_file(Path::new("/etc/resolv.conf"))
    }
}

impl Resolver {
    pub(crate) fn from_file(configuration: &Path) -> Self {
        Self { configuration: configuration.to_owned() }
    }

    /// Addresses of `host`, in the order to try them. An address literal needs no configuration.
    pub(crate) async fn resolve(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        // RFC 6761 section 6.3: never a name server's business.
        if host == "localhost" {
            let own: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
            return Ok(own.map(|address| SocketAddr::new(address, port)).to_vec());
        }
        let resolver = self.resolver()?;
        let found = resolver.lookup_ip(host).await.map_err(|e| format!("host name {host}: {e}"))?;
        let addresses: Vec<_> = found.iter().map(|ip| SocketAddr::new(ip, port)).take(8).collect();
        if addresses.is_empty() {
            return Err(format!("host name {host} has no address"));
        }
        Ok(addresses)
    }

    fn resolver(&self) -> Result<TokioResolver, String> {
        let file = self.configuration.display();
        let text = std::fs::File::open(&self.configuration)
            .and_then(|f| {
                let mut text = Vec::new();
                std::io::Read::read_to_end(&mut std::io::Read::take(f, MAX_CONFIGURATION), &mut text)?;
                Ok(text)
            })
            .map_err(|e| format!("name servers: {file}: {e}"))?;
        let (config, options) =
            system_conf::parse_resolv_conf(text).map_err(|e| format!("name servers: {file}: {e}"))?;
        let mut builder =
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default()).with_options(options);
        builder.options_mut().ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        builder.build().map_err(|e| format!("name servers: {file}: {e}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_needs_no_configuration() {
        let resolver = Resolver::from_file(Path::new("/nonexistent/resolv.conf"));
        let want: SocketAddr = "10.0.2.2:5000".parse().unwrap();
        assert_eq!(resolver.resolve("10.0.2.2", 5000).await.unwrap(), [want]);
        assert_eq!(resolver.resolve("::1", 1).await.unwrap(), ["[::1]:1".parse().unwrap()]);
    }

    /// Answers one name server's questions: A is 127.0.0.9, anything else is empty.
    fn serve(socket: &std::net::UdpSocket) {
        let mut packet = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut packet) {
            let question_end = 12 + packet[12..length].iter().position(|b| *b == 0).unwrap() + 5;
            let is_a = packet[question_end - 4..question_end - 2] == [0, 1];
            let mut answer = packet[..question_end].to_vec();
            // Response, recursion available; one question, one or no answer.
            answer[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
            if is_a {
                answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 9]);
            }
            socket.send_to(&answer, from).unwrap();
        }
    }

    #[tokio::test]
    async fn names_are_asked_of_the_configured_server() {
        let Ok(socket) = std::net::UdpSocket::bind("127.53.53.53:53") else {
            println!("skipped: needs root to listen on port 53");
            return;
        };
        std::thread::spawn(move || serve(&socket));
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("resolv.conf");
        let resolver = Resolver::from_file(&file);
        resolver.resolve("registry.example", 443).await.unwrap_err();
        // Written later, as the agent does.
        std::fs::write(&file, "nameserver 127.53.53.53\noptions ndots:1\n").unwrap();
        let want: SocketAddr = "127.0.0.9:443".parse().unwrap();
        assert_eq!(resolver.resolve("registry.example", 443).await.unwrap(), [want]);
    }

    #[tokio::test]
    async fn a_name_without_name_servers_names_the_file() {
        let resolver = Resolver::from_file(Path::new("/nonexistent/resolv.conf"));
        let error = resolver.resolve("registry.example", 443).await.unwrap_err();
        assert!(error.contains("/nonexistent/resolv.conf"), "{error}");
    }
}

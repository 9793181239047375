//! What the host says about the sandbox: a host name and name servers. Pod names are generated, so the
//! owner may leave the name to the host; it is public.

use std::net::IpAddr;

use protocols::agent::CreateSandboxRequest;
use protocols::refusal::Code;
use sealed_spec::PodSpec;

use crate::error::{Error, Result};

const MAX_DNS_LINES: usize = 32;
const MAX_DNS_LINE: usize = 2048;
/// As the kernel bounds it.
const MAX_HOSTNAME: usize = 64;

/// The host's part, checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostRequest {
    /// Id of the sandbox, which is also the pause container's.
    pub id: String,
    /// Used if the sealed pod names none.
    pub hostname: Option<String>,
    /// Addresses of name servers.
    pub nameservers: Vec<IpAddr>,
    /// Search domains.
    pub searches: Vec<String>,
    /// Options of resolv.conf.
    pub options: Vec<String>,
    /// What was asked for and is not done, by name.
    pub dropped: Vec<&'static str>,
}

/// Reads a request; refuses what would weaken the guest.
pub fn check(request: &CreateSandboxRequest) -> Result<HostRequest> {
    for (asked, what) in [
        (!request.guest_hook_path.is_empty(), "guest hooks"),
        (!request.kernel_modules.is_empty(), "kernel modules"),
    ] {
        if asked {
            return Err(Error::refused(Code::RpcDenied, format!("CreateSandbox asks for {what}")));
        }
    }
    if !crate::container::valid_id(&request.sandbox_id) {
        return Err(Error::InvalidArgument("malformed sandbox id".into()));
    }
    let mut host = HostRequest { id: request.sandbox_id.clone(), ..HostRequest::default() };
    match request.hostname.as_str() {
        "" => {}
        name if valid_hostname(name) => host.hostname = Some(name.to_owned()),
        _ => host.dropped.push("hostname"),
    }
    if !request.storages.is_empty() {
        // The stock runtime always asks for /dev/shm and often for a shared directory.
        host.dropped.push("storages");
    }
    if request.dns.len() > MAX_DNS_LINES {
        return Err(Error::InvalidArgument("too many dns lines".into()));
    }
    for line in &request.dns {
        if !dns_line(&mut host, line) {
            host.dropped.push("dns line");
        }
    }
    Ok(host)
}

/// The sealed pod's host name; if it leaves that open, the host's; else a fixed one.
pub(super) fn choose(pod: &PodSpec, host: &HostRequest) -> String {
    let sealed = pod.hostname.as_ref();
    sealed.or(host.hostname.as_ref()).cloned().unwrap_or_else(|| "sealpod".to_owned())
}

fn dns_line(host: &mut HostRequest, line: &str) -> bool {
    if line.len() > MAX_DNS_LINE || line.chars().any(|c| c.is_control() && c != '\t') {
        return false;
    }
    let mut words = line.split_whitespace();
    match words.next() {
        // Real clients send empty lines.
        None => true,
        Some("nameserver") => match words.next().map(str::parse::<IpAddr>) {
            Some(Ok(ip)) if !ip.is_loopback() && !ip.is_unspecified() => {
                host.nameservers.push(ip);
                true
            }
            _ => false,
        },
        Some("search") => {
            let words: Vec<&str> = words.collect();
            let fine = words.iter().all(|word| valid_domain(word));
            host.searches.extend(words.into_iter().filter(|_| fine).map(str::to_owned));
            fine
        }
        Some("options") => {
            let words: Vec<&str> = words.collect();
            let fine = words.iter().all(|word| valid_option(word));
            host.options.extend(words.into_iter().filter(|_| fine).map(str::to_owned));
            fine
        }
        Some(_) => false,
    }
}

fn valid_hostname(name: &str) -> bool {
    name.len() <= MAX_HOSTNAME && name.split('.').all(valid_label)
}

fn valid_label(label: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    !label.is_empty()
        && label.len() <= 63
        && label.bytes().all(plain)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

fn valid_domain(domain: &str) -> bool {
    let inner = domain.strip_suffix('.').unwrap_or(domain);
    domain == "." || inner.len() <= 253 && inner.split('.').all(|label| valid_label(&label.replace('_', "a")))
}

fn valid_option(option: &str) -> bool {
    option.len() <= 32 && option.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b':' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> CreateSandboxRequest {
        let mut request = CreateSandboxRequest::new();
        request.sandbox_id = "sandbox-1".into();
        request.hostname = "web-7d4b9".into();
        request.dns = ["nameserver 10.96.0.10", "search default.svc.cluster.local", "options ndots:5", ""]
            .map(str::to_owned)
            .to_vec();
        request
    }

    #[test]
    fn a_usual_request_is_read() {
        let host = check(&request()).unwrap();
        assert_eq!(host.hostname.as_deref(), Some("web-7d4b9"));
        assert_eq!(host.nameservers, ["10.96.0.10".parse::<IpAddr>().unwrap()]);
        assert_eq!(host.searches, ["default.svc.cluster.local"]);
        assert_eq!(host.options, ["ndots:5"]);
        assert!(host.dropped.is_empty());
    }

    #[test]
    fn hooks_and_modules_are_refused() {
        let refused = |change: fn(&mut CreateSandboxRequest)| {
            let mut request = request();
            change(&mut request);
            matches!(check(&request), Err(Error::Refused(r)) if r.code == Code::RpcDenied)
        };
        assert!(refused(|r| r.guest_hook_path = "/hooks".into()));
        assert!(refused(|r| r.kernel_modules.push(Default::default())));
    }

    #[test]
    fn hostile_names_and_lines_are_dropped_and_named() {
        let mut request = request();
        request.hostname = "a\nb".into();
        request.dns = [
            "nameserver 127.0.0.53",
            "nameserver ::1",
            "nameserver evil",
            "search a/b",
            "options ndots:5\nnameserver 6.6.6.6",
            "sortlist 1.2.3.4",
        ]
        .map(str::to_owned)
        .to_vec();
        let host = check(&request).unwrap();
        assert_eq!(host.hostname, None);
        assert!(host.nameservers.is_empty() && host.searches.is_empty() && host.options.is_empty());
        assert_eq!(host.dropped.len(), 7);
    }

    #[test]
    fn the_sealed_host_name_wins() {
        let host = check(&request()).unwrap();
        let mut pod = PodSpec::default();
        assert_eq!(choose(&pod, &host), "web-7d4b9");
        pod.hostname = Some("db".into());
        assert_eq!(choose(&pod, &host), "db");
        pod.hostname = None;
        assert_eq!(choose(&pod, &HostRequest::default()), "sealpod");
    }
}

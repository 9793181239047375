//! The agent's own `/etc/hosts` and `/etc/resolv.conf`, as the kubelet writes them.

use std::fmt::Write;
use std::net::IpAddr;

use sealed_spec::PodSpec;
use sealed_spec::podspec::DnsPolicy;

use super::HostRequest;

const LOOPBACK: &str = "# made by sealpod-agent
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
fe00::0\tip6-mcastprefix
fe00::1\tip6-allnodes
fe00::2\tip6-allrouters
";

pub(super) fn hosts(pod: &PodSpec, hostname: &str, address: Option<IpAddr>) -> String {
    let mut text = LOOPBACK.to_owned();
    if let Some(address) = address {
        let _ = writeln!(text, "{address}\t{hostname}");
    }
    for alias in &pod.host_aliases {
        let _ = writeln!(text, "{}\t{}", alias.ip, alias.hostnames.join("\t"));
    }
    text
}

/// The owner's entries come first, as far as Kubernetes appends them; with policy None they are all.
pub(super) fn resolv_conf(pod: &PodSpec, host: &HostRequest) -> String {
    let own = pod.dns_config.clone().unwrap_or_default();
    let mut nameservers: Vec<String> = Vec::new();
    let (mut searches, mut options) = (Vec::new(), Vec::new());
    if pod.dns_policy.unwrap_or_default() != DnsPolicy::None {
        nameservers.extend(host.nameservers.iter().map(IpAddr::to_string));
        searches.clone_from(&host.searches);
        options.clone_from(&host.options);
    }
    nameservers.extend(own.nameservers);
    searches.extend(own.searches);
    for option in own.options {
        // A later option of the same name replaces an earlier one.
        let prefix = format!("{}:", option.name);
        options.retain(|old: &String| *old != option.name && !old.starts_with(&prefix));
        options.push(option.value.map_or(option.name, |value| format!("{prefix}{value}")));
    }
    let mut seen = std::collections::HashSet::new();
    nameservers.retain(|server| seen.insert(server.clone()));
    let mut text = String::new();
    if !searches.is_empty() {
        let _ = writeln!(text, "search {}", searches.join(" "));
    }
    for server in nameservers {
        let _ = writeln!(text, "nameserver {server}");
    }
    if !options.is_empty() {
        let _ = writeln!(text, "options {}", options.join(" "));
    }
    text
}

#[cfg(test)]
mod tests {
    use sealed_spec::podspec::{DnsConfig, DnsOption, HostAlias};

    use super::*;

    fn host() -> HostRequest {
        HostRequest {
            nameservers: vec!["10.96.0.10".parse().unwrap()],
            searches: vec!["svc.cluster.local".into()],
            options: vec!["ndots:5".into()],
            ..HostRequest::default()
        }
    }

    fn own() -> DnsConfig {
        DnsConfig {
            nameservers: vec!["1.1.1.1".into(), "10.96.0.10".into()],
            searches: vec!["example.org".into()],
            options: vec![DnsOption { name: "ndots".into(), value: Some("2".into()) }],
        }
    }

    #[test]
    fn cluster_entries_and_the_owners_are_merged() {
        let pod = PodSpec { dns_config: Some(own()), ..PodSpec::default() };
        assert_eq!(
            resolv_conf(&pod, &host()),
            "search svc.cluster.local example.org\nnameserver 10.96.0.10\nnameserver 1.1.1.1\noptions ndots:2\n"
        );
    }

    #[test]
    fn with_policy_none_the_host_has_no_say() {
        let pod =
            PodSpec { dns_policy: Some(DnsPolicy::None), dns_config: Some(own()), ..PodSpec::default() };
        let text = resolv_conf(&pod, &host());
        assert!(text.starts_with("search example.org\nnameserver 1.1.1.1\n"), "{text}");
        let bare = PodSpec { dns_policy: Some(DnsPolicy::None), ..PodSpec::default() };
        assert_eq!(resolv_conf(&bare, &host()), "");
    }

    #[test]
    fn hosts_has_the_pod_and_the_owners_aliases() {
        let alias = HostAlias { ip: "10.1.2.3".into(), hostnames: vec!["db".into(), "db.local".into()] };
        let pod = PodSpec { host_aliases: vec![alias], ..PodSpec::default() };
        let text = hosts(&pod, "web", Some("10.0.2.15".parse().unwrap()));
        assert!(text.starts_with(LOOPBACK));
        assert!(text.ends_with("10.0.2.15\tweb\n10.1.2.3\tdb\tdb.local\n"), "{text}");
    }
}

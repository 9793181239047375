//! Values of environment variables that the host may supply where the owner granted it: service links and
//! fields of the downward API. The host picks the value, so it has to be of the form that the kubelet gives
//! it, and nothing that a shell or a program would take for more.

use std::net::IpAddr;

use crate::grants::is_service_link;

/// Longest value of a field.
const MAX_TEXT: usize = 4096;

/// Whether a variable is a service link in name and value: an address, a port, a protocol, or all three as
/// `tcp://10.0.0.1:6379`.
pub fn is_service_link_with(name: &str, value: &str) -> bool {
    if !is_service_link(name) {
        return false;
    }
    let address = |value: &str| value.parse::<IpAddr>().is_ok();
    let url = |value: &str| {
        let Some((protocol, rest)) = value.split_once("://") else { return false };
        let Some((host, number)) = rest.rsplit_once(':') else { return false };
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        is_protocol(protocol) && address(host) && is_port(number)
    };
    let tail = |suffix: &str| name.ends_with(suffix);
    if tail("_SERVICE_HOST") || tail("_TCP_ADDR") || tail("_UDP_ADDR") || tail("_SCTP_ADDR") {
        return address(value);
    }
    if tail("_TCP_PROTO") || tail("_UDP_PROTO") || tail("_SCTP_PROTO") {
        return is_protocol(value);
    }
    if name.contains("_SERVICE_PORT") || tail("_TCP_PORT") || tail("_UDP_PORT") || tail("_SCTP_PORT") {
        // A service may itself be called `x-service`: then `X_SERVICE_PORT` is its address.
        return is_port(value) || url(value);
    }
    url(value)
}

/// Whether the host may give that value to a field or resource of the downward API. Labels and annotations
/// are free text to the kubelet: annotations are bounded and no more.
pub fn is_downward_value(field: &str, value: &str) -> bool {
    if value.len() > MAX_TEXT || value.contains('\0') {
        return false;
    }
    let addresses = |value: &str| value.split(',').all(|ip| ip.parse::<IpAddr>().is_ok());
    let of = |most: usize, extra: &[u8]| {
        value.len() <= most && value.bytes().all(|b| b.is_ascii_alphanumeric() || extra.contains(&b))
    };
    match field {
        "metadata.name" | "metadata.namespace" | "spec.nodeName" | "spec.serviceAccountName" => {
            !value.is_empty() && of(253, b"-.")
        }
        "metadata.uid" => !value.is_empty() && of(64, b"-"),
        "status.hostIP" | "status.podIP" => value.parse::<IpAddr>().is_ok(),
        "status.hostIPs" | "status.podIPs" => addresses(value),
        _ if field.starts_with("limits.") || field.starts_with("requests.") => {
            !value.is_empty() && value.len() <= 20 && value.bytes().all(|b| b.is_ascii_digit())
        }
        _ if field.starts_with("metadata.labels[") => of(63, b"-_."),
        _ => field.starts_with("metadata.annotations["),
    }
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u16>().is_ok_and(|port| port > 0)
}

fn is_protocol(text: &str) -> bool {
    matches!(text, "tcp" | "udp" | "sctp")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_what_the_kubelet_makes() {
        for (name, value) in [
            ("REDIS_SERVICE_HOST", "10.0.0.11"),
            ("REDIS_SERVICE_HOST", "fd00::1"),
            ("REDIS_SERVICE_PORT", "6379"),
            ("REDIS_SERVICE_PORT_HTTP", "80"),
            ("REDIS_PORT", "tcp://10.0.0.11:6379"),
            ("REDIS_PORT", "tcp://[fd00::1]:6379"),
            ("REDIS_PORT_6379_TCP", "tcp://10.0.0.11:6379"),
            ("REDIS_PORT_6379_TCP_PROTO", "tcp"),
            ("REDIS_PORT_6379_TCP_PORT", "6379"),
            ("REDIS_PORT_6379_TCP_ADDR", "10.0.0.11"),
            ("X_SERVICE_PORT", "tcp://10.0.0.11:6379"),
        ] {
            assert!(is_service_link_with(name, value), "{name}={value}");
        }
    }

    #[test]
    fn a_name_that_fits_carries_nothing_else() {
        for (name, value) in [
            ("JMX_PORT", "9999"),
            ("DB_SERVICE_HOST", "x; cat /secret"),
            ("DB_SERVICE_HOST", "evil.example"),
            ("DB_SERVICE_HOST", ""),
            ("DB_SERVICE_PORT", "0"),
            ("DB_SERVICE_PORT", "+80"),
            ("DB_SERVICE_PORT", "65536"),
            ("DB_SERVICE_PORT_HTTP", "80 --debug"),
            ("DB_PORT", "tcp://10.0.0.1:80/$(id)"),
            ("DB_PORT", "http://10.0.0.1:80"),
            ("DB_PORT_80_TCP_PROTO", "tcp;id"),
            ("DB_PORT_80_TCP_ADDR", "10.0.0.1 x"),
            ("LD_PRELOAD", "10.0.0.1"),
        ] {
            assert!(!is_service_link_with(name, value), "{name}={value}");
        }
    }

    #[test]
    fn fields_have_the_form_of_what_they_are() {
        for (field, good, bad) in [
            ("metadata.name", "web-7d9.x", "web; id"),
            ("metadata.namespace", "shop", ""),
            ("metadata.uid", "2c2f8f3e-0000-4000-8000-000000000000", "$(id)"),
            ("spec.nodeName", "node-1.example", "node 1"),
            ("status.podIP", "10.1.2.3", "10.1.2.3,10.1.2.4"),
            ("status.podIPs", "10.1.2.3,fd00::2", "10.1.2.3;id"),
            ("limits.cpu", "2", "2; id"),
            ("requests.memory", "67108864", ""),
            ("metadata.labels['app']", "web_1", "a b"),
            ("metadata.annotations['x']", "free text", "a\0b"),
            ("metadata.unknown", "never", "never"),
        ] {
            assert_eq!(is_downward_value(field, good), field != "metadata.unknown", "{field}={good}");
            assert!(!is_downward_value(field, bad), "{field}={bad}");
        }
        assert!(!is_downward_value("metadata.annotations['x']", &"x".repeat(MAX_TEXT + 1)));
    }
}

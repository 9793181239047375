//! Kernel parameters of a pod: only those that Kubernetes calls safe, which act on the pod's own IPC and
//! network namespaces.

use std::collections::BTreeMap;

use sealed_spec::PodSpec;

use crate::OciError;

/// Kubernetes, "Safe and Unsafe Sysctls" (1.32).
const SAFE: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];

/// Names and values to set, dotted.
pub(crate) fn parameters(pod: &PodSpec) -> Result<BTreeMap<String, String>, OciError> {
    const FIELD: &str = "securityContext.sysctls";
    let mut parameters = BTreeMap::new();
    for sysctl in pod.security_context.iter().flat_map(|context| &context.sysctls) {
        let name = sysctl.name.replace('/', ".");
        if !SAFE.contains(&name.as_str()) {
            return Err(OciError::refused(FIELD, format!("{name} is not one of Kubernetes' safe sysctls")));
        }
        let plain = |b: u8| b.is_ascii_digit() || b" \t,-".contains(&b);
        if sysctl.value.is_empty() || !sysctl.value.bytes().all(plain) {
            return Err(OciError::refused(
                FIELD,
                format!("the value of {name} is not a number or a list of numbers"),
            ));
        }
        if parameters.insert(name.clone(), sysctl.value.clone()).is_some() {
            return Err(OciError::refused(FIELD, format!("{name} is set twice")));
        }
    }
    Ok(parameters)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sealed_spec::podspec::{PodSecurityContext, Sysctl};

    fn of(list: &[(&str, &str)]) -> Result<BTreeMap<String, String>, OciError> {
        let sysctls = list.iter().map(|(n, v)| Sysctl { name: (*n).into(), value: (*v).into() }).collect();
        let security_context = Some(PodSecurityContext { sysctls, ..Default::default() });
        parameters(&PodSpec { security_context, ..Default::default() })
    }

    #[test]
    fn only_safe_ones() {
        let range = "net.ipv4.ip_local_port_range";
        assert_eq!(of(&[(range, "1024 65535")]).unwrap()[range], "1024 65535");
        assert_eq!(of(&[("net/ipv4/ip_local_port_range", "1 2")]).unwrap()[range], "1 2");
        for bad in [
            "kernel.core_pattern",
            "kernel.modprobe",
            "net.ipv4.ip_forward",
            "vm.overcommit_memory",
            "kernel.shm_rmid_forced.",
        ] {
            of(&[(bad, "1")]).unwrap_err();
        }
        of(&[(range, "1"), (range, "2")]).unwrap_err();
        of(&[(range, "|/bin/sh")]).unwrap_err();
        of(&[(range, "")]).unwrap_err();
    }
}

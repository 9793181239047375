//! Kernel parameters of the guest, with the reason for each.

/// One parameter: path below `/proc/sys`, value.
pub(super) type Sysctl = (&'static str, &'static str);

pub(super) const TABLE: &[Sysctl] = &[
    // as kubelet requires of every node: databases and JVMs count on it
    ("vm/overcommit_memory", "1"),
    // the same: a pod out of memory loses a container, not the VM
    ("vm/panic_on_oom", "0"),
    // a kernel bug must not go on with secrets in memory
    ("kernel/panic_on_oops", "1"),
    ("kernel/panic", "-1"),
    // addresses and messages of the kernel are no container's business
    ("kernel/kptr_restrict", "2"),
    ("kernel/dmesg_restrict", "1"),
    // containers get no BPF and no performance counters
    ("kernel/unprivileged_bpf_disabled", "1"),
    ("kernel/perf_event_paranoid", "3"),
    // a core dump is a copy of secrets
    ("kernel/core_pattern", "|/bin/false"),
    ("fs/suid_dumpable", "0"),
    // links in world-writable directories and other users' files are not followed
    ("fs/protected_symlinks", "1"),
    ("fs/protected_hardlinks", "1"),
    ("fs/protected_fifos", "1"),
    ("fs/protected_regular", "1"),
    // containerd's default: port 80 without a capability, ping without a raw socket
    ("net/ipv4/ip_unprivileged_port_start", "0"),
    ("net/ipv4/ping_group_range", "0 2147483647"),
    // the host doesn't steer routes from the wire
    ("net/ipv4/conf/all/accept_redirects", "0"),
    ("net/ipv6/conf/all/accept_redirects", "0"),
    ("net/ipv6/conf/all/accept_ra", "0"),
    ("net/ipv6/conf/default/accept_ra", "0"),
    ("net/ipv4/conf/all/route_localnet", "0"),
];

/// Writes every parameter; returns those that this kernel doesn't have.
pub(super) fn apply(table: &[Sysctl]) -> Vec<&'static str> {
    table
        .iter()
        .filter(|(name, value)| std::fs::write(format!("/proc/sys/{name}"), value).is_err())
        .map(|(name, _)| *name)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_paths_below_proc_sys() {
        for (name, value) in TABLE {
            assert!(!name.starts_with('/') && !name.contains("..") && !name.contains('.'), "{name}");
            assert!(!value.is_empty());
        }
    }
}

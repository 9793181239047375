//! Linux capabilities of a container: the CRI runtimes' default set, changed by add and drop.

use std::collections::HashSet;

use oci_spec::runtime::{Capability, LinuxCapabilities};
use sealed_spec::podspec::SecurityContext;

use crate::OciError;

/// What containerd and CRI-O give a container.
const DEFAULT: [Capability; 14] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fsetid,
    Capability::Fowner,
    Capability::Mknod,
    Capability::NetRaw,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setfcap,
    Capability::Setpcap,
    Capability::NetBindService,
    Capability::SysChroot,
    Capability::Kill,
    Capability::AuditWrite,
];

/// Never given: each would let root in a container out of it, to the agent, its keys or the TEE's devices.
/// A confidential VM holds one pod, yet the agent in it also guards the pod's other containers and attests.
const REFUSED: [(&str, &str); 11] = [
    ("SYS_ADMIN", "it can mount devtmpfs, remove the device filter and join other namespaces"),
    ("SYS_MODULE", "it can load kernel code"),
    ("SYS_RAWIO", "it can read and write the guest's memory and ports"),
    ("SYS_PTRACE", "it can take over a process of the agent while that enters the container for an exec"),
    ("SYS_BOOT", "it can replace the kernel or end the guest"),
    ("DAC_READ_SEARCH", "it can open the agent's files by handle"),
    ("BPF", "it can remove the device filter"),
    ("PERFMON", "it can read the kernel's memory"),
    ("SYSLOG", "it can read kernel addresses"),
    ("MAC_ADMIN", "it can change the guest's access policy"),
    ("MAC_OVERRIDE", "it can bypass the guest's access policy"),
];

/// Capabilities that may be added beside the default ones.
const ADDABLE: [Capability; 16] = [
    Capability::AuditControl,
    Capability::AuditRead,
    Capability::BlockSuspend,
    Capability::CheckpointRestore,
    Capability::IpcLock,
    Capability::IpcOwner,
    Capability::Lease,
    Capability::LinuxImmutable,
    Capability::NetAdmin,
    Capability::NetBroadcast,
    Capability::SysNice,
    Capability::SysPacct,
    Capability::SysResource,
    Capability::SysTime,
    Capability::SysTtyConfig,
    Capability::WakeAlarm,
];

/// The set for a container. As CRI runtimes do: ALL in drop starts from nothing, then names are added, then
/// dropped. ALL in add is refused, since it includes what is never given.
pub(crate) fn set(context: Option<&SecurityContext>) -> Result<HashSet<Capability>, OciError> {
    const FIELD: &str = "securityContext.capabilities";
    let Some(changes) = context.and_then(|c| c.capabilities.as_ref()) else {
        return Ok(DEFAULT.into_iter().collect());
    };
    let dropped_all = changes.drop.iter().any(|name| name.eq_ignore_ascii_case("ALL"));
    let mut set: HashSet<_> = if dropped_all { HashSet::new() } else { DEFAULT.into_iter().collect() };
    for name in &changes.add {
        if name.eq_ignore_ascii_case("ALL") {
            return Err(OciError::refused(
                format!("{FIELD}.add"),
                "ALL is not given in a sealed guest; name the capabilities that are needed",
            ));
        }
        set.insert(addable(name).map_err(|reason| OciError::refused(format!("{FIELD}.add"), reason))?);
    }
    for name in changes.drop.iter().filter(|name| !name.eq_ignore_ascii_case("ALL")) {
        match known(name) {
            Some(capability) => drop(set.remove(&capability)),
            None if REFUSED.iter().any(|(refused, _)| refused == name) => {}
            None => {
                return Err(OciError::refused(
                    format!("{FIELD}.drop"),
                    format!("{name} is not a capability"),
                ));
            }
        }
    }
    Ok(set)
}

fn addable(name: &str) -> Result<Capability, String> {
    if let Some((_, why)) = REFUSED.iter().find(|(refused, _)| *refused == name) {
        return Err(format!("{name} is not given in a sealed guest: {why}"));
    }
    known(name).ok_or_else(|| format!("{name} is not a capability"))
}

fn known(name: &str) -> Option<Capability> {
    DEFAULT.into_iter().chain(ADDABLE).find(|capability| short_name(*capability) == name)
}

/// `CAP_` left off, as PodSpecs write it.
fn short_name(capability: Capability) -> String {
    let text = capability.to_string();
    text.strip_prefix("CAP_").unwrap_or(&text).to_owned()
}

/// The same set wherever an exec may raise to; nothing inheritable or ambient, so that a user other than
/// root has none (CVE-2022-24769).
pub(crate) fn sets(set: &HashSet<Capability>) -> LinuxCapabilities {
    let mut sets = LinuxCapabilities::default();
    sets.set_bounding(Some(set.clone()));
    sets.set_effective(Some(set.clone()));
    sets.set_permitted(Some(set.clone()));
    sets.set_inheritable(None);
    sets.set_ambient(None);
    sets
}

#[cfg(test)]
mod tests {
    use super::*;
    use sealed_spec::podspec::Capabilities;

    fn with(add: &[&str], drop: &[&str]) -> Result<HashSet<Capability>, OciError> {
        let list = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        let capabilities = Some(Capabilities { add: list(add), drop: list(drop) });
        set(Some(&SecurityContext { capabilities, ..Default::default() }))
    }

    #[test]
    fn add_and_drop_follow_the_runtimes() {
        let default: HashSet<_> = DEFAULT.into_iter().collect();
        assert_eq!(set(None).unwrap(), default);
        assert_eq!(with(&[], &["ALL"]).unwrap(), HashSet::new());
        let bind = HashSet::from([Capability::NetBindService]);
        assert_eq!(with(&["NET_BIND_SERVICE"], &["ALL"]).unwrap(), bind);
        assert_eq!(with(&["CHOWN"], &["ALL", "CHOWN"]).unwrap(), HashSet::new());
        let mut more = default.clone();
        more.insert(Capability::SysNice);
        more.remove(&Capability::NetRaw);
        assert_eq!(with(&["SYS_NICE"], &["NET_RAW"]).unwrap(), more);
        // Never had, so dropping it is nothing special.
        assert_eq!(with(&[], &["SYS_ADMIN"]).unwrap(), default);
    }

    #[test]
    fn what_leads_out_of_a_container_is_refused_by_name() {
        for (name, why) in REFUSED {
            let error = with(&[name], &[]).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(why), "{error}");
        }
        with(&["ALL"], &[]).unwrap_err();
        with(&["ALL"], &["ALL"]).unwrap_err();
        with(&["NO_SUCH"], &[]).unwrap_err();
        with(&[], &["NO_SUCH"]).unwrap_err();
    }

    #[test]
    fn every_capability_of_the_kernel_is_in_one_table() {
        let all: HashSet<String> = DEFAULT.into_iter().chain(ADDABLE).map(short_name).collect();
        assert_eq!(all.len(), DEFAULT.len() + ADDABLE.len());
        assert!(REFUSED.iter().all(|(name, _)| !all.contains(*name)));
        // CAP_LAST_CAP is 40 (CHECKPOINT_RESTORE).
        assert_eq!(all.len() + REFUSED.len(), 41);
    }
}

//! System call filters. A container has the RuntimeDefault profile unless its pod says Unconfined, as with
//! kubelet's `--seccomp-default`; AF_VSOCK stays closed either way. Only the 64-bit ABI is let in: a 32-bit
//! `socketcall` hides its arguments behind a pointer that a filter can't read.

use std::collections::HashSet;

use oci_spec::runtime::{
    Arch, Capability, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArgBuilder, LinuxSeccompOperator,
    LinuxSyscall, LinuxSyscallBuilder,
};
use sealed_spec::podspec::SeccompProfileType;

use crate::seccomp_table::{ALLOWED, ALLOWED_WITH, NEVER, PERSONALITIES};
use crate::{ContainerInput, OciError};

/// `include/linux/socket.h`. The kernel looks at the lower half of the argument, a filter at all of it: so
/// what is let in is listed, and a number with something in its upper half is none of the list.
const AF_VSOCK: u64 = 40;
/// The families after it: KCM, QIPCRTR, SMC, XDP, MCTP.
const LATER_FAMILIES: std::ops::RangeInclusive<u64> = AF_VSOCK + 1..=45;
/// clone(2): CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET.
const NEW_NAMESPACES: u64 = 0x7e02_0000;
const EPERM: u32 = 1;
/// What programs expect of `clone3` when it can't be filtered: they fall back to `clone`.
const ENOSYS: u32 = 38;

/// The filter of a container.
pub(crate) fn filter(
    input: &ContainerInput<'_>,
    capabilities: &HashSet<Capability>,
) -> Result<LinuxSeccomp, OciError> {
    let own = input.container.security_context.as_ref().and_then(|c| c.seccomp_profile.as_ref());
    let pod = input.pod.security_context.as_ref().and_then(|c| c.seccomp_profile.as_ref());
    let kind = own.or(pod).map_or(SeccompProfileType::RuntimeDefault, |profile| profile.kind);
    let mut seccomp = LinuxSeccomp::default();
    seccomp.set_architectures(Some(vec![Arch::ScmpArchX86_64]));
    seccomp.set_default_errno_ret(None);
    match kind {
        SeccompProfileType::RuntimeDefault => {
            seccomp.set_default_action(LinuxSeccompAction::ScmpActErrno);
            seccomp.set_default_errno_ret(Some(EPERM));
            seccomp.set_syscalls(Some(runtime_default(capabilities)?));
        }
        SeccompProfileType::Unconfined => {
            seccomp.set_default_action(LinuxSeccompAction::ScmpActAllow);
            seccomp.set_syscalls(Some(vec![
                rule(
                    &["socket"],
                    LinuxSeccompAction::ScmpActErrno,
                    &[(0, AF_VSOCK, None, LinuxSeccompOperator::ScmpCmpEq)],
                )?,
                rule(
                    &["socket"],
                    LinuxSeccompAction::ScmpActErrno,
                    &[(0, u64::from(u32::MAX), None, LinuxSeccompOperator::ScmpCmpGt)],
                )?,
                rule(NEVER, LinuxSeccompAction::ScmpActErrno, &[])?,
            ]));
        }
    }
    Ok(seccomp)
}

fn runtime_default(capabilities: &HashSet<Capability>) -> Result<Vec<LinuxSyscall>, OciError> {
    use LinuxSeccompOperator::{ScmpCmpEq, ScmpCmpLt, ScmpCmpMaskedEq};
    let allow = LinuxSeccompAction::ScmpActAllow;
    let names: Vec<&str> = ALLOWED.iter().copied().flatten().copied().collect();
    let mut rules = vec![
        rule(&names, allow, &[])?,
        rule(&["socket"], allow, &[(0, AF_VSOCK, None, ScmpCmpLt)])?,
        // No new namespace. libcontainer takes value two for the mask and value for what must be left, the
        // other way round than the specification has it.
        rule(&["clone"], allow, &[(0, 0, Some(NEW_NAMESPACES), ScmpCmpMaskedEq)])?,
    ];
    for family in LATER_FAMILIES {
        rules.push(rule(&["socket"], allow, &[(0, family, None, ScmpCmpEq)])?);
    }
    for personality in PERSONALITIES {
        rules.push(rule(&["personality"], allow, &[(0, personality, None, ScmpCmpEq)])?);
    }
    let mut refused = rule(&["clone3"], LinuxSeccompAction::ScmpActErrno, &[])?;
    refused.set_errno_ret(Some(ENOSYS));
    rules.push(refused);
    for (capability, calls) in ALLOWED_WITH {
        let held = capabilities.iter().any(|held| held.to_string().trim_start_matches("CAP_") == *capability);
        if held {
            rules.push(rule(calls, allow, &[])?);
        }
    }
    Ok(rules)
}

type Condition = (usize, u64, Option<u64>, LinuxSeccompOperator);

fn rule(
    names: &[&str],
    action: LinuxSeccompAction,
    conditions: &[Condition],
) -> Result<LinuxSyscall, OciError> {
    let mut args = Vec::new();
    for (index, value, value_two, operator) in conditions {
        let mut arg = LinuxSeccompArgBuilder::default().index(*index).value(*value).op(*operator);
        if let Some(value_two) = value_two {
            arg = arg.value_two(*value_two);
        }
        args.push(arg.build()?);
    }
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut rule = LinuxSyscallBuilder::default().names(names).action(action);
    if !args.is_empty() {
        rule = rule.args(args);
    }
    Ok(rule.build()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_names_each_call_once_and_none_of_the_refused() {
        let mut seen = HashSet::new();
        let with = ALLOWED_WITH.iter().flat_map(|(_, calls)| calls.iter());
        for name in ALLOWED.iter().copied().flatten().chain(with) {
            assert!(seen.insert(*name), "{name} is listed twice");
        }
        let own_rule = ["socket", "clone", "clone3", "personality"];
        let acting_on_the_guest = [
            "mount",
            "umount2",
            "setns",
            "unshare",
            "open_by_handle_at",
            "kexec_load",
            "init_module",
            "finit_module",
            "delete_module",
            "reboot",
            "swapon",
            "keyctl",
            "add_key",
            "request_key",
            "userfaultfd",
            "perf_event_open",
            "iopl",
            "ioperm",
            "pivot_root",
            "move_mount",
            "open_tree",
            "fsopen",
            "quotactl",
            "mount_setattr",
            "acct",
            "lookup_dcookie",
            "name_to_handle_at",
            "socketcall",
        ];
        for name in NEVER.iter().chain(&own_rule).chain(&acting_on_the_guest) {
            assert!(!seen.contains(name), "{name}");
        }
    }
}

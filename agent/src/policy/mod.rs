//! Which RPCs of the Kata agent's API a sealed VM answers, before and after its specification is open.
//!
//! The sealed specification is the policy: what isn't in this table is refused, and what is allowed
//! here is still checked against the specification where the request touches a container.

mod host_spec;
#[cfg(test)]
mod page;
mod sealed;
mod table;
pub mod update;

pub use host_spec::HostSpec;
pub use sealed::{Sealed, sealed_container};
pub use table::{Condition, ROWS, Row, Rule};

use protocols::refusal::{Code, Refusal};

/// Whether the sealed specification is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The key isn't there, or the document isn't.
    Before,
    /// Containers can be made.
    Open,
}

/// Decides by name alone.
pub fn check(rpc: &str, phase: Phase) -> Result<(), Refusal> {
    let Some(row) = ROWS.iter().find(|row| row.rpc == rpc) else {
        return Err(Refusal::new(
            Code::RpcDenied,
            format!("{rpc} is not answered in a sealed VM: it is unknown"),
        ));
    };
    let rule = match phase {
        Phase::Before => row.before,
        Phase::Open => row.open,
    };
    match rule {
        Rule::Allowed | Rule::AllowedIf(_) | Rule::Replaced(_) => Ok(()),
        Rule::Denied(Code::SpecNotOpen, _) => Err(Refusal::new(
            Code::SpecNotOpen,
            format!(
                "{rpc} is not answered before the sealed spec is open; create the sandbox and a container first"
            ),
        )),
        Rule::Denied(code, reason) => {
            Err(Refusal::new(code, format!("{rpc} is not answered in a sealed VM: {reason}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rpc_of_the_api_has_exactly_one_row() {
        let proto = include_str!("../../../protocols/proto/agent.proto");
        let mut named: Vec<&str> = proto
            .lines()
            .filter_map(|line| line.trim().strip_prefix("rpc "))
            .filter_map(|line| line.split(['(', ' ']).next())
            .collect();
        let mut ruled: Vec<&str> = ROWS.iter().map(|row| row.rpc).collect();
        named.sort_unstable();
        ruled.sort_unstable();
        assert_eq!(named, ruled);
    }

    #[test]
    fn what_weakens_the_guest_is_refused_in_both_phases() {
        for rpc in [
            "SetPolicy",
            "AddSwap",
            "AddSwapPath",
            "SetIPTables",
            "GetIPTables",
            "MemHotplugByProbe",
            "NoSuchRpc",
        ] {
            for phase in [Phase::Before, Phase::Open] {
                assert_eq!(check(rpc, phase).unwrap_err().code, Code::RpcDenied, "{rpc}");
            }
        }
        assert_eq!(check("PauseContainer", Phase::Open).unwrap_err().code, Code::PauseDenied);
    }

    #[test]
    fn before_the_specification_is_open_no_process_can_be_touched() {
        for rpc in ["ExecProcess", "WriteStdin", "GetDiagnosticData", "UpdateContainer"] {
            assert_eq!(check(rpc, Phase::Before).unwrap_err().code, Code::SpecNotOpen, "{rpc}");
            assert!(check(rpc, Phase::Open).is_ok(), "{rpc}");
        }
        for rpc in ["CreateSandbox", "CopyFile", "UpdateInterface", "CreateContainer", "DestroySandbox"] {
            assert!(check(rpc, Phase::Before).is_ok(), "{rpc}");
        }
    }
}

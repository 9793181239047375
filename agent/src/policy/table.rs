//! The table: one row for each RPC of `grpc.AgentService`. `docs/agent-policy.md` is made from it.

use protocols::refusal::Code;

/// What becomes of an RPC in a sealed VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// It tells or changes nothing that the host couldn't know or do anyway.
    Allowed,
    /// As far as a condition on its contents holds.
    AllowedIf(Condition),
    /// Done with something of the agent's or the sealed spec's in the place of what the host sent, which is
    /// named in a record.
    Replaced(&'static str),
    /// Never, and why.
    Denied(Code, &'static str),
}

/// One RPC.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// Its name.
    pub rpc: &'static str,
    /// Before the sealed spec is open.
    pub before: Rule,
    /// When it is.
    pub open: Rule,
}

/// A condition on a request's contents, checked where the request is carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// CreateSandbox.
    Sandbox,
    /// CopyFile.
    Quarantine,
    /// Interfaces, routes, neighbours.
    Network,
    /// SetGuestDateTime.
    Clock,
    /// ReseedRandomDev.
    Mixed,
    /// CreateContainer before the spec is open.
    PauseOrOpening,
    /// SignalProcess.
    StopSignal,
    /// ExecProcess.
    Exec,
    /// WriteStdin, CloseStdin.
    Attach,
    /// TtyWinResize.
    Terminal,
    /// ReadStdout, ReadStderr.
    Logs,
    /// GetDiagnosticData.
    LogsClear,
    /// UpdateContainer.
    Resources,
}

impl Condition {
    /// What has to hold, and the code of a refusal; `None` where nothing is refused.
    pub fn meaning(self) -> (Option<Code>, &'static str) {
        match self {
            Self::Sandbox => (
                Some(Code::RpcDenied),
                "no hooks, no kernel modules, no shared pid namespace but the sealed pod's; host name and name servers count only as far as the sealed spec leaves them open; storages are not made, the agent has its own",
            ),
            Self::Quarantine => (
                Some(Code::CopyDenied),
                "files, directories and links that stay below the shared directory, bounded in size and number (`COPY_LIMIT`); they are never followed or executed there",
            ),
            Self::Network => {
                (Some(Code::NetworkDenied), "only the pod's own interfaces: never `lo`, 127.0.0.0/8, ::1")
            }
            Self::Clock => (None, "not before the agent was built (answered as `INTERNAL`)"),
            Self::Mixed => (None, "mixed into the kernel's pool and not counted as entropy"),
            Self::PauseOrOpening => (
                Some(Code::SpecMissing),
                "the pause container, which is built in; any other one first has to open the sealed spec",
            ),
            Self::StopSignal => {
                (Some(Code::SignalDenied), "TERM, KILL, and the stop signal of the container or its image")
            }
            Self::Exec => (
                Some(Code::ExecDenied),
                "a placeholder of a sealed probe or hook, or an argument vector in `grants.exec`; user, environment and rights are the sealed container's",
            ),
            Self::Attach => {
                (Some(Code::AttachDenied), "`grants.attach` names the container, which has stdin: true")
            }
            Self::Terminal => {
                (Some(Code::ResizeDenied), "`grants.attach` names the container, which has tty: true")
            }
            Self::Logs => (
                None,
                "by `grants.logs`: off ends at once, sealed gives lines for the owner alone, clear what was printed",
            ),
            Self::LogsClear => (Some(Code::RpcDenied), "`grants.logs` is clear"),
            Self::Resources => (
                Some(Code::UpdateDenied),
                "limits are raised up to the sealed ones or `grants.update_resources`, or lowered; memory not below the sealed request (else limit), and not of an init container",
            ),
        }
    }
}

use Condition::{
    Attach, Clock, Exec, Logs, LogsClear, Mixed, Network, PauseOrOpening, Quarantine, Resources, Sandbox,
    StopSignal, Terminal,
};
use Rule::{Allowed, AllowedIf, Denied, Replaced};

const fn both(rpc: &'static str, rule: Rule) -> Row {
    Row { rpc, before: rule, open: rule }
}

/// Only when the spec is open.
const fn open(rpc: &'static str, open: Rule) -> Row {
    Row { rpc, before: Denied(Code::SpecNotOpen, "only the sealed spec can allow it"), open }
}

const fn never(rpc: &'static str, reason: &'static str) -> Row {
    both(rpc, Denied(Code::RpcDenied, reason))
}

/// All of them.
pub const ROWS: &[Row] = &[
    // The sandbox: what the runtime does before the first container.
    both("CreateSandbox", AllowedIf(Sandbox)),
    both("DestroySandbox", Allowed),
    both("GetGuestDetails", Allowed),
    both("GetOOMEvent", Allowed),
    both("OnlineCPUMem", Allowed),
    both("ReseedRandomDev", AllowedIf(Mixed)),
    both("SetGuestDateTime", AllowedIf(Clock)),
    both("GetMetrics", Allowed),
    // The network.
    both("UpdateInterface", AllowedIf(Network)),
    both("UpdateRoutes", AllowedIf(Network)),
    both("AddARPNeighbors", AllowedIf(Network)),
    both("ListInterfaces", Allowed),
    both("ListRoutes", Allowed),
    // Files: into the quarantine. The sealed document and granted volumes come this way.
    both("CopyFile", AllowedIf(Quarantine)),
    // Containers: before the spec is open there is the pause container alone.
    Row {
        rpc: "CreateContainer",
        before: AllowedIf(PauseOrOpening),
        open: Replaced("the sealed container: the host's specification only selects its slot"),
    },
    both("StartContainer", Allowed),
    both("RemoveContainer", Allowed),
    both("StatsContainer", Allowed),
    open("UpdateContainer", AllowedIf(Resources)),
    open("PauseContainer", PAUSE),
    open("ResumeContainer", PAUSE),
    // Processes and their streams.
    open("ExecProcess", AllowedIf(Exec)),
    both("SignalProcess", AllowedIf(StopSignal)),
    both("WaitProcess", Allowed),
    both("ReadStdout", AllowedIf(Logs)),
    both("ReadStderr", AllowedIf(Logs)),
    open("WriteStdin", AllowedIf(Attach)),
    both("CloseStdin", AllowedIf(Attach)),
    both("TtyWinResize", AllowedIf(Terminal)),
    open("GetDiagnosticData", AllowedIf(LogsClear)),
    // What would weaken the guest.
    never("SetPolicy", "the sealed spec is the policy"),
    never("AddSwap", "guest memory must not reach host storage"),
    never("AddSwapPath", "guest memory must not reach host storage"),
    never("GetIPTables", "the host has no part in the pod's packet filter"),
    never("SetIPTables", "the host has no part in the pod's packet filter"),
    never("MemHotplugByProbe", "memory is not added by address"),
    never("RemoveStaleVirtiofsShareMounts", "no directory is shared with the host"),
    never("GetVolumeStats", "no volume is on the host's storage"),
    never("ResizeVolume", "no volume is on the host's storage"),
    never("UpdateEphemeralMounts", "the sealed spec sizes the pod's volumes"),
    never("MemAgentMemcgSet", "the host has no part in the guest's memory management"),
    never("MemAgentCompactSet", "the host has no part in the guest's memory management"),
];

const PAUSE: Rule = Denied(Code::PauseDenied, "the host doesn't choose the moments at which a workload runs");

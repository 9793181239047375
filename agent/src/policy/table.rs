//! The table.

/// When an RPC is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Harmless, or needed on the way to opening.
    Always,
    /// Touches what only the sealed specification can allow.
    AfterOpen,
    /// Never in a sealed VM, and why.
    Never(&'static str),
}

use Rule::{AfterOpen, Always, Never};

/// One row for each RPC of `grpc.AgentService`.
pub const RPCS: &[(&str, Rule)] = &[
    // The sandbox: what the runtime does before the first container.
    ("CreateSandbox", Always),
    ("DestroySandbox", Always),
    ("GetGuestDetails", Always),
    ("GetOOMEvent", Always),
    ("OnlineCPUMem", Always),
    ("ReseedRandomDev", Always),
    ("SetGuestDateTime", Always),
    ("GetMetrics", Always),
    // The network: only the pod's interfaces, checked by value.
    ("UpdateInterface", Always),
    ("UpdateRoutes", Always),
    ("ListInterfaces", Always),
    ("ListRoutes", Always),
    ("AddARPNeighbors", Always),
    // Files: into the quarantine. The sealed document may come this way.
    ("CopyFile", Always),
    // The pause container exists before the specification is open; the others are checked by slot.
    ("CreateContainer", Always),
    ("StartContainer", Always),
    ("RemoveContainer", Always),
    ("SignalProcess", Always),
    ("WaitProcess", Always),
    ("StatsContainer", Always),
    ("ReadStdout", Always),
    ("ReadStderr", Always),
    ("CloseStdin", Always),
    ("TtyWinResize", Always),
    // What a container alone has.
    ("ExecProcess", AfterOpen),
    ("WriteStdin", AfterOpen),
    ("GetDiagnosticData", AfterOpen),
    ("UpdateContainer", AfterOpen),
    ("PauseContainer", AfterOpen),
    ("ResumeContainer", AfterOpen),
    ("GetVolumeStats", AfterOpen),
    ("ResizeVolume", AfterOpen),
    ("UpdateEphemeralMounts", AfterOpen),
    // What would weaken the guest.
    ("SetPolicy", Never("the sealed spec is the policy")),
    ("AddSwap", Never("guest memory must not reach host storage")),
    ("AddSwapPath", Never("guest memory must not reach host storage")),
    ("GetIPTables", Never("the host has no part in the pod's packet filter")),
    ("SetIPTables", Never("the host has no part in the pod's packet filter")),
    ("MemHotplugByProbe", Never("memory is not added by address")),
    ("RemoveStaleVirtiofsShareMounts", Never("no directory is shared with the host")),
    ("MemAgentMemcgSet", Never("the host has no part in the guest's memory management")),
    ("MemAgentCompactSet", Never("the host has no part in the guest's memory management")),
];

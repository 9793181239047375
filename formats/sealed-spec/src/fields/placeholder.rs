//! What the host sees instead of a command: `["/sealpod", "probe", "<container>/<hook>"]`. The agent
//! maps it back to the sealed command; nothing of that name exists in any image.

use crate::podspec::{Container, ExecAction, PodSpec};

/// Image of the containers that the host sees. `.invalid` never resolves: outside a sealed VM such a
/// container can't run by accident.
pub const PLACEHOLDER_IMAGE: &str = "sealpod.invalid/placeholder:1";
/// First argument of every placeholder command.
pub const PLACEHOLDER_PROGRAM: &str = "/sealpod";
const VERB: &str = "probe";

/// The five places of a container where kubelet runs a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// `livenessProbe`
    Liveness,
    /// `readinessProbe`
    Readiness,
    /// `startupProbe`
    Startup,
    /// `lifecycle.postStart`
    PostStart,
    /// `lifecycle.preStop`
    PreStop,
}

impl Hook {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Liveness, Self::Readiness, Self::Startup, Self::PostStart, Self::PreStop];

    /// As in a placeholder's last argument.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Liveness => "liveness",
            Self::Readiness => "readiness",
            Self::Startup => "startup",
            Self::PostStart => "postStart",
            Self::PreStop => "preStop",
        }
    }

    /// The sealed command of that place.
    pub fn exec(self, container: &Container) -> Option<&ExecAction> {
        let lifecycle = container.lifecycle.as_ref();
        match self {
            Self::Liveness => container.liveness_probe.as_ref()?.exec.as_ref(),
            Self::Readiness => container.readiness_probe.as_ref()?.exec.as_ref(),
            Self::Startup => container.startup_probe.as_ref()?.exec.as_ref(),
            Self::PostStart => lifecycle?.post_start.as_ref()?.exec.as_ref(),
            Self::PreStop => lifecycle?.pre_stop.as_ref()?.exec.as_ref(),
        }
    }
}

/// The placeholder of a container's hook.
pub fn placeholder_argv(container: &str, hook: Hook) -> [String; 3] {
    [PLACEHOLDER_PROGRAM.to_owned(), VERB.to_owned(), format!("{container}/{}", hook.as_str())]
}

/// The container and sealed command that a placeholder stands for; `None` if `argv` isn't one, or
/// the sealed pod has no command in that place.
pub fn placeholder_command(pod: &PodSpec, argv: &[String]) -> Option<(String, Vec<String>)> {
    let [program, verb, place] = argv else { return None };
    if program != PLACEHOLDER_PROGRAM || verb != VERB {
        return None;
    }
    let (name, hook) = place.split_once('/')?;
    let hook = Hook::ALL.into_iter().find(|known| known.as_str() == hook)?;
    let exec = hook.exec(pod.container(name)?)?;
    Some((name.to_owned(), exec.command.clone()))
}

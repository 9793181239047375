//! The helper's side: one operation, one answer, then the end. Single-threaded by construction.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use libcontainer::container::Container;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::oci_spec::runtime::{Capability, LinuxCapabilities, Process, Spec};
use libcontainer::syscall::syscall::SyscallType;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::executor::{CONFINEMENT, Command, Confine, NOT_EXECUTABLE, NOT_FOUND};
use super::{Failure, Operation, Reply, Request, private_dir};

/// First argument of a helper. Never looked at in PID 1, whose arguments the kernel command line makes.
pub const ARGUMENT: &str = "launch-helper";

/// Runs the operation of the request file and writes the answer file. Returns the exit status.
pub fn run(mut arguments: impl Iterator<Item = OsString>) -> i32 {
    // Standard error is the container's: a panic's words must not appear there.
    std::panic::set_hook(Box::new(|_| {}));
    let (Some(request), Some(answer)) = (arguments.next(), arguments.next()) else {
        return 2;
    };
    let reply = match read(Path::new(&request)).and_then(|request| perform(&request)) {
        Ok(pid) => Reply::Done { pid },
        Err(failure) => Reply::Failed(failure),
    };
    let failed = matches!(reply, Reply::Failed(_));
    match serde_json::to_vec(&reply) {
        Ok(bytes) if fs::write(&answer, &bytes).is_ok() => i32::from(failed),
        _ => 3,
    }
}

fn read(path: &Path) -> Result<Request, Failure> {
    let bytes = fs::read(path).map_err(|e| failure("reading the request", &e))?;
    serde_json::from_slice(&bytes).map_err(|e| failure("reading the request", &e))
}

fn perform(request: &Request) -> Result<Option<i32>, Failure> {
    let state = &request.state;
    match &request.operation {
        Operation::Create { id, bundle } => create(state, id, bundle),
        Operation::Start { id } => {
            let mut container = load(state, id)?;
            container.start().map(|()| None).map_err(|e| explain("starting the process", &e))
        }
        Operation::Exec { id, bundle, process } => exec(state, id, bundle, process),
        Operation::Delete { id } => {
            if !state.join(id).exists() {
                return Ok(None);
            }
            let mut container = load(state, id)?;
            container.delete(true).map(|()| None).map_err(|e| explain("removing the container", &e))
        }
        Operation::Namespaces { dir, hostname } => namespaces(dir, hostname).map(|()| None),
    }
}

fn load(state: &Path, id: &str) -> Result<Container, Failure> {
    Container::load(state.join(id)).map_err(|e| explain("finding the container", &e))
}

fn builder(state: &Path, id: &str, executor: Command) -> Result<ContainerBuilder, Failure> {
    ContainerBuilder::new(id.to_owned(), SyscallType::default())
        .with_executor(executor)
        .with_root_path(state)
        .and_then(ContainerBuilder::validate_id)
        .map_err(|e| explain("naming the container", &e))
}

fn create(state: &Path, id: &str, bundle: &Path) -> Result<Option<i32>, Failure> {
    let container = builder(state, id, Command::new(None))?
        .as_init(bundle)
        .with_systemd(false)
        .build()
        .map_err(|e| explain("creating the container", &e))?;
    Ok(container.pid().map(nix_pid))
}

fn exec(state: &Path, id: &str, bundle: &Path, process: &Path) -> Result<Option<i32>, Failure> {
    let spec = Spec::load(bundle.join("config.json")).map_err(|e| failure("reading config.json", &e))?;
    let seccomp = spec.linux().as_ref().and_then(|linux| linux.seccomp().clone());
    let path = process.to_owned();
    let capabilities = raise(&path)?;
    let confine = Confine { seccomp, capabilities };
    let pid = builder(state, id, Command::new(Some(confine)))?
        .as_tenant()
        .with_detach(true)
        .with_process(Some(path))
        .build()
        .map_err(|e| explain("starting the process", &e))?;
    Ok(Some(nix_pid(pid)))
}

/// Adds to the process, for the moment until the executor takes them away again, what installing a
/// filter and dropping capabilities needs. Returns the capabilities to end with.
fn raise(path: &PathBuf) -> Result<Option<LinuxCapabilities>, Failure> {
    let bytes = fs::read(path).map_err(|e| failure("reading process.json", &e))?;
    let mut process: Process =
        serde_json::from_slice(&bytes).map_err(|e| failure("reading process.json", &e))?;
    let wanted = process.capabilities().clone().unwrap_or_else(none);
    let with = |set: &Option<HashSet<Capability>>| {
        let mut set = set.clone().unwrap_or_default();
        set.extend([Capability::SysAdmin, Capability::Setpcap]);
        Some(set)
    };
    let mut raised = wanted.clone();
    raised.set_bounding(with(wanted.bounding()));
    raised.set_permitted(with(wanted.permitted()));
    raised.set_effective(with(wanted.effective()));
    process.set_capabilities(Some(raised));
    let bytes = serde_json::to_vec(&process).map_err(|e| failure("writing process.json", &e))?;
    fs::write(path, bytes).map_err(|e| failure("writing process.json", &e))?;
    Ok(Some(wanted))
}

fn none() -> LinuxCapabilities {
    let mut capabilities = LinuxCapabilities::default();
    capabilities.set_bounding(Some(HashSet::new()));
    capabilities.set_permitted(Some(HashSet::new()));
    capabilities.set_effective(Some(HashSet::new()));
    capabilities.set_inheritable(Some(HashSet::new()));
    capabilities.set_ambient(Some(HashSet::new()));
    capabilities
}

/// The helper is single-threaded, so that unsharing affects nothing but what the bind mounts keep.
fn namespaces(dir: &Path, hostname: &str) -> Result<(), Failure> {
    let kernel = |step: &'static str| move |e: nix::errno::Errno| failure(step, &e);
    private_dir(dir).map_err(|e| failure("making the namespaces' directory", &e))?;
    unshare(CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS).map_err(kernel("making namespaces"))?;
    nix::unistd::sethostname(hostname).map_err(kernel("setting the host name"))?;
    for kind in ["ipc", "uts"] {
        let target = dir.join(kind);
        fs::write(&target, b"").map_err(|e| failure("making a namespace's file", &e))?;
        let source = format!("/proc/self/ns/{kind}");
        mount(Some(source.as_str()), &target, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .map_err(kernel("keeping a namespace"))?;
    }
    Ok(())
}

fn nix_pid(pid: impl Into<libc::pid_t>) -> i32 {
    pid.into()
}

fn failure(step: &str, error: &dyn std::error::Error) -> Failure {
    Failure { summary: format!("{step} failed"), detail: chain(error) }
}

/// libcontainer's messages hold arguments and paths of the sealed specification: the host gets the step
/// and, where it is one of ours, the reason.
fn explain(step: &str, error: &dyn std::error::Error) -> Failure {
    let detail = chain(error);
    let reason = [
        (NOT_FOUND, "the command is not in the image"),
        (NOT_EXECUTABLE, "the command is not executable by the container's user"),
        (CONFINEMENT, "the process could not be confined"),
        ("failed to chdir", "the working directory can't be entered"),
    ]
    .iter()
    .find(|(marker, _)| detail.contains(marker))
    .map_or("see the guest's log", |(_, reason)| reason);
    Failure { summary: format!("{step} failed: {reason}"), detail }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let words = cause.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        source = cause.source();
    }
    text
}

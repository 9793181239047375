//! One operation, through libcontainer, in a process of its own that ends after it.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use libcontainer::container::Container;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::oci_spec::runtime::{Capability, LinuxCapabilities, Process, Spec};
use libcontainer::syscall::syscall::SyscallType;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::alive::Alive;
use super::executor::{CONFINEMENT, Command, Confine, NOT_EXECUTABLE, NOT_FOUND};
use super::{Failure, Made, Operation, Request, private_dir, wire};
use crate::kernel;

/// Longest detail that an answer carries.
const MAX_DETAIL: usize = 4096;

pub(super) fn perform(request: &Request) -> Result<Made, Failure> {
    let state = &request.state;
    let nothing = |()| Made::default();
    match &request.operation {
        Operation::Create { id, bundle, terminal } => {
            let console = Console::listen(*terminal, &bundle.join("console"))?;
            let pid = create(state, id, bundle, console.as_ref())?;
            Ok(Made { pid, console: console.map(Console::accept).transpose()? })
        }
        Operation::Start { id } => {
            let mut container = load(state, id)?;
            container.start().map(nothing).map_err(|e| explain("starting the process", &e))
        }
        Operation::Exec { id, bundle, dir, terminal, init, started } => {
            let init = Alive::open(*init, *started).map_err(|e| failure("joining the container", &e))?;
            let console = Console::listen(*terminal, &dir.join("console"))?;
            let pid = exec(dir, id, bundle, console.as_ref(), init)?;
            Ok(Made { pid: Some(pid), console: console.map(Console::accept).transpose()? })
        }
        Operation::Delete { id } => {
            if !state.join(id).exists() {
                return Ok(Made::default());
            }
            let mut container = load(state, id)?;
            container.delete(true).map(nothing).map_err(|e| explain("removing the container", &e))
        }
        Operation::Namespaces { dir, hostname } => namespaces(dir, hostname).map(nothing),
        Operation::PidNamespace => pid_namespace().map(|pid| Made { pid: Some(pid), console: None }),
    }
}

/// Where libcontainer sends the master of a terminal that it makes inside the container.
struct Console {
    listener: UnixListener,
    path: PathBuf,
}

impl Console {
    fn listen(terminal: bool, path: &Path) -> Result<Option<Self>, Failure> {
        if !terminal {
            return Ok(None);
        }
        Self::bind(path).map(Some).map_err(|e| failure("making the console's socket", &e))
    }

    /// By a short name: a socket's address is shorter than a path may be.
    fn bind(path: &Path) -> io::Result<Self> {
        let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        std::env::set_current_dir(directory)?;
        let _ = fs::remove_file(name);
        let listener = UnixListener::bind(name)?;
        std::env::set_current_dir("/")?;
        Ok(Self { listener, path: path.to_owned() })
    }

    /// libcontainer has connected and sent by now, or never will.
    fn accept(self) -> Result<OwnedFd, Failure> {
        let failed = |e: io::Error| failure("receiving the terminal", &e);
        self.listener.set_nonblocking(true).map_err(failed)?;
        let (stream, _) = self.listener.accept().map_err(failed)?;
        stream.set_nonblocking(true).map_err(failed)?;
        let (_, fds) = wire::receive_bytes(&stream).map_err(failed)?;
        let _ = fs::remove_file(self.path);
        let missing = || failure("receiving the terminal", &io::Error::from(io::ErrorKind::UnexpectedEof));
        fds.into_iter().next().ok_or_else(missing)
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

fn create(state: &Path, id: &str, bundle: &Path, console: Option<&Console>) -> Result<Option<i32>, Failure> {
    let container = builder(state, id, Command::new(None))?
        .with_console_socket(console.map(|console| &console.path))
        .as_init(bundle)
        .with_systemd(false)
        .build()
        .map_err(|e| explain("creating the container", &e))?;
    Ok(container.pid().map(nix_pid))
}

fn exec(dir: &Path, id: &str, bundle: &Path, console: Option<&Console>, init: Alive) -> Result<i32, Failure> {
    let spec = Spec::load(bundle.join("config.json")).map_err(|e| failure("reading config.json", &e))?;
    let seccomp = spec.linux().as_ref().and_then(|linux| linux.seccomp().clone());
    let path = dir.join("process.json");
    let capabilities = raise(&path)?;
    let confine = Confine { init, seccomp, capabilities };
    let pid = builder(dir, id, Command::new(Some(confine)))?
        .with_console_socket(console.map(|console| &console.path))
        .as_tenant()
        .with_detach(true)
        .with_process(Some(path))
        .build()
        .map_err(|e| explain("starting the process", &e))?;
    Ok(nix_pid(pid))
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

/// A worker is single-threaded, so that unsharing affects nothing but what the bind mounts keep.
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

/// The first process of a pid namespace has to reap in it. The worker leaves it to the agent.
fn pid_namespace() -> Result<i32, Failure> {
    unshare(CloneFlags::CLONE_NEWPID).map_err(|e| failure("making a pid namespace", &e))?;
    match kernel::child().map_err(|e| failure("starting a process in the namespace", &e))? {
        Some(pid) => Ok(pid),
        None => reap_for_ever(),
    }
}

fn reap_for_ever() -> ! {
    let mut ended = SigSet::empty();
    ended.add(Signal::SIGCHLD);
    let _ = ended.thread_block();
    loop {
        while matches!(waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)), Ok(status) if status != WaitStatus::StillAlive)
        {
        }
        let _ = ended.wait();
    }
}

fn nix_pid(pid: impl Into<libc::pid_t>) -> i32 {
    pid.into()
}

pub(super) fn failure(step: &str, error: &dyn std::error::Error) -> Failure {
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
    let end = (0..=MAX_DETAIL.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text.truncate(end);
    text
}

//! What a container's process does last: find the command, and become it.
//!
//! libcontainer's own executor loses the order of the environment and asks for the world's execute bit;
//! its exec path applies no seccomp filter at all. Both are made good here.

use std::collections::HashMap;
use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use libcontainer::capabilities;
use libcontainer::oci_spec::runtime::{LinuxCapabilities, LinuxSeccomp, Spec};
use libcontainer::seccomp;
use libcontainer::syscall::syscall::create_syscall;
use libcontainer::workload::{Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError};
use nix::errno::Errno;
use nix::unistd::{AccessFlags, access, execve};

use super::alive::Alive;
use crate::kernel::restore_sigpipe;

/// Markers that the helper turns into words for the host.
pub(super) const NOT_FOUND: &str = "sealpod:command-not-found";
pub(super) const NOT_EXECUTABLE: &str = "sealpod:command-not-executable";
pub(super) const CONFINEMENT: &str = "sealpod:confinement";

/// Becomes the command of the specification's process.
#[derive(Clone)]
pub(super) struct Command {
    /// For a process in a running container: the filter to install and the capabilities to end with.
    pub(super) confine: Option<Confine>,
    /// HOME, as libcontainer looked it up in the container's passwd.
    home: OnceLock<String>,
}

impl Command {
    pub(super) fn new(confine: Option<Confine>) -> Self {
        Self { confine, home: OnceLock::new() }
    }
}

/// What libcontainer leaves out for a process that joins a container.
#[derive(Clone)]
pub(super) struct Confine {
    /// The container's first process, by whose pid libcontainer found the namespaces.
    pub(super) init: Alive,
    pub(super) seccomp: Option<LinuxSeccomp>,
    pub(super) capabilities: Option<LinuxCapabilities>,
}

impl Executor for Command {
    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let (program, arguments) = command(spec).map_err(|e| ExecutorError::Other(e.to_string()))?;
        let environment = environment(spec, self.home.get().map_or("/", String::as_str));
        if let Some(confine) = &self.confine {
            confine.apply()?;
        }
        let program = c_string(program.to_string_lossy().as_ref())?;
        let arguments = arguments.iter().map(|a| c_string(a)).collect::<Result<Vec<_>, _>>()?;
        let environment = environment.iter().map(|e| c_string(e)).collect::<Result<Vec<_>, _>>()?;
        restore_sigpipe();
        let errno = match execve(&program, &arguments, &environment) {
            Ok(never) => match never {},
            Err(errno) => errno,
        };
        Err(ExecutorError::Other(match errno {
            Errno::ENOENT => NOT_FOUND.to_owned(),
            Errno::EACCES | Errno::ENOEXEC => NOT_EXECUTABLE.to_owned(),
            other => other.to_string(),
        }))
    }

    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        command(spec).map(|_| ())
    }

    /// Nothing is put into this process' own environment: an image's odd names would end it.
    fn setup_envs(&self, mut variables: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        if let Some(home) = variables.remove("HOME") {
            let _ = self.home.set(home);
        }
        Ok(())
    }
}

impl Confine {
    /// The filter first: without no_new_privs it needs a capability that the process must not keep.
    fn apply(&self) -> Result<(), ExecutorError> {
        // The namespaces are joined: were they another's, the pid's owner would have ended before.
        if !self.init.check() {
            return Err(ExecutorError::Other(format!("{CONFINEMENT}: the container has ended")));
        }
        if let Some(filter) = &self.seccomp {
            seccomp::initialize_seccomp(filter)
                .map_err(|e| ExecutorError::Other(format!("{CONFINEMENT}: {e}")))?;
        }
        if let Some(capabilities) = &self.capabilities {
            let syscall = create_syscall();
            capabilities::drop_privileges(capabilities, syscall.as_ref())
                .map_err(|e| ExecutorError::Other(format!("{CONFINEMENT}: {e}")))?;
        }
        Ok(())
    }
}

fn command(spec: &Spec) -> Result<(PathBuf, Vec<String>), ExecutorValidationError> {
    let refused = |marker: &str| ExecutorValidationError::ArgValidationError(marker.to_owned());
    let process = spec.process().as_ref().ok_or_else(|| refused(NOT_FOUND))?;
    let arguments = process.args().clone().unwrap_or_default();
    let name = arguments.first().filter(|name| !name.is_empty()).ok_or_else(|| refused(NOT_FOUND))?;
    if name.contains('/') {
        let path = PathBuf::from(name);
        return match runnable(&path) {
            Some(true) => Ok((path, arguments)),
            Some(false) => Err(refused(NOT_EXECUTABLE)),
            None => Err(refused(NOT_FOUND)),
        };
    }
    let variables = process.env().clone().unwrap_or_default();
    let path = variables.iter().rev().find_map(|v| v.strip_prefix("PATH=")).unwrap_or_default();
    let mut found = false;
    for directory in path.split(':').filter(|d| d.starts_with('/')) {
        let candidate = Path::new(directory).join(name);
        match runnable(&candidate) {
            Some(true) => return Ok((candidate, arguments)),
            Some(false) => found = true,
            None => {}
        }
    }
    Err(refused(if found { NOT_EXECUTABLE } else { NOT_FOUND }))
}

/// `None`: no such file. As the process' own user, whose ids are set by now.
fn runnable(path: &Path) -> Option<bool> {
    let is_file = path.metadata().ok()?.is_file();
    Some(is_file && access(path, AccessFlags::X_OK).is_ok())
}

/// The specification's environment in its order; a later value of a name wins, as execve's readers expect.
fn environment(spec: &Spec, home: &str) -> Vec<String> {
    let given = spec.process().as_ref().and_then(|p| p.env().clone()).unwrap_or_default();
    let last: HashMap<&str, usize> = given.iter().enumerate().map(|(at, v)| (name_of(v), at)).collect();
    let mut result: Vec<String> = given
        .iter()
        .enumerate()
        .filter(|(at, v)| last.get(name_of(v)) == Some(at))
        .map(|(_, v)| v.clone())
        .collect();
    if !last.contains_key("HOME") {
        result.push(format!("HOME={home}"));
    }
    result
}

fn name_of(variable: &str) -> &str {
    variable.split_once('=').map_or(variable, |(name, _)| name)
}

fn c_string(text: &str) -> Result<CString, ExecutorError> {
    CString::new(text).map_err(|_| ExecutorError::InvalidArg)
}

#[cfg(test)]
mod tests {
    use super::*;
    use libcontainer::oci_spec::runtime::{ProcessBuilder, SpecBuilder};

    fn spec(args: &[&str], env: &[&str]) -> Spec {
        let strings = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let process = ProcessBuilder::default().args(strings(args)).env(strings(env)).build().unwrap();
        SpecBuilder::default().process(process).build().unwrap()
    }

    #[test]
    fn the_command_is_found_along_path() {
        let (path, arguments) = command(&spec(&["sh", "-c", "true"], &["PATH=/nowhere:/bin"])).unwrap();
        assert_eq!(path, Path::new("/bin/sh"));
        assert_eq!(arguments, ["sh", "-c", "true"]);
    }

    #[test]
    fn a_missing_and_an_unrunnable_command_are_told_apart() {
        let missing = command(&spec(&["no-such-command"], &["PATH=/bin"])).unwrap_err();
        assert!(missing.to_string().contains(NOT_FOUND));
        let unrunnable = command(&spec(&["/etc/passwd"], &[])).unwrap_err();
        assert!(unrunnable.to_string().contains(NOT_EXECUTABLE));
        assert!(command(&spec(&["/bin"], &[])).unwrap_err().to_string().contains(NOT_EXECUTABLE));
    }

    #[test]
    fn a_relative_entry_of_path_is_not_searched() {
        assert!(command(&spec(&["sh"], &["PATH=bin:."])).is_err());
    }

    #[test]
    fn the_environment_keeps_its_order_and_the_last_value_wins() {
        let list = environment(&spec(&["x"], &["B=1", "A=2", "B=3", "HOME=/h"]), "/root");
        assert_eq!(list, ["A=2", "B=3", "HOME=/h"]);
        assert_eq!(environment(&spec(&["x"], &["A=2"]), "/root"), ["A=2", "HOME=/root"]);
    }
}

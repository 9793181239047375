//! The process of a container, and of an exec in it.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{PosixRlimit, PosixRlimitBuilder, PosixRlimitType, Process, Spec, User};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::environment::Environment;
use crate::user::Identity;
use crate::{ContainerInput, OciError, capabilities, resources};
use sealed_spec::podspec::expand;

/// The kernel's default ceiling (fs.nr_open); what containers have on most nodes.
const OPEN_FILES: u64 = 1 << 20;

pub(crate) fn process(
    input: &ContainerInput<'_>,
    identity: &Identity,
    capabilities: &std::collections::HashSet<oci_spec::runtime::Capability>,
) -> Result<Process, OciError> {
    let pod_environment = Environment::of_pod(input.container, input.supplied)?;
    let args = arguments(input, &pod_environment)?;
    let environment = Environment::of_process(&pod_environment, input, identity);
    let context = input.container.security_context.as_ref();

    let mut user = User::default();
    user.set_uid(identity.uid);
    user.set_gid(identity.gid);
    user.set_additional_gids(Some(identity.groups.clone()));
    user.set_umask(None);

    let mut process = Process::default();
    process.set_terminal(Some(input.container.tty.unwrap_or(false)));
    process.set_user(user);
    process.set_args(Some(args));
    process.set_env(Some(environment.into_lines()));
    process.set_cwd(working_dir(input)?);
    process.set_capabilities(Some(capabilities::sets(capabilities)));
    process.set_rlimits(Some(rlimits()?));
    process.set_no_new_privileges(Some(context.and_then(|c| c.allow_privilege_escalation) == Some(false)));
    process.set_oom_score_adj(Some(resources::oom_score(input.pod)));
    process.set_apparmor_profile(None);
    process.set_selinux_label(None);
    Ok(process)
}

/// command replaces the entrypoint and, with it, the image's cmd; args replace the cmd alone.
fn arguments(input: &ContainerInput<'_>, environment: &Environment) -> Result<Vec<String>, OciError> {
    let config = input.image.config().as_ref();
    let from_image = |list: Option<&Vec<String>>| list.cloned().unwrap_or_default();
    let link = |name: &str| input.supplied.links.get(name).map(String::as_str);
    let known = |name: &str| environment.value(name).or_else(|| link(name));
    let expanded = |list: &[String]| list.iter().map(|text| expand(text, known)).collect();
    let (command, args) = (&input.container.command, &input.container.args);
    let mut argv: Vec<String> = match command.is_empty() {
        false => expanded(command),
        true => from_image(config.and_then(|c| c.entrypoint().as_ref())),
    };
    if !args.is_empty() {
        argv.extend::<Vec<String>>(expanded(args));
    } else if command.is_empty() {
        argv.extend(from_image(config.and_then(|c| c.cmd().as_ref())));
    }
    if argv.first().is_none_or(String::is_empty) {
        return Err(OciError::NoCommand(input.container.name.clone()));
    }
    if argv.iter().any(|text| text.contains('\0')) {
        return Err(OciError::refused("command", "an argument with a NUL byte"));
    }
    Ok(argv)
}

fn working_dir(input: &ContainerInput<'_>) -> Result<PathBuf, OciError> {
    let image = input.image.config().as_ref().and_then(|c| c.working_dir().as_deref());
    let chosen =
        input.container.working_dir.as_deref().filter(|dir| !dir.is_empty()).or(image).unwrap_or_default();
    let path: PathBuf = Path::new("/").join(chosen).components().collect();
    if path.components().any(|part| part == std::path::Component::ParentDir) || chosen.contains('\0') {
        return Err(OciError::refused("workingDir", "an absolute path without .. is needed"));
    }
    Ok(path)
}

fn rlimits() -> Result<Vec<PosixRlimit>, OciError> {
    let files =
        PosixRlimitBuilder::default().typ(PosixRlimitType::RlimitNofile).soft(OPEN_FILES).hard(OPEN_FILES);
    Ok(vec![files.build()?])
}

/// A process to run in a container that was made from `spec`: `argv` as granted, everything else the
/// container's own: user, environment, working directory, capabilities, no_new_privs.
pub fn exec_process(spec: &Spec, argv: &[String], terminal: bool) -> Result<Process, OciError> {
    if argv.first().is_none_or(String::is_empty) || argv.iter().any(|text| text.contains('\0')) {
        return Err(OciError::refused("exec", "a command without NUL bytes is needed"));
    }
    let mut process =
        spec.process().clone().ok_or_else(|| OciError::refused("exec", "the container has no process"))?;
    process.set_args(Some(argv.to_vec()));
    process.set_terminal(Some(terminal));
    if terminal {
        let mut environment = process.env().clone().unwrap_or_default();
        if !environment.iter().any(|line| line.starts_with("TERM=")) {
            environment.push("TERM=xterm".to_owned());
        }
        process.set_env(Some(environment));
    }
    Ok(process)
}

/// Makes the working directory of `spec` in the root file system if it is missing, as CRI runtimes do;
/// libcontainer only enters it. Symbolic links are followed inside the root file system and never out.
pub fn make_working_dir(rootfs: &Path, spec: &Spec) -> Result<(), OciError> {
    let Some(process) = spec.process() else { return Ok(()) };
    let fail = |e: Errno| OciError::io("working directory", e);
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::openat(CWD, rootfs, flags, Mode::empty()).map_err(fail)?;
    let open = |path: &Path| -> Result<OwnedFd, Errno> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        loop {
            match rustix::fs::openat2(&root, path, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return other,
            }
        }
    };
    let mut path = PathBuf::from("/");
    let mut at = open(&path).map_err(fail)?;
    for part in process.cwd().components().skip(1) {
        path.push(part);
        at = match open(&path) {
            Err(Errno::NOENT) => {
                match rustix::fs::mkdirat(&at, part.as_os_str(), Mode::from_raw_mode(0o755)) {
                    Ok(()) => {}
                    // A symbolic link to nothing.
                    Err(Errno::EXIST) => {
                        return Err(OciError::refused(
                            "workingDir",
                            "it is a symbolic link that leads nowhere",
                        ));
                    }
                    Err(e) => return Err(fail(e)),
                }
                open(&path).map_err(fail)?
            }
            Err(Errno::NOTDIR) => {
                return Err(OciError::refused("workingDir", "it is not a directory in the image"));
            }
            other => other.map_err(fail)?,
        };
    }
    Ok(())
}

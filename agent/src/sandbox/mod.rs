//! The pod's sandbox: what its containers share. Made once, from the sealed specification; the host's
//! part is a host name and name servers, both checked, and only where the owner left them open.

mod files;
mod name;
mod volumes;

pub use name::{HostRequest, check as check_request};

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use sealed_spec::PodSpec;

use crate::error::{Error, Result};
use crate::launch::{Launcher, private_dir};

/// What containers of the pod share.
#[derive(Debug, Clone)]
pub struct Sandbox {
    /// Host name that containers see.
    pub hostname: String,
    /// The ipc namespace, held by a bind mount.
    pub ipc: PathBuf,
    /// The uts namespace, likewise.
    pub uts: PathBuf,
    /// The pid namespace, where the pod's containers share one.
    pub pid: Option<PathBuf>,
    /// `/etc/hosts`.
    pub hosts: PathBuf,
    /// `/etc/hostname`.
    pub hostname_file: PathBuf,
    /// `/etc/resolv.conf`.
    pub resolv_conf: PathBuf,
    /// `/dev/shm`.
    pub shm: PathBuf,
    /// Directories of the pod's volumes, by name.
    pub volumes: BTreeMap<String, PathBuf>,
}

impl Sandbox {
    /// Makes everything below `directory`. `etc` is where the agent's own resolver looks.
    pub async fn make(
        directory: &Path,
        etc: &Path,
        launcher: &Launcher,
        pod: &PodSpec,
        host: &HostRequest,
        address: Option<IpAddr>,
    ) -> Result<Self> {
        private_dir(directory).map_err(Error::step("making the sandbox"))?;
        let hostname = name::choose(pod, host);
        let namespaces = directory.join("namespaces");
        launcher.namespaces(&namespaces, &hostname).await?;
        // Held by a pause of the agent's own, which lives as long as the sandbox.
        let pid = match pod.share_process_namespace {
            Some(true) => {
                let pause = launcher.pid_namespace().await?;
                let kept = namespaces.join("pid");
                keep_pid_namespace(pause.pid(), &kept).map_err(Error::step("keeping the pid namespace"))?;
                Some(kept)
            }
            _ => None,
        };
        let sandbox = Self {
            ipc: namespaces.join("ipc"),
            uts: namespaces.join("uts"),
            pid,
            hosts: directory.join("hosts"),
            hostname_file: directory.join("hostname"),
            resolv_conf: directory.join("resolv.conf"),
            shm: directory.join("shm"),
            volumes: volumes::make(&directory.join("volumes"), pod)?,
            hostname,
        };
        sandbox.write_files(etc, pod, host, address).map_err(Error::step("writing the sandbox' files"))?;
        Ok(sandbox)
    }

    fn write_files(
        &self,
        etc: &Path,
        pod: &PodSpec,
        host: &HostRequest,
        address: Option<IpAddr>,
    ) -> io::Result<()> {
        let resolv_conf = files::resolv_conf(pod, host);
        // For the agent's own pulls.
        fs::create_dir_all(etc)?;
        fs::write(etc.join("resolv.conf"), &resolv_conf)?;
        for (path, text) in [
            (&self.hosts, files::hosts(pod, &self.hostname, address)),
            (&self.hostname_file, format!("{}\n", self.hostname)),
            (&self.resolv_conf, resolv_conf),
        ] {
            fs::write(path, text)?;
            // The directory above is closed; containers see the file by bind mount.
            fs::set_permissions(path, fs::Permissions::from_mode(0o644))?;
        }
        tmpfs(&self.shm, "mode=1777,size=64m", MsFlags::MS_NOEXEC)
    }
}

/// By a bind mount: a number in `/proc` may be another process' by the time it is used.
fn keep_pid_namespace(pid: i32, target: &Path) -> io::Result<()> {
    fs::write(target, b"")?;
    let source = PathBuf::from(format!("/proc/{pid}/ns/pid"));
    Ok(mount(Some(&source), target, None::<&str>, MsFlags::MS_BIND, None::<&str>)?)
}

/// A tmpfs of guest memory, without devices and set-id programs.
pub(crate) fn tmpfs(path: &Path, options: &str, flags: MsFlags) -> io::Result<()> {
    fs::create_dir_all(path)?;
    let flags = flags | MsFlags::MS_NODEV | MsFlags::MS_NOSUID;
    mount(Some("tmpfs"), path, Some("tmpfs"), flags, Some(options)).map_err(Into::into)
}

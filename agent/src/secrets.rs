//! Resources for one container: its sealed secrets, and its socket. In a sealed VM a container gets what
//! the sealed specification lists for it; under a policy, what the broker gives to this guest; in an
//! unsealed one nothing is there to be asked.

use std::io;
use std::path::Path;
use std::sync::Arc;

use agent_cdh::{Identity, Socket};
use async_trait::async_trait;
use protocols::rcar::ResourceUri;
use protocols::refusal::{Code, Refusal};
use sealed_spec::names::KbsUri;
use zeroize::Zeroizing;

use crate::agent::Agent;
use crate::error::{Error, Result};
use crate::mode::Mode;

/// What one container may ask for.
#[derive(Clone)]
pub struct Secrets {
    container: Arc<Container>,
}

struct Container {
    agent: Arc<Agent>,
    name: String,
}

impl Agent {
    /// The resources of a container, by its name in the pod. On the plain path the name only shows up in
    /// records.
    pub fn secrets(self: &Arc<Self>, container: &str) -> Secrets {
        Secrets { container: Arc::new(Container { agent: self.clone(), name: container.to_owned() }) }
    }
}

impl Secrets {
    /// Opens each value of `NAME=value` that is a sealed secret. Fails naming the variable.
    pub async fn unseal_env(&self, environment: &mut [String]) -> Result<()> {
        if self.available() {
            agent_cdh::unseal_environment(environment, self.container.as_ref()).await?;
        }
        Ok(())
    }

    /// Opens each file below `directory` that is a sealed secret, in place. Fails naming the file.
    pub async fn unseal_dir(&self, directory: &Path) -> Result<()> {
        if self.available() {
            agent_cdh::unseal_directory(directory, self.container.as_ref()).await?;
        }
        Ok(())
    }

    /// A resource.
    pub async fn resource(&self, uri: &ResourceUri) -> Result<Zeroizing<Vec<u8>>> {
        Ok(self.container.resource(uri).await?)
    }

    /// Whether the container has a socket: something could come out of it.
    pub fn has_socket(&self) -> bool {
        match &self.container.agent.mode {
            Mode::Sealed(opening) => opening.spec().is_some_and(|spec| {
                spec.resources.get(&self.container.name).is_some_and(|list| !list.is_empty())
            }),
            Mode::Policy(_) => true,
            Mode::Unsealed => false,
        }
    }

    /// Makes the container's socket in `directory`, which exists and is the container's alone, for a bind
    /// mount at [`agent_cdh::SOCKET`]. Only processes in `cgroup` (as in `/proc/PID/cgroup`, or below) are
    /// answered. Dropping the socket ends it.
    pub async fn serve(&self, directory: &Path, cgroup: &str) -> Result<Socket> {
        let cgroup = format!("/{}", cgroup.trim_matches('/'));
        let peer = Box::new(move |pid| in_cgroup(pid, &cgroup));
        let identity: Arc<dyn Identity> = self.container.clone();
        agent_cdh::serve(directory, identity, peer)
            .await
            .map_err(Error::step("making the container's resource socket"))
    }

    fn available(&self) -> bool {
        !matches!(self.container.agent.mode, Mode::Unsealed)
    }
}

#[async_trait]
impl Identity for Container {
    async fn resource(&self, uri: &ResourceUri) -> std::result::Result<Zeroizing<Vec<u8>>, Refusal> {
        match &self.agent.mode {
            Mode::Sealed(opening) => {
                let spec = opening.require()?;
                let listed =
                    uri.to_string().parse::<KbsUri>().is_ok_and(|uri| spec.may_ask(&self.name, &uri));
                if !listed {
                    return Err(Refusal::new(
                        Code::ResourceDenied,
                        format!("{uri} is not listed for container {:?} in the sealed spec", self.name),
                    ));
                }
                opening.resource(uri).await
            }
            Mode::Policy(gatekeeper) => gatekeeper.resource(uri).await,
            Mode::Unsealed => Err(Refusal::new(Code::Mode, "an unsealed guest has no broker to ask")),
        }
    }

    fn named_key(&self, name: &str) -> Option<ResourceUri> {
        match &self.agent.mode {
            Mode::Policy(gatekeeper) => gatekeeper.named_key(name),
            Mode::Sealed(_) | Mode::Unsealed => None,
        }
    }
}

/// Whether a process is in a cgroup or below it, in any of its hierarchies.
fn in_cgroup(pid: i32, cgroup: &str) -> bool {
    let read = || -> io::Result<String> { std::fs::read_to_string(format!("/proc/{pid}/cgroup")) };
    read().is_ok_and(|text| is_below(&text, cgroup))
}

/// `text` is a `/proc/PID/cgroup`: a line a hierarchy, `id:controllers:path`.
fn is_below(text: &str, cgroup: &str) -> bool {
    text.lines().filter_map(|line| line.splitn(3, ':').nth(2)).any(|path| {
        let rest = path.strip_prefix(cgroup);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || cgroup == "/")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_containers_own_cgroup_and_what_is_below() {
        let own = "0::/kubepods/pod1/c1\n";
        for (text, inside) in [
            (own, true),
            ("0::/kubepods/pod1/c1/nested\n", true),
            ("0::/kubepods/pod1/c1x\n", false),
            ("0::/kubepods/pod1/c2\n", false),
            ("0::/kubepods/pod1\n", false),
            ("4:memory:/kubepods/pod1/c1\n0::/\n", true),
            ("0::/../kubepods/pod1/c1\n", false),
            ("", false),
        ] {
            assert_eq!(is_below(text, "/kubepods/pod1/c1"), inside, "{text}");
        }
        assert!(!in_cgroup(i32::MAX, "/"));
    }
}

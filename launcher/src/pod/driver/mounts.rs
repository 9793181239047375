//! What a container mounts, put into the guest: the node's standard files, and the pod's volumes.

use std::collections::BTreeMap;

use protocols::oci::Mount;

use super::PodRun;
use crate::pod::files::{Copier, SHARED};
use crate::pod::{Container, PodError, Volume, new_id, spec};

impl PodRun {
    /// Copies what the container mounts, and returns the mounts of it.
    pub(super) async fn place_files(&self, id: &str, container: &Container) -> Result<Vec<Mount>, PodError> {
        let failed = |error| PodError::Container { container: container.name.clone(), error };
        let copier = Copier { client: &self.client, timeout: self.patience.request };
        let mut mounts = vec![spec::mount("/dev/shm", spec::SHM, "bind", &["rbind"])];
        let place = |path: &str| -> Result<String, PodError> {
            let name = path.rsplit('/').next().unwrap_or("file");
            Ok(format!("{SHARED}/{id}-{}-{name}", &new_id()?[..16]))
        };
        let termination_log = match container.termination_log.as_str() {
            "" => "/dev/termination-log",
            path => path,
        };
        let hosts = format!("127.0.0.1\tlocalhost\n10.0.2.15\t{}\n", self.pod.hostname);
        let hostname = format!("{}\n", self.pod.hostname);
        let resolv = self
            .network
            .iter()
            .flat_map(|network| &network.dns)
            .fold(String::new(), |text, line| if line.is_empty() { text } else { text + line + "\n" });
        let standard = [
            ("/etc/hosts", hosts.as_str()),
            (termination_log, ""),
            ("/etc/hostname", &hostname),
            ("/etc/resolv.conf", &resolv),
        ];
        for (path, text) in standard {
            let source = place(path)?;
            copier.file(&source, text.as_bytes()).await.map_err(failed)?;
            mounts.push(spec::mount(path, &source, "bind", &["rbind", "rprivate", "rw"]));
        }
        for wanted in &container.mounts {
            let source = match self.pod.volumes.get(&wanted.volume) {
                None => {
                    let detail = format!("volume {:?} is not in the pod", wanted.volume);
                    return Err(PodError::Invalid { container: container.name.clone(), detail });
                }
                Some(Volume::Empty(true)) => {
                    format!("/run/kata-containers/sandbox/ephemeral/{}", wanted.volume)
                }
                Some(Volume::Empty(false)) => {
                    format!("{SHARED}/{}/rootfs/local/{}", self.sandbox_id, wanted.volume)
                }
                Some(Volume::Files(files)) => {
                    let source = place(&wanted.path)?;
                    if !self.knobs.withhold_files {
                        copier.volume(&source, &self.replaced(files)).await.map_err(failed)?;
                    }
                    source
                }
            };
            let source =
                if wanted.sub_path.is_empty() { source } else { format!("{source}/{}", wanted.sub_path) };
            let access = if wanted.read_only { "ro" } else { "rw" };
            mounts.push(spec::mount(&wanted.path, &source, "bind", &["rbind", "rprivate", access]));
        }
        if let Some((path, files)) = &self.knobs.extra_mount {
            let source = place(path)?;
            copier.volume(&source, files).await.map_err(failed)?;
            mounts.push(spec::mount(path, &source, "bind", &["rbind", "rprivate", "rw"]));
        }
        Ok(mounts)
    }

    fn replaced(&self, files: &BTreeMap<String, Vec<u8>>) -> BTreeMap<String, Vec<u8>> {
        let replacement = |(name, data): (&String, &Vec<u8>)| {
            (name.clone(), self.knobs.replaced_files.get(name).unwrap_or(data).clone())
        };
        files.iter().map(replacement).collect()
    }
}

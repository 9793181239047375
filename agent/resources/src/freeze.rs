//! Pause and resume, confirmed by the kernel.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{sleep, timeout};

use crate::cgroup::{Cgroup, Place, read, value, write};
use crate::error::{ResourceError, Result};
use crate::sys::watched;

/// Processes that sleep in the kernel for longer are not paused.
const PATIENCE: Duration = Duration::from_secs(10);
/// Version 1 tells nobody when it has frozen everything.
const LOOK: Duration = Duration::from_millis(5);

impl Cgroup {
    /// Stops every process; returns when all have stopped. If that takes too long they run again.
    pub async fn freeze(&self) -> Result<()> {
        if self.frozen()? {
            return Err(ResourceError::State("the container is paused already".into()));
        }
        let frozen = self.change(true).await;
        if frozen.is_err() {
            let _ = self.order(false);
        }
        frozen
    }

    /// Lets every process go on; returns when all do.
    pub async fn thaw(&self) -> Result<()> {
        if !self.frozen()? {
            return Err(ResourceError::State("the container is not paused".into()));
        }
        self.change(false).await
    }

    /// Whether its processes were told to stop.
    pub fn frozen(&self) -> Result<bool> {
        let (path, frozen) = match &self.place {
            Place::Unified(directory) => (directory.join("cgroup.freeze"), &["1"][..]),
            Place::Controllers { .. } => (self.freezer()?, &["FROZEN", "FREEZING"][..]),
        };
        let text = read(&path).map_err(ResourceError::file("reading", &path))?;
        Ok(frozen.contains(&text.trim()))
    }

    async fn change(&self, frozen: bool) -> Result<()> {
        let confirmed = async {
            match &self.place {
                Place::Unified(directory) => {
                    // Opened before the order, so that no news is missed.
                    let mut news = News::of(&directory.join("cgroup.events"))?;
                    self.order(frozen)?;
                    let wanted = u64::from(frozen);
                    while value(&news.read()?, "frozen") != wanted {
                        news.wait().await?;
                    }
                }
                Place::Controllers { .. } => {
                    let path = self.freezer()?;
                    let wanted = if frozen { "FROZEN" } else { "THAWED" };
                    loop {
                        self.order(frozen)?;
                        let state = read(&path).map_err(ResourceError::file("reading", &path))?;
                        if state.trim() == wanted {
                            break;
                        }
                        sleep(LOOK).await;
                    }
                }
            }
            Ok(())
        };
        timeout(PATIENCE, confirmed).await.unwrap_or_else(|_| {
            let state = if frozen { "stop" } else { "go on" };
            Err(ResourceError::State(format!(
                "the container's processes did not {state} within {} s",
                PATIENCE.as_secs()
            )))
        })
    }

    fn order(&self, frozen: bool) -> Result<()> {
        match &self.place {
            Place::Unified(directory) => {
                write(&directory.join("cgroup.freeze"), if frozen { "1" } else { "0" })
            }
            Place::Controllers { .. } => write(&self.freezer()?, if frozen { "FROZEN" } else { "THAWED" }),
        }
    }

    fn freezer(&self) -> Result<std::path::PathBuf> {
        let missing = || ResourceError::Missing("freezer controller for cgroups".into());
        self.path("freezer", "freezer.state").ok_or_else(missing)
    }
}

/// A file whose changes the kernel announces, as `cgroup.events` and `memory.events`.
pub(crate) struct News {
    file: AsyncFd<File>,
}

impl News {
    pub(crate) fn of(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(ResourceError::file("opening", path))?;
        let file = watched(file, Interest::PRIORITY).map_err(ResourceError::file("watching", path))?;
        Ok(Self { file })
    }

    /// The file as it is now, which also arms the next announcement. An error: the cgroup is gone.
    pub(crate) fn read(&self) -> Result<String> {
        use std::os::unix::fs::FileExt;
        let mut buffer = [0; 4096];
        let length = self.file.get_ref().read_at(&mut buffer, 0);
        let length = length.map_err(ResourceError::kernel("reading the cgroup's events"))?;
        Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
    }

    /// Waits until it may have changed since it was read.
    pub(crate) async fn wait(&mut self) -> Result<()> {
        let ready = self.file.ready(Interest::PRIORITY).await;
        ready.map_err(ResourceError::kernel("waiting for the cgroup's events"))?.clear_ready();
        Ok(())
    }
}

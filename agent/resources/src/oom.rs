//! What the kernel kills for want of memory: noticed when it happens, also when the container goes on
//! living, and queued for the host's long poll.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use nix::sys::eventfd::{EfdFlags, EventFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

use crate::cgroup::{Cgroup, Place, read, value, write};
use crate::error::{ResourceError, Result};
use crate::freeze::News;
use crate::sys::watched;

/// Events that nobody has fetched; older ones are forgotten.
const MAX_EVENTS: usize = 64;

/// A bounded queue of container ids.
#[derive(Default)]
pub struct OomEvents {
    queue: Mutex<Queue>,
    news: Notify,
}

#[derive(Default)]
struct Queue {
    ids: VecDeque<String>,
    closed: bool,
}

impl OomEvents {
    /// A container was hit.
    pub fn push(&self, id: String) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.ids.len() == MAX_EVENTS {
            queue.ids.pop_front();
        }
        queue.ids.push_back(id);
        self.news.notify_one();
    }

    /// The sandbox has ended: every waiting call hears so.
    pub fn close(&self) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        self.news.notify_waiters();
        // Also for a call that is about to wait.
        self.news.notify_one();
    }

    /// Waits for the next one; `None` after [`OomEvents::close`].
    pub async fn next(&self) -> Option<String> {
        loop {
            {
                let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
                if queue.closed {
                    self.news.notify_one();
                    return None;
                }
                if let Some(id) = queue.ids.pop_front() {
                    return Some(id);
                }
            }
            self.news.notified().await;
        }
    }
}

/// A watch over one cgroup.
pub struct OomWatch {
    source: Source,
    told: u64,
}

enum Source {
    /// Version 2: a counter whose changes are announced.
    Counter(News),
    /// Version 1: the kernel counts up a descriptor, also when the cgroup is removed.
    Descriptor { events: AsyncFd<File>, control: PathBuf },
}

impl Cgroup {
    /// How often the kernel has killed in it.
    pub fn oom_kills(&self) -> u64 {
        match self.place {
            Place::Unified(_) => value(&self.text("memory", "memory.events"), "oom_kill"),
            Place::Controllers { .. } => value(&self.text("memory", "memory.oom_control"), "oom_kill"),
        }
    }

    /// Watches from now on.
    pub fn watch_oom(&self) -> Result<OomWatch> {
        let told = self.oom_kills();
        let source = match &self.place {
            Place::Unified(directory) => Source::Counter(News::of(&directory.join("memory.events"))?),
            Place::Controllers { .. } => self.descriptor()?,
        };
        Ok(OomWatch { source, told })
    }

    fn descriptor(&self) -> Result<Source> {
        let missing = || ResourceError::Missing("memory controller for cgroups".into());
        let control = self.path("memory", "memory.oom_control").ok_or_else(missing)?;
        let register = self.path("memory", "cgroup.event_control").ok_or_else(missing)?;
        let oom = File::open(&control).map_err(ResourceError::file("opening", &control))?;
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let events = EventFd::from_value_and_flags(0, flags)
            .map_err(|e| ResourceError::kernel("making an event descriptor")(e.into()))?;
        let events = File::from(OwnedFd::from(events));
        write(&register, &format!("{} {}", events.as_raw_fd(), oom.as_raw_fd()))?;
        let events = watched(events, Interest::READABLE)
            .map_err(ResourceError::kernel("watching an event descriptor"))?;
        Ok(Source::Descriptor { events, control })
    }
}

impl OomWatch {
    /// Waits for the next kill; returns how many there were (version 1: about as many). `None`: the cgroup is gone.
    pub async fn next(&mut self) -> Option<u64> {
        loop {
            let total = match &mut self.source {
                Source::Counter(news) => {
                    let now = value(&news.read().ok()?, "oom_kill");
                    if now <= self.told {
                        news.wait().await.ok()?;
                        continue;
                    }
                    now
                }
                Source::Descriptor { events, control } => {
                    counted(events).await?;
                    // It also counts the end of the cgroup. News come before the kernel has counted the
                    // kill, and now and then twice: rather told twice than not.
                    let now = value(&read(control).ok()?, "oom_kill");
                    now.max(self.told.saturating_add(1))
                }
            };
            let fresh = total - self.told;
            self.told = total;
            return Some(fresh);
        }
    }

    /// Kills that [`OomWatch::next`] has not told of, asked when the container is over.
    pub fn rest(&self, cgroup: &Cgroup) -> u64 {
        cgroup.oom_kills().saturating_sub(self.told)
    }
}

async fn counted(events: &AsyncFd<File>) -> Option<u64> {
    loop {
        let mut ready = events.readable().await.ok()?;
        let mut bytes = [0; 8];
        match ready.try_io(|events| events.get_ref().read_exact(&mut bytes)) {
            Ok(Ok(())) => return Some(u64::from_ne_bytes(bytes)),
            Ok(Err(_)) => return None,
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn events_wait_for_the_host_and_the_host_for_events() {
        let events = Arc::new(OomEvents::default());
        events.push("a".into());
        assert_eq!(events.next().await.as_deref(), Some("a"));
        let waiting = tokio::spawn({
            let events = events.clone();
            async move { events.next().await }
        });
        tokio::task::yield_now().await;
        events.push("b".into());
        assert_eq!(waiting.await.unwrap().as_deref(), Some("b"));
    }

    #[tokio::test]
    async fn the_end_of_the_sandbox_ends_every_wait() {
        let events = Arc::new(OomEvents::default());
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                let events = events.clone();
                tokio::spawn(async move { events.next().await })
            })
            .collect();
        tokio::task::yield_now().await;
        events.close();
        for wait in waiting {
            assert_eq!(wait.await.unwrap(), None);
        }
        assert_eq!(events.next().await, None, "later ones too");
    }

    #[test]
    fn the_kernels_counter_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let cgroup = crate::Hierarchy::unified(dir.path()).cgroup("c").unwrap();
        assert_eq!(cgroup.oom_kills(), 0);
        std::fs::create_dir(dir.path().join("c")).unwrap();
        let events = dir.path().join("c/memory.events");
        std::fs::write(&events, "low 0\noom 1\noom_kill 0\n").unwrap();
        assert_eq!(cgroup.oom_kills(), 0);
        std::fs::write(&events, "low 0\noom 1\noom_kill 2\noom_group_kill 0\n").unwrap();
        assert_eq!(cgroup.oom_kills(), 2);
    }
}

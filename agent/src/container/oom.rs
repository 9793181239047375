//! Containers that the kernel killed for want of memory, for the host's long poll.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

/// Events that nobody has fetched; older ones are forgotten.
const MAX_EVENTS: usize = 64;

/// A bounded queue.
#[derive(Default)]
pub struct OomEvents {
    queue: Mutex<VecDeque<String>>,
    news: Notify,
}

impl OomEvents {
    /// A container was hit.
    pub fn push(&self, id: String) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.len() == MAX_EVENTS {
            queue.pop_front();
        }
        queue.push_back(id);
        self.news.notify_one();
    }

    /// Waits for the next one.
    pub async fn next(&self) -> String {
        loop {
            let next = self.queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            match next {
                Some(id) => return id,
                None => self.news.notified().await,
            }
        }
    }
}

/// Whether the kernel has killed something in a cgroup.
pub(super) fn was_hit(cgroup: &Path) -> bool {
    let events = std::fs::read_to_string(cgroup.join("memory.events")).unwrap_or_default();
    events.lines().filter_map(|line| line.strip_prefix("oom_kill ")).any(|count| count.trim() != "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn events_wait_for_the_host_and_the_host_for_events() {
        let events = std::sync::Arc::new(OomEvents::default());
        events.push("a".into());
        assert_eq!(events.next().await, "a");
        let waiting = tokio::spawn({
            let events = events.clone();
            async move { events.next().await }
        });
        tokio::task::yield_now().await;
        events.push("b".into());
        assert_eq!(waiting.await.unwrap(), "b");
    }

    #[test]
    fn the_kernels_counter_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let write = |text: &str| std::fs::write(dir.path().join("memory.events"), text).unwrap();
        assert!(!was_hit(dir.path()));
        write("low 0\noom 1\noom_kill 0\n");
        assert!(!was_hit(dir.path()));
        write("low 0\noom 1\noom_kill 2\noom_group_kill 0\n");
        assert!(was_hit(dir.path()));
    }
}

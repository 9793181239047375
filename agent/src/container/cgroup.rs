//! The end of a container's cgroups: everything in them is killed, then they are removed, those that the
//! container has made below them too. One directory where the kernel has version 2, one a controller where
//! it has version 1.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill as send};
use nix::unistd::Pid;

/// How often processes that are forked while others are being killed are killed too (version 1).
const KILL_ROUNDS: usize = 16;
/// Cgroups that a container has made below its own, one in the other.
const MAX_DEPTH: usize = 32;
/// A killed process that hasn't left its cgroup by then hangs in the kernel.
const PATIENCE: Duration = Duration::from_secs(5);

/// Kills everything in the cgroup at `path` below `root`, also in those below it.
pub(super) fn kill(root: &Path, path: &str) {
    let mut all = directories(root, path);
    // A process is in the cgroup of that path in every tree: one of them tells all, best the one that can
    // stop them meanwhile.
    if let Some(freezer) = all.iter().position(|directory| directory.join("freezer.state").exists()) {
        all = vec![all.swap_remove(freezer)];
    }
    for directory in all {
        if fs::write(directory.join("cgroup.kill"), "1").is_err() {
            kill_each(&directory);
        }
    }
}

/// Kills what is left and removes the cgroup.
pub(super) async fn remove(root: &Path, path: &str) -> io::Result<()> {
    let mut pause = Duration::from_millis(1);
    let started = tokio::time::Instant::now();
    loop {
        let mut removed = Ok(());
        for directory in directories(root, path) {
            // The others too, whatever became of this one.
            removed = removed.and(remove_tree(&directory, 0));
        }
        match removed {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && started.elapsed() < PATIENCE => {}
            done => return done,
        }
        // Killed processes leave in their own time, and the kernel tells nobody on version 1.
        kill(root, path);
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}

/// Where the cgroup exists: below `root` itself, or below each of the controllers mounted there.
fn directories(root: &Path, path: &str) -> Vec<PathBuf> {
    let relative = path.trim_start_matches('/');
    if relative.is_empty() || relative.split('/').any(|part| part == "..") {
        return Vec::new();
    }
    if root.join("cgroup.procs").exists() {
        return Some(root.join(relative)).filter(|directory| directory.is_dir()).into_iter().collect();
    }
    let trees = fs::read_dir(root).into_iter().flatten().flatten();
    // Links to a controller that is mounted together with another one name the same tree.
    let trees = trees.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    trees.map(|entry| entry.path().join(relative)).filter(|directory| directory.is_dir()).collect()
}

fn below(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir())).map(|e| e.path()).collect()
}

fn remove_tree(directory: &Path, depth: usize) -> io::Result<()> {
    match fs::remove_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        // There are processes in it, or cgroups below it: the kernel doesn't say which.
        Err(_) if depth < MAX_DEPTH => {}
        done => return done,
    }
    let inner = below(directory);
    if inner.is_empty() {
        return Err(io::Error::from_raw_os_error(libc::EBUSY));
    }
    for inner in inner {
        remove_tree(&inner, depth + 1)?;
    }
    fs::remove_dir(directory)
}

/// Frozen processes don't fork; they die when they are let go.
fn kill_each(directory: &Path) {
    let freezer = directory.join("freezer.state");
    for _ in 0..KILL_ROUNDS {
        let _ = fs::write(&freezer, "FROZEN");
        let any = kill_tree(directory, 0);
        let _ = fs::write(&freezer, "THAWED");
        if !any {
            return;
        }
    }
}

/// Whether there was anything to kill that wasn't dying.
fn kill_tree(directory: &Path, depth: usize) -> bool {
    let mut any = false;
    if depth < MAX_DEPTH {
        for inner in below(directory) {
            any |= kill_tree(&inner, depth + 1);
        }
    }
    let text = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    // 0: a process of another pid namespace.
    for pid in text.lines().filter_map(|line| line.trim().parse::<i32>().ok()).filter(|pid| *pid > 1) {
        any |= send(Pid::from_raw(pid), Signal::SIGKILL) != Err(Errno::ESRCH) && !is_zombie(pid);
    }
    any
}

fn is_zombie(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The state follows the name, which may hold anything.
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_cgroup_is_removed_with_those_below_it_and_nothing_else_is() {
        for trees in [&[""][..], &["memory", "pids"]] {
            let root = tempfile::tempdir().unwrap();
            if trees == [""] {
                fs::write(root.path().join("cgroup.procs"), "").unwrap();
            }
            for tree in trees {
                fs::create_dir_all(root.path().join(tree).join("pod/c1/made/by it")).unwrap();
                fs::create_dir_all(root.path().join(tree).join("pod/c2")).unwrap();
            }
            kill(root.path(), "/pod/c1");
            // Files would be left: a cgroup's directory has none of its own in a real one.
            for tree in trees {
                let _ = fs::remove_file(root.path().join(tree).join("pod/c1/cgroup.kill"));
                let _ = fs::remove_file(root.path().join(tree).join("pod/c1/freezer.state"));
            }
            remove(root.path(), "/pod/c1").await.unwrap();
            for tree in trees {
                assert!(!root.path().join(tree).join("pod/c1").exists());
                assert!(root.path().join(tree).join("pod/c2").exists());
            }
            remove(root.path(), "/pod/c1").await.unwrap();
        }
    }

    #[test]
    fn a_path_that_leaves_the_root_is_no_cgroup() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("a/b")).unwrap();
        for path in ["", "/", "..", "b/../.."] {
            assert!(directories(root.path(), path).is_empty(), "{path}");
        }
    }
}

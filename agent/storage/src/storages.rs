//! Which storages there are and who uses them. A storage is made by the first container that names its
//! mount point, shared with the others, and taken away in reverse order when the last one is removed; what
//! is the pod's goes with the sandbox.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use agent_scratch::Scratch;
use nix::mount::MsFlags;

use crate::error::StorageError;
use crate::machine::Machine;
use crate::mount::{is_mount_point, mount, unmount};
use crate::options::MountOptions;
use crate::plan::{Block, Context, Fresh, HugePages, Plan, Planned, plan_all};
use crate::request::StorageRequest;
use crate::watch::Watcher;
use crate::{erofs, ownership, path};

/// An image that is wanted as a container's root.
#[derive(Debug)]
pub struct ImageRequest<'a> {
    /// As `docker.io/library/busybox:1`.
    pub reference: &'a str,
    /// The runtime's annotations.
    pub metadata: &'a BTreeMap<String, String>,
    /// Whose root it is.
    pub container: &'a str,
}

/// Pulls images inside the guest.
pub trait ImagePull {
    /// Pulls and mounts; what is returned unmounts when dropped.
    fn pull(&self, request: &ImageRequest<'_>) -> Result<Box<dyn Any + Send>, String>;
}

/// Where things are.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The guest's devices.
    pub machine: Machine,
    /// Directory of the containers' own directories, `/run/kata-containers`.
    pub containers: PathBuf,
    /// The agent's own directories: no storage comes near them.
    pub private: Vec<PathBuf>,
}

/// What was done for one request.
#[derive(Debug, Default)]
pub struct Added {
    /// Mount points, in order.
    pub points: Vec<PathBuf>,
}

/// Every storage of the sandbox.
pub struct Storages {
    settings: Settings,
    watcher: Watcher,
    books: Mutex<Books>,
}

#[derive(Default)]
struct Books {
    slots: HashMap<PathBuf, Arc<Mutex<Slot>>>,
    owners: BTreeMap<String, Vec<PathBuf>>,
    next: u64,
}

/// One mount point; locked while it is being made or taken away.
#[derive(Default)]
struct Slot {
    ready: Option<Ready>,
    /// It left the books: look there again.
    gone: bool,
}

struct Ready {
    order: u64,
    users: BTreeSet<String>,
    lasting: bool,
    driver: String,
    source: String,
    huge: Option<HugePages>,
    undo: Vec<Undo>,
}

/// How a step is taken back.
enum Undo {
    Unmount(PathBuf),
    RemoveDirectory(PathBuf),
    Unwatch(PathBuf),
    Drop(Box<dyn Any + Send>),
    Close(Box<Scratch>),
}

impl Storages {
    /// None yet.
    pub fn new(settings: Settings) -> Self {
        Self { settings, watcher: Watcher::default(), books: Mutex::default() }
    }

    /// Makes what isn't there yet, in order, for a container, or for the sandbox (`None`). If one fails, what
    /// was made before it is taken away again.
    pub fn add(
        &self,
        owner: Option<&str>,
        requests: &[StorageRequest],
        images: &dyn ImagePull,
    ) -> Result<Added, StorageError> {
        let Settings { containers, private, .. } = &self.settings;
        let planned = plan_all(requests, &Context { containers, private, owner })?;
        let mut points: Vec<PathBuf> = Vec::new();
        for plan in &planned {
            if points.contains(&plan.point) {
                continue;
            }
            if let Err(error) = self.enter(owner, plan, images) {
                for point in points.iter().rev() {
                    let _ = self.leave(owner, point);
                }
                return Err(error);
            }
            points.push(plan.point.clone());
        }
        if let Some(owner) = owner {
            self.books().owners.entry(owner.to_owned()).or_default().extend(points.iter().cloned());
        }
        Ok(Added { points })
    }

    /// Checks a container's storages, without any effect; returns the images that are to be pulled.
    pub fn images(&self, owner: &str, requests: &[StorageRequest]) -> Result<Vec<String>, StorageError> {
        let Settings { containers, private, .. } = &self.settings;
        let planned = plan_all(requests, &Context { containers, private, owner: Some(owner) })?;
        let reference = |planned: Planned| match planned.plan {
            Plan::Image { reference, .. } => Some(reference),
            _ => None,
        };
        Ok(planned.into_iter().filter_map(reference).collect())
    }

    /// A container is gone: what nobody else uses and isn't the pod's goes in reverse order.
    pub fn release(&self, owner: &str) -> Vec<StorageError> {
        let points = self.books().owners.remove(owner).unwrap_or_default();
        points.iter().rev().filter_map(|point| self.leave(Some(owner), point).err()).collect()
    }

    /// The sandbox is gone, and everything with it.
    pub fn release_all(&self) -> Vec<StorageError> {
        let slots: Vec<_> = {
            let mut books = self.books();
            books.owners.clear();
            books.slots.drain().collect()
        };
        let mut ready: Vec<Ready> = Vec::new();
        for (_, slot) in slots {
            let mut slot = locked(&slot);
            slot.gone = true;
            ready.extend(slot.ready.take());
        }
        ready.sort_by_key(|ready| std::cmp::Reverse(ready.order));
        ready.into_iter().flat_map(|ready| self.take_back(ready.undo)).collect()
    }

    /// Mount points in use, for tests and metrics.
    pub fn points(&self) -> Vec<PathBuf> {
        let mut points: Vec<_> = self.books().slots.keys().cloned().collect();
        points.sort();
        points
    }

    fn enter(&self, owner: Option<&str>, plan: &Planned, images: &dyn ImagePull) -> Result<(), StorageError> {
        loop {
            let slot = self.books().slots.entry(plan.point.clone()).or_default().clone();
            let mut slot = locked(&slot);
            if slot.gone {
                continue;
            }
            if let Some(ready) = &mut slot.ready {
                if (&ready.driver, &ready.source) != (&plan.driver, &plan.source) {
                    return Err(StorageError::invalid(
                        plan.point.display().to_string(),
                        format!("'{}' from '{}' is there already", ready.driver, ready.source),
                    ));
                }
                ready.users.extend(owner.map(str::to_owned));
                ready.lasting |= plan.lasting;
                return Ok(());
            }
            let mut undo = Vec::new();
            let made = self.make(owner, plan, images, &mut undo);
            if let Err(error) = made {
                slot.gone = true;
                self.take_back(undo);
                self.books().slots.remove(&plan.point);
                return Err(error);
            }
            let order = {
                let mut books = self.books();
                books.next += 1;
                books.next
            };
            slot.ready = Some(Ready {
                order,
                users: owner.map(str::to_owned).into_iter().collect(),
                lasting: plan.lasting,
                driver: plan.driver.clone(),
                source: plan.source.clone(),
                huge: match &plan.plan {
                    Plan::Ephemeral { huge, .. } => *huge,
                    _ => None,
                },
                undo,
            });
            return Ok(());
        }
    }

    fn leave(&self, owner: Option<&str>, point: &Path) -> Result<(), StorageError> {
        let Some(slot) = self.books().slots.get(point).cloned() else { return Ok(()) };
        let mut slot = locked(&slot);
        let Some(ready) = &mut slot.ready else { return Ok(()) };
        if let Some(owner) = owner {
            ready.users.remove(owner);
        }
        if !ready.users.is_empty() || (ready.lasting && owner.is_some()) {
            return Ok(());
        }
        let undo = slot.ready.take().map(|ready| ready.undo).unwrap_or_default();
        slot.gone = true;
        let failed = self.take_back(undo);
        self.books().slots.remove(point);
        failed.into_iter().next().map_or(Ok(()), Err)
    }

    fn take_back(&self, undo: Vec<Undo>) -> Vec<StorageError> {
        let mut failed = Vec::new();
        for step in undo.into_iter().rev() {
            match step {
                Undo::Unmount(point) => failed.extend(unmount(&point).err()),
                // Only if it is empty: what is in it is not ours.
                Undo::RemoveDirectory(path) => drop(fs::remove_dir(path)),
                Undo::Unwatch(target) => self.watcher.remove(&target),
                Undo::Drop(held) => drop(held),
                // Unmounted without waiting, it may still be in use: then it goes when it no longer is.
                Undo::Close(scratch) => drop(scratch),
            }
        }
        failed
    }

    fn make(
        &self,
        owner: Option<&str>,
        planned: &Planned,
        images: &dyn ImagePull,
        undo: &mut Vec<Undo>,
    ) -> Result<(), StorageError> {
        let point = &planned.point;
        match &planned.plan {
            Plan::Mount { source, fstype, options, make } => {
                // A shared directory that was mounted before the agent began stays.
                if fstype == "virtiofs" && is_mount_point(point).unwrap_or(false) {
                    return Ok(());
                }
                for directory in make {
                    path::make_dirs(directory, 0o755)?;
                }
                if fstype == "bind" && !source.is_dir() {
                    make_file(point)?;
                } else {
                    make_point(point, undo)?;
                }
                mount(source, point, fstype, options)?;
                undo.push(Undo::Unmount(point.clone()));
            }
            Plan::Block(block) => {
                make_point(point, undo)?;
                self.mount_block(block, point, undo)?;
            }
            Plan::Ephemeral { fstype, options, gid, huge } => {
                if let Some(pages) = huge {
                    self.set_pages_aside(*pages)?;
                }
                make_point(point, undo)?;
                mount(Path::new(fstype), point, fstype, options)?;
                undo.push(Undo::Unmount(point.clone()));
                if let Some(gid) = gid {
                    ownership::give_root(point, *gid)?;
                }
            }
            Plan::Local { mode, gid } => {
                path::make_dirs(point, 0o755)?;
                set_local(point, *mode, *gid)?;
            }
            Plan::Watch { source } => {
                if let Some(parent) = point.parent() {
                    path::make_dirs(parent, 0o755)?;
                }
                self.watcher.add(source, point)?;
                undo.push(Undo::Unwatch(point.clone()));
            }
            Plan::Image { reference, metadata } => {
                let request = ImageRequest { reference, metadata, container: owner.unwrap_or_default() };
                let held = images
                    .pull(&request)
                    .map_err(|reason| StorageError::Image { image: crate::error::clip(reference), reason })?;
                undo.push(Undo::Drop(held));
            }
            Plan::Layers(layers) => {
                let upper = path::make_below_all(&layers.below, "upper")?;
                undo.push(Undo::RemoveDirectory(layers.below.clone()));
                undo.push(Undo::RemoveDirectory(upper.clone()));
                self.mount_block(&layers.upper, &upper, undo)?;
                for directory in &layers.directories {
                    let made = path::make_below(&upper, &directory.path, directory.mode)?;
                    set_mode(&made, directory.mode, directory.owner)?;
                }
                for name in ["upper", "work"] {
                    path::make_below(&upper, Path::new(name), 0o755)?;
                }
                let mut lower = Vec::new();
                for (at, block) in layers.lower.iter().enumerate() {
                    let place = path::make_below_all(&layers.below, &format!("lower-{at}"))?;
                    undo.push(Undo::RemoveDirectory(place.clone()));
                    let read_only = Block {
                        options: MountOptions {
                            flags: block.options.flags | MsFlags::MS_RDONLY,
                            data: block.options.data.clone(),
                        },
                        ..block.clone()
                    };
                    self.mount_block(&read_only, &place, undo)?;
                    lower.push(place);
                }
                let data = erofs::overlay_options(&upper, &lower);
                let options = MountOptions::parse([data.as_str()])
                    .map_err(|reason| StorageError::invalid(point.display().to_string(), reason))?;
                make_point(point, undo)?;
                mount(Path::new("overlay"), point, "overlay", &options)?;
                undo.push(Undo::Unmount(point.clone()));
            }
        }
        if let Some(group) = planned.group {
            ownership::give(point, group, planned.read_only)?;
        }
        Ok(())
    }

    /// Waits for the device, puts on it what is asked for, and mounts it.
    fn mount_block(&self, block: &Block, point: &Path, undo: &mut Vec<Undo>) -> Result<(), StorageError> {
        let device = block.address.wait(&self.settings.machine, block.partition)?;
        let failed = |reason: String| StorageError::Scratch { device: block.address.to_string(), reason };
        match block.fresh {
            Fresh::No => mount(&device, point, &block.fstype, &block.options)?,
            Fresh::Plain => {
                format(&device).map_err(|e| failed(e.to_string()))?;
                mount(&device, point, &block.fstype, &block.options)?;
            }
            Fresh::Encrypted => {
                let scratch =
                    Scratch::make(&device, &mapping_name(point)).map_err(|e| failed(chained(&e)))?;
                let scratch = Box::new(scratch);
                let place = path::Place::open(point)?;
                let flags = block.options.flags | MsFlags::MS_NODEV | MsFlags::MS_NOSUID;
                let mounted = scratch.format_ext4().and_then(|()| scratch.mount(&place.name(), flags));
                undo.push(Undo::Close(scratch));
                mounted.map_err(|e| failed(chained(&e)))?;
            }
        }
        undo.push(Undo::Unmount(point.to_owned()));
        Ok(())
    }

    /// Raises the number of pages to what all storages together need; the kernel may give fewer.
    fn set_pages_aside(&self, pages: HugePages) -> Result<(), StorageError> {
        let slots: Vec<_> = self.books().slots.values().cloned().collect();
        let mut wanted = pages.count;
        // The one that is being made holds its own lock; it isn't ready yet.
        for ready in slots.iter().filter_map(|slot| slot.try_lock().ok()) {
            let huge = ready.ready.as_ref().and_then(|ready| ready.huge);
            wanted += huge.filter(|huge| huge.page == pages.page).map_or(0, |huge| huge.count);
        }
        let file = format!("kernel/mm/hugepages/hugepages-{}kB/nr_hugepages", pages.page / 1024);
        let file = self.settings.machine.sys().join(file);
        let read = || fs::read_to_string(&file).map_err(|e| StorageError::kernel("reading", &file, e));
        let count = |text: String| text.trim().parse::<u64>().unwrap_or(0);
        if count(read()?) >= wanted {
            return Ok(());
        }
        fs::write(&file, wanted.to_string()).map_err(|e| StorageError::kernel("writing", &file, e))?;
        let got = count(read()?);
        if got < wanted {
            let reason = format!("the kernel set {got} of {wanted} pages of {} bytes aside", pages.page);
            return Err(StorageError::kernel("setting pages aside in", &file, std::io::Error::other(reason)));
        }
        Ok(())
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// UpdateEphemeralMounts: memory of another size. What isn't mounted yet, is.
pub fn update_ephemeral(requests: &[StorageRequest], private: &[PathBuf]) -> Result<(), StorageError> {
    let mut plans = Vec::new();
    for request in requests {
        if request.driver != "ephemeral" {
            return Err(request.invalid("only storages of the driver ephemeral are updated"));
        }
        let context = Context { containers: Path::new("/"), private, owner: None };
        plans.extend(plan_all(std::slice::from_ref(request), &context)?);
    }
    for planned in plans {
        let Plan::Ephemeral { fstype, mut options, .. } = planned.plan else { continue };
        path::make_dirs(&planned.point, 0o755)?;
        let there = is_mount_point(&planned.point)
            .map_err(|e| StorageError::kernel("looking for", &planned.point, e))?;
        options.flags.set(MsFlags::MS_REMOUNT, there);
        mount(Path::new(&fstype), &planned.point, &fstype, &options)?;
    }
    Ok(())
}

/// A directory to mount on; one that is made is removed again when it is empty.
fn make_point(point: &Path, undo: &mut Vec<Undo>) -> Result<(), StorageError> {
    if !point.exists() {
        path::make_dirs(point, 0o755)?;
        undo.push(Undo::RemoveDirectory(point.to_owned()));
    }
    Ok(())
}

/// A file to bind a file on.
fn make_file(point: &Path) -> Result<(), StorageError> {
    if let Some(parent) = point.parent() {
        path::make_dirs(parent, 0o755)?;
    }
    fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(point)
        .map(drop)
        .map_err(|e| StorageError::kernel("making", point, e))
}

fn set_local(point: &Path, mode: Option<u32>, gid: Option<u32>) -> Result<(), StorageError> {
    if let Some(mode) = mode {
        set_mode(point, mode, None)?;
    }
    gid.map_or(Ok(()), |gid| ownership::give_root(point, gid))
}

fn set_mode(path: &Path, mode: u32, owner: Option<(u32, u32)>) -> Result<(), StorageError> {
    use std::os::unix::fs::{PermissionsExt, lchown};
    if let Some((uid, gid)) = owner {
        lchown(path, Some(uid), Some(gid)).map_err(|e| StorageError::kernel("giving away", path, e))?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(|e| StorageError::kernel("setting the mode of", path, e))
}

/// A new ext4 on a device that the pod gets for itself.
fn format(device: &Path) -> std::io::Result<()> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = fs::OpenOptions::new().write(true).read(true).open(device)?;
    let bytes = file.seek(SeekFrom::End(0))?;
    let mut id = [0; 32];
    fs::File::open("/dev/urandom")?.read_exact(&mut id)?;
    agent_scratch::ext4::format(&file, bytes, &id)?;
    file.sync_all()
}

/// A name for what lies on a device, from where it is mounted.
fn mapping_name(point: &Path) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let text: String = point.display().to_string().chars().map(plain).collect();
    let tail: String = text.chars().rev().take(80).collect::<Vec<_>>().into_iter().rev().collect();
    format!("sealpod{tail}")
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An error with what caused it: the kernel's word is the last.
fn chained(error: &dyn std::error::Error) -> String {
    std::iter::successors(error.source(), |cause| cause.source())
        .fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

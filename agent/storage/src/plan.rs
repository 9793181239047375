//! From requests to plans: every check that needs no effect happens here, before the first effect.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::STORAGE_HANDLERS;
use crate::block::{self, BlockAddress};
use crate::erofs::{self, Layers};
use crate::error::{StorageError, clip};
use crate::options::MountOptions;
use crate::path;
use crate::request::{FsGroup, StorageRequest};

/// Has the overlay get a writable layer of the container's own.
const OVERLAY_RW: &str = "io.katacontainers.fs-opt.overlay-rw";
/// A fresh file system is to be made.
const CREATE: &str = "create_filesystem";
/// Under encryption with a key that nobody keeps.
const EPHEMERAL_KEY: &str = "encryption_key=ephemeral";
const MAX_METADATA: usize = 256;

/// How a storage comes to be.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Plan {
    /// One mount(2): virtio-fs, bind, overlayfs. Directories of `make` come first.
    Mount { source: PathBuf, fstype: String, options: MountOptions, make: Vec<PathBuf> },
    /// From a block device.
    Block(Box<Block>),
    /// Memory.
    Ephemeral { fstype: String, options: MountOptions, gid: Option<u32>, huge: Option<HugePages> },
    /// A directory.
    Local { mode: Option<u32>, gid: Option<u32> },
    /// A directory or file that is copied as it changes.
    Watch { source: PathBuf },
    /// An image that is pulled in the guest.
    Image { reference: String, metadata: BTreeMap<String, String> },
    /// Layers on block devices, under one overlay.
    Layers(Box<Layers>),
}

/// A file system on a block device.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Block {
    pub(crate) address: BlockAddress,
    pub(crate) partition: Option<u32>,
    pub(crate) fstype: String,
    pub(crate) options: MountOptions,
    pub(crate) fresh: Fresh,
}

/// What is done to a block device before it is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fresh {
    /// Nothing: it holds a file system.
    No,
    /// It gets a new file system.
    Plain,
    /// It gets a new file system, under encryption and integrity with a key that dies with the guest.
    Encrypted,
}

/// Pages that are set aside before they are mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HugePages {
    pub(crate) page: u64,
    pub(crate) count: u64,
}

/// A storage, checked.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Planned {
    pub(crate) point: PathBuf,
    pub(crate) driver: String,
    pub(crate) source: String,
    pub(crate) plan: Plan,
    pub(crate) group: Option<FsGroup>,
    pub(crate) read_only: bool,
    /// It outlives the containers that use it.
    pub(crate) lasting: bool,
}

/// What plans depend on.
pub(crate) struct Context<'a> {
    /// `/run/kata-containers`.
    pub(crate) containers: &'a Path,
    /// The agent's own directories.
    pub(crate) private: &'a [PathBuf],
    /// Whose storages they are; `None` for the sandbox'.
    pub(crate) owner: Option<&'a str>,
}

/// Checks all storages of one request.
pub(crate) fn plan_all(
    requests: &[StorageRequest],
    context: &Context<'_>,
) -> Result<Vec<Planned>, StorageError> {
    const MOST: usize = 1024;
    if requests.len() > MOST {
        return Err(StorageError::invalid(format!("{} of them", requests.len()), "at most 1024 are taken"));
    }
    let mut plans = Vec::new();
    let (layers, single): (Vec<_>, Vec<_>) = requests.iter().partition(|r| erofs::belongs(r));
    // In the place of the first of them: later storages may lie below.
    let first = requests.iter().position(erofs::belongs);
    for (at, request) in single.into_iter().enumerate() {
        if first == Some(at) {
            plans.push(group(&layers, context)?);
        }
        plans.push(one(request, context)?);
    }
    if !layers.is_empty() && first.is_some_and(|first| first >= plans.len()) {
        plans.push(group(&layers, context)?);
    }
    Ok(plans)
}

fn group(layers: &[&StorageRequest], context: &Context<'_>) -> Result<Planned, StorageError> {
    let (upper, plan) = erofs::plan(layers, context)?;
    Ok(Planned {
        point: upper.check(context.private)?,
        driver: upper.driver.clone(),
        source: upper.source.clone(),
        plan: Plan::Layers(Box::new(plan)),
        group: None,
        read_only: false,
        lasting: context.owner.is_none(),
    })
}

fn one(request: &StorageRequest, context: &Context<'_>) -> Result<Planned, StorageError> {
    let point = request.check(context.private)?;
    let invalid = |reason: String| request.invalid(reason);
    let plan = match request.driver.as_str() {
        "blk" | "mmioblk" | "scsi" | "nvdimm" => Plan::Block(Box::new(block(request)?)),
        "virtio-fs" => {
            if !matches!(request.fstype.as_str(), "virtiofs" | "virtio_fs" | "virtio-fs") {
                return Err(request.invalid("its file system type is virtiofs"));
            }
            if request.source.is_empty() || request.source.len() > 36 {
                return Err(request.invalid("its source is the tag of a shared directory, up to 36 bytes"));
            }
            let options = mount_options(request, &[])?;
            Plan::Mount {
                source: PathBuf::from(&request.source),
                fstype: "virtiofs".into(),
                options,
                make: Vec::new(),
            }
        }
        "bind" => {
            let source = request.source_path()?.to_owned();
            path::not_ours(&source, context.private).map_err(invalid)?;
            let options = mount_options(request, &[])?;
            if !options.data.is_empty() {
                return Err(request.invalid(format!("a bind mount has no option '{}'", clip(&options.data))));
            }
            Plan::Mount { source, fstype: "bind".into(), options, make: Vec::new() }
        }
        "overlayfs" => overlay(request, context)?,
        "ephemeral" => ephemeral(request)?,
        "local" => local(request)?,
        "watchable-bind" => {
            let source = request.source_path()?.to_owned();
            path::not_ours(&source, context.private).map_err(invalid)?;
            if point.starts_with(&source) || source.starts_with(&point) {
                return Err(request.invalid("its source and its mount point lie in each other"));
            }
            Plan::Watch { source }
        }
        "image_guest_pull" => image(request, context)?,
        other => {
            let reason = format!("no driver '{}'; there are {}", clip(other), STORAGE_HANDLERS.join(", "));
            return Err(request.invalid(reason));
        }
    };
    // Kubernetes' volumes of memory and local directories are the pod's, also while the one container that
    // has them is made anew.
    let pods = matches!(plan, Plan::Ephemeral { .. } | Plan::Local { .. });
    let lasting = context.owner.is_none() || pods || request.shared;
    Ok(Planned {
        point,
        driver: request.driver.clone(),
        source: request.source.clone(),
        plan,
        group: request.fs_group,
        read_only: request.options.iter().flat_map(|o| o.split(',')).any(|o| o == "ro"),
        lasting,
    })
}

/// A file system on a block device; also the layers of an overlay.
pub(crate) fn block(request: &StorageRequest) -> Result<Block, StorageError> {
    let invalid = |reason: String| request.invalid(reason);
    let address = block::address(&request.driver, &request.source).map_err(invalid)?;
    block::check_fstype(&request.fstype).map_err(invalid)?;
    let (mut create, mut encrypt) = (false, false);
    for option in &request.driver_options {
        match option.as_str() {
            CREATE => create = true,
            EPHEMERAL_KEY => encrypt = true,
            other if other.starts_with("encryption_key") => {
                return Err(request.invalid(format!("'{}'; there is only {EPHEMERAL_KEY}", clip(other))));
            }
            // Hints that mean something to other drivers.
            _ => {}
        }
    }
    let fresh = match (create, encrypt) {
        (false, false) => Fresh::No,
        (true, false) => Fresh::Plain,
        (true, true) => Fresh::Encrypted,
        (false, true) => return Err(request.invalid(format!("{EPHEMERAL_KEY} requires {CREATE}"))),
    };
    if fresh != Fresh::No && request.fstype != "ext4" {
        return Err(request.invalid(format!("a fresh file system is ext4, not {}", request.fstype)));
    }
    if fresh != Fresh::No && request.driver == "nvdimm" {
        return Err(request.invalid("no fresh file system is made on nvdimm"));
    }
    let partition = erofs::partition(request)?;
    if fresh != Fresh::No && partition.is_some() {
        return Err(request.invalid("a fresh file system takes a whole device"));
    }
    let options = mount_options(request, &[erofs::MARK])?;
    Ok(Block { address, partition, fstype: request.fstype.clone(), options, fresh })
}

/// Options for mount(2); those that begin with one of `skip` are the driver's.
pub(crate) fn mount_options(request: &StorageRequest, skip: &[&str]) -> Result<MountOptions, StorageError> {
    let ours = |option: &&str| !skip.iter().any(|prefix| option.starts_with(prefix));
    let options: Vec<&str> = request.options.iter().map(String::as_str).filter(ours).collect();
    if let Some(unknown) =
        options.iter().find(|o| o.starts_with("io.katacontainers.") || o.starts_with("X-kata."))
    {
        return Err(request.invalid(format!("this driver has no option '{}'", clip(unknown))));
    }
    MountOptions::parse(options).map_err(|reason| request.invalid(reason))
}

fn overlay(request: &StorageRequest, context: &Context<'_>) -> Result<Plan, StorageError> {
    if !matches!(request.fstype.as_str(), "overlay" | "overlayfs" | "") {
        return Err(request.invalid("its file system type is overlay"));
    }
    let mut wanted: Vec<String> = Vec::new();
    let mut make = Vec::new();
    for option in request.options.iter().chain(&request.driver_options) {
        if option != OVERLAY_RW {
            wanted.push(option.clone());
        }
    }
    if request.options.iter().chain(&request.driver_options).any(|option| option == OVERLAY_RW) {
        let Some(owner) = context.owner else {
            return Err(request.invalid("a writable overlay is a container's"));
        };
        let own = context.containers.join(owner);
        wanted.push(format!("upperdir={}", own.join("upper").display()));
        wanted.push(format!("workdir={}", own.join("work").display()));
    }
    let parts: Vec<&str> = wanted.iter().flat_map(|option| option.split(',')).collect();
    if !parts.iter().any(|part| part.starts_with("lowerdir=")) {
        return Err(request.invalid("it names no lowerdir"));
    }
    for part in &parts {
        if let Some(directory) = part.strip_prefix("upperdir=").or_else(|| part.strip_prefix("workdir=")) {
            let directory = path::absolute(directory).map_err(|reason| request.invalid(reason))?;
            path::not_ours(&directory, context.private).map_err(|reason| request.invalid(reason))?;
            make.push(directory);
        } else if let Some(directories) = part.strip_prefix("lowerdir=") {
            for directory in directories.split(':').filter(|directory| !directory.is_empty()) {
                let directory = path::absolute(directory).map_err(|reason| request.invalid(reason))?;
                path::not_ours(&directory, context.private).map_err(|reason| request.invalid(reason))?;
            }
        }
    }
    let with = StorageRequest { options: wanted, ..request.clone() };
    let options = mount_options(&with, &[])?;
    Ok(Plan::Mount { source: "overlay".into(), fstype: "overlay".into(), options, make })
}

fn ephemeral(request: &StorageRequest) -> Result<Plan, StorageError> {
    let gid = group_option(request)?;
    let options = mount_options(request, &["fsgid="])?;
    let huge = match request.fstype.as_str() {
        "tmpfs" => None,
        "hugetlbfs" => Some(huge_pages(&options.data).map_err(|reason| request.invalid(reason))?),
        _ => return Err(request.invalid("its file system type is tmpfs or hugetlbfs")),
    };
    Ok(Plan::Ephemeral { fstype: request.fstype.clone(), options, gid, huge })
}

/// The runtime's own way to name the group of a volume's root.
fn group_option(request: &StorageRequest) -> Result<Option<u32>, StorageError> {
    match StorageRequest::option(&request.options, "fsgid") {
        None => Ok(None),
        Some(text) => {
            text.parse().map(Some).map_err(|_| request.invalid(format!("fsgid '{}' is no group", clip(text))))
        }
    }
}

fn huge_pages(data: &str) -> Result<HugePages, String> {
    let value = |key: &str| {
        let found = data.split(',').find_map(|option| option.strip_prefix(key));
        found.ok_or_else(|| format!("it names no {key}BYTES"))
    };
    let page = size(value("pagesize=")?)?;
    let bytes = size(value("size=")?)?;
    if page < 1024 || !page.is_power_of_two() {
        return Err(format!("a page size of {page} bytes"));
    }
    if bytes < page {
        return Err(format!("{bytes} bytes are less than a page of {page}"));
    }
    Ok(HugePages { page, count: bytes / page })
}

/// Bytes, with K, M or G.
fn size(text: &str) -> Result<u64, String> {
    let (digits, unit) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 1 << 10),
        Some(b'm' | b'M') => (&text[..text.len() - 1], 1 << 20),
        Some(b'g' | b'G') => (&text[..text.len() - 1], 1 << 30),
        _ => (text, 1),
    };
    let number = digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse::<u64>().ok()).flatten();
    let bytes = number.and_then(|number| number.checked_mul(unit));
    bytes.ok_or_else(|| format!("'{}' is not a number of bytes", clip(text)))
}

fn local(request: &StorageRequest) -> Result<Plan, StorageError> {
    let gid = group_option(request)?;
    let mut mode = None;
    for option in request.options.iter().flat_map(|option| option.split(',')) {
        if let Some(text) = option.strip_prefix("mode=") {
            let octal = !text.is_empty() && text.bytes().all(|b| (b'0'..=b'7').contains(&b));
            let bits = u32::from_str_radix(text, 8).ok().filter(|bits| octal && *bits <= 0o7777);
            mode = Some(bits.ok_or_else(|| request.invalid(format!("mode '{}' is not octal", clip(text))))?);
        } else if !option.is_empty() && !option.starts_with("fsgid=") {
            return Err(request.invalid(format!("this driver has no option '{}'", clip(option))));
        }
    }
    Ok(Plan::Local { mode, gid })
}

/// `image_guest_pull={"metadata":{…}}` among the driver options; the source is the reference.
fn image(request: &StorageRequest, context: &Context<'_>) -> Result<Plan, StorageError> {
    if context.owner.is_none() {
        return Err(request.invalid("an image is pulled for a container"));
    }
    let Some(text) = StorageRequest::option(&request.driver_options, "image_guest_pull") else {
        return Err(request.invalid("no driver option image_guest_pull={\"metadata\":{…}}"));
    };
    let wrong = || request.invalid("image_guest_pull is not JSON of {\"metadata\":{NAME:TEXT,…}}");
    let volume: Value = serde_json::from_str(text).map_err(|_| wrong())?;
    let mut metadata = BTreeMap::new();
    match volume.get("metadata") {
        Some(Value::Object(entries)) if entries.len() <= MAX_METADATA => {
            for (key, value) in entries {
                metadata.insert(key.clone(), value.as_str().ok_or_else(wrong)?.to_owned());
            }
        }
        None | Some(Value::Null) if volume.is_object() => {}
        _ => return Err(wrong()),
    }
    let reference = match request.source.as_str() {
        "" => metadata.get("io.kubernetes.cri.image-name").cloned().unwrap_or_default(),
        source => source.to_owned(),
    };
    if reference.is_empty() {
        return Err(request.invalid("its source names no image"));
    }
    Ok(Plan::Image { reference, metadata })
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;

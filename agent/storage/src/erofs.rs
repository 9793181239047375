//! Images as block devices: one erofs file system a layer, a writable ext4 on top, under one overlay
//! (driver `erofs.multi-layer`, options `X-kata.…`). The storages of one container that carry the mark
//! belong together.

use std::path::{Path, PathBuf};

use crate::error::{StorageError, clip};
use crate::path;
use crate::plan::{self, Block, Context};
use crate::request::StorageRequest;

/// Options that are the agent's, not mount(2)'s.
pub(crate) const MARK: &str = "X-kata.";
const DRIVER: &str = "erofs.multi-layer";
const MULTI_LAYER: &str = "X-kata.multi-layer=true";
const UPPER: &str = "X-kata.overlay-upper";
const LOWER: &str = "X-kata.overlay-lower";
const MKDIR: &str = "X-kata.mkdir.path=";
/// An overlay takes no more.
const MAX_LAYERS: usize = 128;

/// The layers of one root file system.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Layers {
    pub(crate) upper: Block,
    /// Topmost first, as the runtime lists them.
    pub(crate) lower: Vec<Block>,
    pub(crate) directories: Vec<Directory>,
    /// Where the layers are mounted on their own.
    pub(crate) below: PathBuf,
}

/// A directory that is made in the writable layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Directory {
    pub(crate) path: PathBuf,
    pub(crate) mode: u32,
    pub(crate) owner: Option<(u32, u32)>,
}

/// Whether a storage is one of the layers.
pub(crate) fn belongs(request: &StorageRequest) -> bool {
    request.driver == DRIVER || request.options.iter().any(|option| option == MULTI_LAYER)
}

/// Checks the layers; returns the storage of the writable one, whose mount point is the overlay's.
pub(crate) fn plan<'a>(
    requests: &[&'a StorageRequest],
    context: &Context<'_>,
) -> Result<(&'a StorageRequest, Layers), StorageError> {
    let Some(first) = requests.first() else {
        return Err(StorageError::invalid(DRIVER, "no layers"));
    };
    let Some(owner) = context.owner else {
        return Err(first.invalid("layers are a container's"));
    };
    if requests.len() > MAX_LAYERS {
        return Err(first.invalid(format!("more than {MAX_LAYERS} layers")));
    }
    let mut upper = None;
    let mut lower = Vec::new();
    let mut directories = Vec::new();
    for request in requests {
        request.check(context.private)?;
        let has = |mark: &str| request.options.iter().any(|option| option == mark);
        let by_device = StorageRequest { driver: device_driver(request).into(), ..(*request).clone() };
        let layer = plan::block(&by_device)?;
        match (has(UPPER) || request.fstype == "ext4", has(LOWER) || request.fstype == "erofs") {
            (true, false) => {
                if upper.replace((*request, layer)).is_some() {
                    return Err(request.invalid("a second writable layer"));
                }
                for option in request.options.iter().filter_map(|option| option.strip_prefix(MKDIR)) {
                    directories.push(directory(option).map_err(|reason| request.invalid(reason))?);
                }
            }
            (false, true) if request.fstype == "erofs" => lower.push(layer),
            (false, true) => return Err(request.invalid("a lower layer's file system type is erofs")),
            _ => return Err(request.invalid(format!("either {UPPER} or {LOWER}"))),
        }
    }
    let Some((request, upper)) = upper else {
        return Err(first.invalid(format!("no writable layer ({UPPER})")));
    };
    if lower.is_empty() {
        return Err(first.invalid(format!("no lower layer ({LOWER})")));
    }
    let below = context.containers.join(owner).join("multi-layer");
    Ok((request, Layers { upper, lower, directories, below }))
}

/// Under the group's own driver name the source alone says what it is.
fn device_driver(request: &StorageRequest) -> &str {
    match request.driver.as_str() {
        DRIVER => "blk",
        other => other,
    }
}

/// `{{ mount 0 }}/PATH[:MODE[:UID:GID]]`, below the writable layer.
fn directory(spec: &str) -> Result<Directory, String> {
    let wrong = || format!("'{}' is not {{{{ mount 0 }}}}/PATH[:MODE[:UID:GID]]", clip(spec));
    let mut parts = spec.split(':');
    let below = parts.next().and_then(|path| path.strip_prefix("{{ mount 0 }}/")).ok_or_else(wrong)?;
    let below = path::relative(below).ok_or_else(wrong)?;
    let mode = match parts.next() {
        None | Some("") => 0o755,
        Some(text) => u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777).ok_or_else(wrong)?,
    };
    let number = |text: Option<&str>| text.map(|text| text.parse::<u32>().map_err(|_| wrong())).transpose();
    let owner = match (number(parts.next())?, number(parts.next())?) {
        (None, None) => None,
        (Some(uid), Some(gid)) => Some((uid, gid)),
        _ => return Err(wrong()),
    };
    if parts.next().is_some() {
        return Err(wrong());
    }
    Ok(Directory { path: below, mode, owner })
}

/// Which partition of the device holds the layer, as the marks say. A mark that isn't known is refused: it
/// could be the one that makes the storage safe.
pub(crate) fn partition(request: &StorageRequest) -> Result<Option<u32>, StorageError> {
    let (mut partitioned, mut partition) = (false, None);
    for option in request.options.iter().filter_map(|option| option.strip_prefix(MARK)) {
        let (key, value) = option.split_once('=').unwrap_or((option, ""));
        let wrong = || request.invalid(format!("'{MARK}{}' is not known here", clip(option)));
        match (key, value) {
            ("overlay-upper" | "overlay-lower", "") | ("multi-layer", "true") | ("mkdir.path", _) => {}
            ("gpt-partitioned", "true") => partitioned = true,
            ("partition-number", number) => match number.parse() {
                Ok(number @ 1..=128) => partition = Some(number),
                _ => return Err(wrong()),
            },
            (key, _) if key.starts_with("dmverity") => {
                return Err(request.invalid(
                    "it asks for dm-verity, which this agent doesn't set up; images pulled in the guest are verified by digest",
                ));
            }
            _ => return Err(wrong()),
        }
    }
    if partitioned != partition.is_some() {
        return Err(request.invalid("X-kata.gpt-partitioned and X-kata.partition-number go together"));
    }
    Ok(partition)
}

/// The overlay's options over layers that are mounted.
pub(crate) fn overlay_options(upper: &Path, lower: &[PathBuf]) -> String {
    let lower: Vec<String> = lower.iter().map(|path| path.display().to_string()).collect();
    let upper = upper.display();
    format!("lowerdir={},upperdir={upper}/upper,workdir={upper}/work", lower.join(":"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_below_the_writable_layer() {
        let made = directory("{{ mount 0 }}/upper/etc:0700:1:2").unwrap();
        assert_eq!(made, Directory { path: "upper/etc".into(), mode: 0o700, owner: Some((1, 2)) });
        assert_eq!(directory("{{ mount 0 }}/work").unwrap().mode, 0o755);
        for wrong in [
            "upper",
            "/upper",
            "{{ mount 1 }}/x",
            "{{ mount 0 }}/",
            "{{ mount 0 }}/../x",
            "{{ mount 0 }}/x:9",
            "{{ mount 0 }}/x:0755:1",
            "{{ mount 0 }}/x:0755:1:2:3",
        ] {
            assert!(directory(wrong).is_err(), "{wrong}");
        }
    }
}

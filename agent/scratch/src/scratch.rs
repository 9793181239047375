//! A volume from device to mount and away again.

use std::fs::File;
use std::path::{Path, PathBuf};

use nix::mount::MsFlags;

use crate::device::HostDevice;
use crate::dm::{self, Control, Device};
use crate::error::{Result, ScratchError};
use crate::key::VolumeKey;
use crate::table::{self, BLOCK, Division};
use crate::tags::{self, MemoryDevice, Tags};
use crate::{ext4, sys};

/// Nothing on the device is ever read before it was written, and nothing outlives a crash.
const MOUNT_OPTIONS: &str = "noinit_itable,inode_readahead_blks=0,nobarrier";

/// An untrusted block device as a volume of this guest. Its calls block: keep them off threads that serve others.
///
/// Dropping it removes the volume as soon as nobody has it open or mounted any more.
pub struct Scratch {
    control: Control,
    /// From the top: who is closed first comes first.
    layers: Vec<Device>,
    name: String,
    node: PathBuf,
    bytes: u64,
    tags_in_memory: bool,
}

impl std::fmt::Debug for Scratch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scratch").field("name", &self.name).field("node", &self.node).finish_non_exhaustive()
    }
}

impl Scratch {
    /// Takes block device `device` (8 MiB to 16 TiB) for the volume `name`, with a key of its own. Whatever the device
    /// held is lost.
    ///
    /// # Errors
    /// [`ScratchError`], which names device or volume and the step; nothing is left behind.
    pub fn make(device: &Path, name: &str) -> Result<Scratch> {
        Scratch::make_with(device, name, Tags::Auto)
    }

    /// The same, with a say in where the tags live.
    ///
    /// # Errors
    /// As [`Scratch::make`].
    pub fn make_with(device: &Path, name: &str, tags: Tags) -> Result<Scratch> {
        dm::check_name(name)?;
        let host = HostDevice::open(device)?;
        let control = Control::open(name)?;
        let tags_in_memory = tags.in_memory(host.bytes, tags::guest_memory());
        let division = Division::of(host.bytes, tags_in_memory);
        let mut scratch = Scratch {
            control,
            layers: Vec::new(),
            name: name.to_owned(),
            node: PathBuf::new(),
            bytes: division.data * BLOCK,
            tags_in_memory,
        };
        // From here on its drop undoes what is there.
        scratch.build(&host, &division)?;
        Ok(scratch)
    }

    fn build(&mut self, host: &HostDevice, division: &Division) -> Result<()> {
        let in_memory = if self.tags_in_memory { division.data } else { 0 };
        let memory = MemoryDevice::make(&self.name, tags::memory_bytes(in_memory))?;
        let data = self.layer("-data", &table::data(&host.numbers, division))?;
        let tags = if self.tags_in_memory {
            memory.numbers()
        } else {
            self.layer("-tail", &table::tags(&memory.numbers(), &host.numbers, division))?
        };
        let integrity = self.layer("-tags", &table::integrity(&data, &tags, division.data))?;
        let key = VolumeKey::generate(&self.name)?;
        self.layer("", &table::crypt(&key.table_name(), &integrity, division.data))?;
        drop(key);
        self.node = self.layers.first().map(Device::node).unwrap_or_default();
        self.check_node(host)
    }

    /// Makes the next layer and returns how tables name it.
    fn layer(&mut self, suffix: &str, targets: &[dm::Target]) -> Result<String> {
        let device = self.control.make(&format!("{}{suffix}", self.name), targets, table::accepted)?;
        let numbers = device.numbers();
        self.layers.insert(0, device);
        Ok(numbers)
    }

    /// devtmpfs made the volume's node, and it is the volume.
    fn check_node(&self, host: &HostDevice) -> Result<()> {
        use std::os::fd::AsFd as _;
        let failed = |source| ScratchError::Device {
            device: host.path.clone(),
            step: "open the volume's node below /dev; is devtmpfs mounted?",
            source,
        };
        let node = File::open(&self.node).map_err(failed)?;
        let bytes = sys::block_device_size(node.as_fd()).map_err(failed)?;
        if bytes == self.bytes {
            return Ok(());
        }
        Err(ScratchError::Table { volume: self.name.clone(), target: "crypt" })
    }

    /// The volume's device node, `/dev/dm-…`. Blocks that were not written yet can't be read.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.node
    }

    /// The volume's size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.bytes
    }

    /// Whether an older version of a block is noticed: its tags are in the guest's memory.
    #[must_use]
    pub fn tags_in_memory(&self) -> bool {
        self.tags_in_memory
    }

    /// Makes an empty ext4 on it, without journal.
    ///
    /// # Errors
    /// [`ScratchError::Format`].
    pub fn format_ext4(&self) -> Result<()> {
        let failed = |source| ScratchError::Format { volume: self.name.clone(), source };
        let mut id = [0; 32];
        getrandom::fill(&mut id).map_err(|error| failed(error.into()))?;
        let file = File::options().write(true).open(&self.node).map_err(failed)?;
        ext4::format(&file, self.bytes, &id).and_then(|()| file.sync_all()).map_err(failed)
    }

    /// Mounts its ext4 at `directory`. Do it with these options only: they keep the kernel from reading what was never
    /// written.
    ///
    /// # Errors
    /// [`ScratchError::Mount`].
    pub fn mount(&self, directory: &Path, flags: MsFlags) -> Result<()> {
        nix::mount::mount(Some(&self.node), directory, Some("ext4"), flags, Some(MOUNT_OPTIONS)).map_err(
            |errno| ScratchError::Mount {
                volume: self.name.clone(),
                directory: directory.to_owned(),
                source: errno.into(),
            },
        )
    }

    /// Removes the volume, which must not be mounted. Its key goes with it.
    ///
    /// # Errors
    /// [`ScratchError::Mapper`] that names the layer; the volume is then removed when its last user closes it.
    pub fn close(mut self) -> Result<()> {
        while let Some(layer) = self.layers.first() {
            self.control.remove(layer)?;
            self.layers.remove(0);
        }
        Ok(())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        for layer in &self.layers {
            self.control.remove_when_unused(layer);
        }
    }
}

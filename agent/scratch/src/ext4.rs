//! Makes an empty ext4 (kernel documentation, "ext4 Data Structures and Algorithms"): no journal, blocks of 4 KiB,
//! group descriptors with checksums, one superblock.
//!
//! Written are the superblock, the group descriptors, the first group's bitmaps, its first inodes, the root directory
//! and the last group's bitmap: a few blocks, whatever the size. All other groups are marked as not initialised, so the
//! kernel makes up their bitmaps and reads no inode table block that it didn't write itself.

mod geometry;
mod structures;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::time::SystemTime;

pub use geometry::Geometry;
use geometry::{BLOCK, DESCRIPTORS_PER_BLOCK};

/// Writes an empty file system of at most `bytes` bytes to `file`, from its start. `id` is 32 random bytes: UUID and
/// hash seed. What is not written is never read, so the file may hold anything before.
///
/// # Errors
/// The file's; `InvalidInput` below 8 MiB.
pub fn format(file: &File, bytes: u64, id: &[u8; 32]) -> io::Result<()> {
    let geometry = Geometry::of(bytes).ok_or(io::ErrorKind::InvalidInput)?;
    let seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let now = u32::try_from(seconds).unwrap_or(u32::MAX);
    let write = |block: u32, content: &[u8]| file.write_all_at(content, u64::from(block) * BLOCK as u64);

    let first = geometry.group(0);
    write(first.block_bitmap, &structures::block_bitmap(&geometry, 0))?;
    write(first.inode_bitmap, &structures::inode_bitmap(&geometry))?;
    write(first.inode_table, &structures::first_inodes(geometry.root_block(), now))?;
    write(geometry.root_block(), &structures::root_directory())?;
    let last = geometry.groups - 1;
    if last > 0 {
        write(geometry.group(last).block_bitmap, &structures::block_bitmap(&geometry, last))?;
    }
    for (index, block) in (0..geometry.groups).step_by(DESCRIPTORS_PER_BLOCK as usize).zip(1u32..) {
        write(block, &structures::descriptors(&geometry, index, id))?;
    }
    // Last: what is half done is not a file system.
    write(0, &structures::superblock(&geometry, id, now))
}

//! Where everything of the file system lies.

/// Bytes of a block.
pub(super) const BLOCK: usize = 4096;
/// One bitmap block's bits.
pub(super) const BLOCKS_PER_GROUP: u32 = 8 * BLOCK as u32;
/// Bytes of an inode.
pub(super) const INODE: usize = 256;
/// Inodes that are taken from the start: ten reserved ones, of which the root directory is the second.
pub(super) const RESERVED_INODES: u32 = 10;
/// Of 32 bytes each.
pub(super) const DESCRIPTORS_PER_BLOCK: u32 = 128;
/// As other programs choose it.
const BYTES_PER_INODE: u32 = 16 * 1024;
const INODES_PER_BLOCK: u32 = (BLOCK / INODE) as u32;
const SMALLEST: u64 = 8 << 20;
/// A last group with less room for files is left out.
const LEAST_ROOM: u32 = 64;

/// The division of a device into block groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// All blocks, of 4 KiB.
    pub blocks: u32,
    /// Block groups, all of 128 MiB but the last.
    pub groups: u32,
    /// Inodes in each group.
    pub inodes_per_group: u32,
}

/// Where one group's structures are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) start: u32,
    pub(super) blocks: u32,
    /// Blocks from its start that are taken.
    pub(super) taken: u32,
    pub(super) block_bitmap: u32,
    pub(super) inode_bitmap: u32,
    pub(super) inode_table: u32,
}

impl Geometry {
    /// For a device of `bytes` bytes; none below 8 MiB. What is beyond 2^32 blocks is not used.
    #[must_use]
    pub fn of(bytes: u64) -> Option<Geometry> {
        if bytes < SMALLEST {
            return None;
        }
        let blocks = u32::try_from(bytes / BLOCK as u64).unwrap_or(u32::MAX);
        let group = blocks.min(BLOCKS_PER_GROUP);
        let per_inode = BYTES_PER_INODE / BLOCK as u32;
        let inodes_per_group = (group / per_inode).next_multiple_of(INODES_PER_BLOCK);
        let mut geometry = Geometry { blocks, groups: blocks.div_ceil(BLOCKS_PER_GROUP), inodes_per_group };
        let last = geometry.group(geometry.groups - 1);
        if last.blocks < last.taken + LEAST_ROOM {
            geometry.groups -= 1;
            geometry.blocks = last.start;
        }
        Some(geometry)
    }

    pub(super) fn inode_table_blocks(&self) -> u32 {
        self.inodes_per_group / INODES_PER_BLOCK
    }

    /// The superblock and the descriptors after it are in group 0 only.
    fn head(&self, index: u32) -> u32 {
        if index == 0 { 1 + self.groups.div_ceil(DESCRIPTORS_PER_BLOCK) } else { 0 }
    }

    pub(super) fn group(&self, index: u32) -> Group {
        let start = index * BLOCKS_PER_GROUP;
        let head = self.head(index);
        let root = u32::from(index == 0);
        Group {
            start,
            blocks: (self.blocks - start).min(BLOCKS_PER_GROUP),
            taken: head + 2 + self.inode_table_blocks() + root,
            block_bitmap: start + head,
            inode_bitmap: start + head + 1,
            inode_table: start + head + 2,
        }
    }

    /// The root directory's only block.
    pub(super) fn root_block(&self) -> u32 {
        let first = self.group(0);
        first.inode_table + self.inode_table_blocks()
    }

    pub(super) fn free_blocks(&self) -> u32 {
        let first = self.group(0).taken;
        let other = 2 + self.inode_table_blocks();
        self.blocks - first - (self.groups - 1) * other
    }

    pub(super) fn inodes(&self) -> u32 {
        self.groups * self.inodes_per_group
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_hold_what_they_must_at_every_size() {
        let mib = 1u64 << 20;
        let group = 128 * mib;
        for bytes in [
            8 * mib,
            8 * mib + 4095,
            group - 4096,
            group,
            group + 4096,
            group + 2 * mib,
            group + 3 * mib,
            1 << 30,
            (1 << 40) + 12345,
            (16 << 40) - 4096,
            16 << 40,
            u64::MAX,
        ] {
            let geometry = Geometry::of(bytes).unwrap();
            assert!(u64::from(geometry.blocks) * 4096 <= bytes);
            assert!(u64::from(geometry.blocks) * 4096 + group >= bytes.min(16 << 40), "{bytes}");
            let mut free = 0u64;
            for index in 0..geometry.groups {
                let group = geometry.group(index);
                assert!(group.blocks >= group.taken + LEAST_ROOM, "{bytes} {index}");
                free += u64::from(group.blocks - group.taken);
            }
            assert_eq!(u64::from(geometry.free_blocks()), free);
            assert!(geometry.root_block() < geometry.group(0).taken);
            assert!(geometry.inodes_per_group.is_multiple_of(8));
        }
        assert_eq!(Geometry::of(8 * mib - 1), None);
    }

    #[test]
    fn a_last_group_without_room_is_left_out() {
        let whole = Geometry::of(128 << 20).unwrap();
        assert_eq!(Geometry::of((128 << 20) + (2 << 20)).unwrap(), whole);
        assert_eq!(Geometry::of((128 << 20) + (3 << 20)).unwrap().groups, 2);
    }
}

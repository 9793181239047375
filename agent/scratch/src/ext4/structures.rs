//! The blocks that are written, as bytes. All numbers are little-endian.

use super::geometry::{BLOCK, BLOCKS_PER_GROUP, DESCRIPTORS_PER_BLOCK, Geometry, INODE, RESERVED_INODES};

const COMPAT_EXT_ATTR: u32 = 0x8;
const COMPAT_DIR_INDEX: u32 = 0x20;
/// Copies of the superblock in the two groups that it names: in none.
const COMPAT_SPARSE_SUPER2: u32 = 0x200;
const INCOMPAT_FILETYPE: u32 = 0x2;
const INCOMPAT_EXTENTS: u32 = 0x40;
const RO_COMPAT_LARGE_FILE: u32 = 0x2;
const RO_COMPAT_HUGE_FILE: u32 = 0x8;
/// Lets groups stay uninitialised. Metadata is authenticated below, so it needs no checksums of its own.
const RO_COMPAT_GDT_CSUM: u32 = 0x10;
const RO_COMPAT_DIR_NLINK: u32 = 0x20;
const RO_COMPAT_EXTRA_ISIZE: u32 = 0x40;

const INODE_UNINIT: u16 = 1;
const BLOCK_UNINIT: u16 = 2;
const ROOT_INODE: u32 = 2;
const EXTRA_ISIZE: u16 = 32;

fn put16(block: &mut [u8], at: usize, value: u16) {
    block[at..at + 2].copy_from_slice(&value.to_le_bytes());
}

fn put32(block: &mut [u8], at: usize, value: u32) {
    block[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// Block 0: 1 KiB of nothing, then the superblock.
pub(super) fn superblock(geometry: &Geometry, id: &[u8; 32], now: u32) -> Vec<u8> {
    let mut block = vec![0; BLOCK];
    let sb = &mut block[1024..2048];
    put32(sb, 0x00, geometry.inodes());
    put32(sb, 0x04, geometry.blocks);
    put32(sb, 0x0c, geometry.free_blocks());
    put32(sb, 0x10, geometry.inodes() - RESERVED_INODES);
    put32(sb, 0x18, 2); // blocks of 1 KiB << 2
    put32(sb, 0x1c, 2); // clusters are blocks
    put32(sb, 0x20, BLOCKS_PER_GROUP);
    put32(sb, 0x24, BLOCKS_PER_GROUP);
    put32(sb, 0x28, geometry.inodes_per_group);
    put32(sb, 0x30, now);
    put16(sb, 0x36, u16::MAX); // never due for a check
    put16(sb, 0x38, 0xef53);
    put16(sb, 0x3a, 1); // clean
    put16(sb, 0x3c, 2); // read-only once metadata was tampered with
    put32(sb, 0x40, now);
    put32(sb, 0x4c, 1); // revision with inode sizes
    put32(sb, 0x54, RESERVED_INODES + 1);
    put16(sb, 0x58, INODE as u16);
    put32(sb, 0x5c, COMPAT_EXT_ATTR | COMPAT_DIR_INDEX | COMPAT_SPARSE_SUPER2);
    put32(sb, 0x60, INCOMPAT_FILETYPE | INCOMPAT_EXTENTS);
    put32(
        sb,
        0x64,
        RO_COMPAT_LARGE_FILE
            | RO_COMPAT_HUGE_FILE
            | RO_COMPAT_GDT_CSUM
            | RO_COMPAT_DIR_NLINK
            | RO_COMPAT_EXTRA_ISIZE,
    );
    sb[0x68..0x78].copy_from_slice(&uuid(id));
    sb[0xec..0xfc].copy_from_slice(&id[16..]);
    sb[0xfc] = 1; // half MD4
    put32(sb, 0x100, 0x0c); // user extended attributes and ACLs
    put32(sb, 0x108, now);
    put16(sb, 0x15c, EXTRA_ISIZE);
    put16(sb, 0x15e, EXTRA_ISIZE);
    put32(sb, 0x160, 1); // hashes of names take bytes as signed
    block
}

/// A random UUID (RFC 9562, section 5.4) of the first half of `id`.
fn uuid(id: &[u8; 32]) -> [u8; 16] {
    let mut uuid: [u8; 16] = std::array::from_fn(|at| id[at]);
    uuid[6] = uuid[6] & 0x0f | 0x40;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    uuid
}

/// One block of group descriptors, from group `first` on.
pub(super) fn descriptors(geometry: &Geometry, first: u32, id: &[u8; 32]) -> Vec<u8> {
    let mut block = vec![0; BLOCK];
    let end = geometry.groups.min(first + DESCRIPTORS_PER_BLOCK);
    for (index, descriptor) in (first..end).zip(block.chunks_exact_mut(32)) {
        let group = geometry.group(index);
        let used_inodes = if index == 0 { RESERVED_INODES } else { 0 };
        let flags = match index {
            0 => 0,
            _ if index == geometry.groups - 1 => INODE_UNINIT,
            _ => INODE_UNINIT | BLOCK_UNINIT,
        };
        put32(descriptor, 0x00, group.block_bitmap);
        put32(descriptor, 0x04, group.inode_bitmap);
        put32(descriptor, 0x08, group.inode_table);
        // All of these are at most 32,768.
        put16(descriptor, 0x0c, (group.blocks - group.taken) as u16);
        put16(descriptor, 0x0e, (geometry.inodes_per_group - used_inodes) as u16);
        put16(descriptor, 0x10, u16::from(index == 0));
        put16(descriptor, 0x12, flags);
        put16(descriptor, 0x1c, (geometry.inodes_per_group - used_inodes) as u16);
        let sum = [&uuid(id)[..], &index.to_le_bytes(), &descriptor[..0x1e]]
            .iter()
            .fold(!0, |sum, part| crc16(sum, part));
        put16(descriptor, 0x1e, sum);
    }
    block
}

/// CRC-16 with the reflected polynomial 0xa001, as the kernel's.
fn crc16(sum: u16, bytes: &[u8]) -> u16 {
    bytes.iter().fold(sum, |sum, byte| {
        (0..8)
            .fold(sum ^ u16::from(*byte), |sum, _| if sum & 1 == 1 { (sum >> 1) ^ 0xa001 } else { sum >> 1 })
    })
}

/// Blocks that are taken, and those that don't exist.
pub(super) fn block_bitmap(geometry: &Geometry, index: u32) -> Vec<u8> {
    let group = geometry.group(index);
    bitmap(|bit| bit < group.taken || bit >= group.blocks)
}

/// Group 0's inodes that are taken, and those that don't exist.
pub(super) fn inode_bitmap(geometry: &Geometry) -> Vec<u8> {
    bitmap(|bit| bit < RESERVED_INODES || bit >= geometry.inodes_per_group)
}

fn bitmap(set: impl Fn(u32) -> bool) -> Vec<u8> {
    let mut block = vec![0; BLOCK];
    for bit in (0..8 * BLOCK).filter(|bit| set(*bit as u32)) {
        block[bit / 8] |= 1 << (bit % 8);
    }
    block
}

/// The first block of group 0's inode table: the root directory, owned by root, mode 0755, and otherwise nothing.
pub(super) fn first_inodes(root_block: u32, now: u32) -> Vec<u8> {
    let mut block = vec![0; BLOCK];
    let at = (ROOT_INODE as usize - 1) * INODE;
    let inode = &mut block[at..at + INODE];
    put16(inode, 0x00, 0o40_755);
    put32(inode, 0x04, BLOCK as u32);
    for time in [0x08, 0x0c, 0x10, 0x90] {
        put32(inode, time, now); // accessed, changed, modified, made
    }
    put16(inode, 0x1a, 2); // itself and "."
    put32(inode, 0x1c, BLOCK as u32 / 512);
    put32(inode, 0x20, 0x8_0000); // its blocks are in extents
    put16(inode, 0x28, 0xf30a); // header: magic, one of four extents
    put16(inode, 0x2a, 1);
    put16(inode, 0x2c, 4);
    put16(inode, 0x38, 1); // the extent: one block
    put32(inode, 0x3c, root_block);
    put16(inode, 0x80, EXTRA_ISIZE);
    block
}

/// "." and "..", both the root.
pub(super) fn root_directory() -> Vec<u8> {
    let mut block = vec![0; BLOCK];
    for (at, length, name) in [(0usize, 12, "."), (12, BLOCK as u16 - 12, "..")] {
        put32(&mut block, at, ROOT_INODE);
        put16(&mut block, at + 4, length);
        block[at + 6] = name.len() as u8;
        block[at + 7] = 2; // a directory
        block[at + 8..at + 8 + name.len()].copy_from_slice(name.as_bytes());
    }
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_crc_16_arc_with_another_start() {
        assert_eq!(crc16(0, b"123456789"), 0xbb3d);
        assert_eq!(crc16(!0, b""), 0xffff);
    }

    #[test]
    fn identifiers_are_random_uuids() {
        let uuid = uuid(&[0xff; 32]);
        assert_eq!((uuid[6], uuid[8]), (0x4f, 0xbf));
    }
}

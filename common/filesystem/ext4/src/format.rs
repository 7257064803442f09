//! The structures on disk. Those of ext4 are little-endian, those of its journal are big-endian.

use crate::{
    BLOCK,
    layout::{BLOCKS_OF_GROUP, INODES_OF_GROUP, INODES_USED, JOURNAL, LOST_AND_FOUND, Layout, ROOT},
};

/// The sizes of an inode, and of a group descriptor without the feature `64bit`, in bytes.
pub(crate) const INODE: usize = 256;
pub(crate) const GROUP: usize = 32;

/// Features in the superblock: compatible, incompatible and read-only compatible ones (super.rst).
const HAS_JOURNAL: u32 = 0x4;
const EXT_ATTR: u32 = 0x8;
const DIR_INDEX: u32 = 0x20;
const SPARSE_SUPER2: u32 = 0x200;
const FILETYPE: u32 = 0x2;
const EXTENTS: u32 = 0x40;
const LARGE_FILE: u32 = 0x2;
const HUGE_FILE: u32 = 0x8;
const GDT_CSUM: u32 = 0x10;
const DIR_NLINK: u32 = 0x20;
const EXTRA_ISIZE: u32 = 0x40;

/// Flags of a group (group_descr.rst, "bgflags").
const INODE_UNINIT: u16 = 1;
const BLOCK_UNINIT: u16 = 2;
const INODE_ZEROED: u16 = 4;

/// The number of bytes in use in an inode's second half (inodes.rst, `i_extra_isize`).
const EXTRA: u16 = 32;
/// The flag of an inode that uses extents.
const EXTENTS_FL: u32 = 0x8_0000;

/// A buffer whose fields are written at their offsets.
struct Bytes<'a>(&'a mut [u8]);

impl Bytes<'_> {
    fn u16(&mut self, at: usize, value: u16) {
        self.0[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }

    /// Writes the low 32 bits. The layout keeps every number below 32 bits.
    fn u32(&mut self, at: usize, value: u64) {
        self.0[at..at + 4].copy_from_slice(&(value as u32).to_le_bytes());
    }

    fn be32(&mut self, at: usize, value: u64) {
        self.0[at..at + 4].copy_from_slice(&(value as u32).to_be_bytes());
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }
}

/// `struct ext4_super_block`.
pub(crate) fn superblock(layout: &Layout, uuid: &[u8; 16]) -> [u8; 1024] {
    let mut block = [0; 1024];
    let mut to = Bytes(&mut block);
    to.u32(0x0, layout.groups * INODES_OF_GROUP);
    to.u32(0x4, layout.blocks);
    to.u32(0xc, layout.free_blocks());
    to.u32(0x10, layout.groups * INODES_OF_GROUP - INODES_USED);
    // Blocks of 2 ^ (10 + 2) bytes.
    to.u32(0x18, 2);
    to.u32(0x1c, 2);
    to.u32(0x20, BLOCKS_OF_GROUP);
    to.u32(0x24, BLOCKS_OF_GROUP);
    to.u32(0x28, INODES_OF_GROUP);
    // The number of mounts never triggers a check.
    to.u16(0x36, u16::MAX);
    to.u16(0x38, 0xef53);
    // Clean. After an error the kernel remounts it read-only. Revision 1: inodes have the size given here.
    to.u16(0x3a, 1);
    to.u16(0x3c, 2);
    to.u32(0x4c, 1);
    to.u32(0x54, LOST_AND_FOUND);
    to.u16(0x58, INODE as u16);
    let journal = if layout.journal > 0 { HAS_JOURNAL } else { 0 };
    to.u32(0x5c, u64::from(journal | EXT_ATTR | DIR_INDEX | SPARSE_SUPER2));
    to.u32(0x60, u64::from(FILETYPE | EXTENTS));
    to.u32(0x64, u64::from(LARGE_FILE | HUGE_FILE | GDT_CSUM | DIR_NLINK | EXTRA_ISIZE));
    to.put(0x68, uuid);
    // The seed and the algorithm of directory hashes: half MD4 of unsigned characters.
    to.put(0xec, uuid);
    to.put(0xfc, &[1]);
    to.u16(0x15c, EXTRA);
    to.u16(0x15e, EXTRA);
    to.u32(0x160, 2);
    if layout.journal > 0 {
        // The journal's inode, and a copy of its extents and size.
        to.u32(0xe0, JOURNAL);
        to.put(0xfd, &[1]);
        to.put(0x10c, &extent(layout.journal_at(), layout.journal));
        to.u32(0x10c + 64, layout.journal * BLOCK);
    }
    block
}

/// `struct journal_superblock_s` of an empty journal (journal.rst).
pub(crate) fn journal_superblock(blocks: u64, uuid: &[u8; 16]) -> [u8; 1024] {
    let mut block = [0; 1024];
    let mut to = Bytes(&mut block);
    to.be32(0x0, 0xc03b_3998);
    to.be32(0x4, 4);
    to.be32(0xc, BLOCK);
    to.be32(0x10, blocks);
    to.be32(0x14, 1);
    to.be32(0x18, 1);
    to.put(0x30, uuid);
    to.be32(0x40, 1);
    block
}

/// `struct ext4_group_desc`. The kernel computes the bitmaps of groups that nothing was written to.
pub(crate) fn group(layout: &Layout, number: u64, uuid: &[u8; 16]) -> [u8; GROUP] {
    let used = if number == 0 { INODES_USED } else { 0 };
    let is_last = number + 1 == layout.groups;
    let flags = match number {
        0 => INODE_ZEROED,
        _ if is_last => INODE_ZEROED | INODE_UNINIT,
        _ => INODE_ZEROED | INODE_UNINIT | BLOCK_UNINIT,
    };
    let mut descriptor = [0; GROUP];
    let mut to = Bytes(&mut descriptor);
    to.u32(0x0, layout.block_bitmap(number));
    to.u32(0x4, layout.inode_bitmap(number));
    to.u32(0x8, layout.inode_table(number));
    to.u16(0xc, (layout.blocks_of(number) - layout.used(number)) as u16);
    to.u16(0xe, (INODES_OF_GROUP - used) as u16);
    to.u16(0x10, if number == 0 { 2 } else { 0 });
    to.u16(0x12, flags);
    to.u16(0x1c, (INODES_OF_GROUP - used) as u16);
    let sum = crc16(u16::MAX, uuid);
    let sum = crc16(sum, &(number as u32).to_le_bytes());
    let sum = crc16(sum, &descriptor[..0x1e]);
    Bytes(&mut descriptor).u16(0x1e, sum);
    descriptor
}

/// CRC-16 with the polynomial 0x8005 and reversed bits, as in the kernel's lib/crc16.c.
fn crc16(sum: u16, bytes: &[u8]) -> u16 {
    bytes.iter().fold(sum, |sum, byte| {
        (0..8).fold(sum ^ u16::from(*byte), |sum, _| (sum >> 1) ^ if sum & 1 == 1 { 0xa001 } else { 0 })
    })
}

/// A bitmap block whose first `used` bits are set. Bits from `count` on are set too, because they stand for
/// nothing.
pub(crate) fn bitmap(used: u64, count: u64) -> Vec<u8> {
    let mut block = vec![0; BLOCK as usize];
    for bit in (0..used).chain(count..BLOCK * 8) {
        block[(bit / 8) as usize] |= 1 << (bit % 8);
    }
    block
}

/// `struct ext4_inode` that belongs to root, with its extents.
pub(crate) fn inode(mode: u16, links: u16, blocks: u64, extents: &[u8; 60]) -> [u8; INODE] {
    let mut inode = [0; INODE];
    let mut to = Bytes(&mut inode);
    to.u16(0x0, mode);
    to.u32(0x4, blocks * BLOCK);
    to.u16(0x1a, links);
    // In sectors of 512 bytes.
    to.u32(0x1c, blocks * BLOCK / 512);
    to.u32(0x20, u64::from(EXTENTS_FL));
    to.put(0x28, extents);
    to.u16(0x80, EXTRA);
    inode
}

/// One extent, as an inode holds it (ifork.rst, "Extent Tree"). It has at most 32,768 blocks.
pub(crate) fn extent(first: u64, blocks: u64) -> [u8; 60] {
    let mut tree = [0; 60];
    let mut to = Bytes(&mut tree);
    to.u16(0x0, 0xf30a);
    to.u16(0x2, 1);
    to.u16(0x4, 4);
    to.u16(0x10, blocks as u16);
    to.u32(0x14, first);
    tree
}

/// The single block of a directory, with the entries `.` and `..`, and `lost+found` in the root
/// (directory.rst).
pub(crate) fn directory(own: u64, lost_and_found: Option<u64>) -> Vec<u8> {
    let mut block = vec![0; BLOCK as usize];
    let mut entries = vec![(own, "."), (ROOT, "..")];
    entries.extend(lost_and_found.map(|number| (number, "lost+found")));
    let (mut at, count) = (0, entries.len());
    for (index, (number, name)) in entries.into_iter().enumerate() {
        let length = if index + 1 == count { block.len() - at } else { 12 };
        let mut to = Bytes(&mut block[at..]);
        to.u32(0x0, number);
        to.u16(0x4, length as u16);
        // The length of the name, and the file type of a directory.
        to.put(0x6, &[name.len() as u8, 2]);
        to.put(0x8, name.as_bytes());
        at += length;
    }
    block
}

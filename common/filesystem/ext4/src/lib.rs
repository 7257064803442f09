//! An empty ext4 file system in a sparse file (kernel, Documentation/filesystems/ext4/).
//!
//! It is made for one use, the writable top of a container, so it is simple. Each group has its bitmaps and its table of
//! inodes at its beginning, and there is an inode for each block: bytes run out before inodes do. All of that is a hole in the
//! file until it is used. There are no copies of the superblock. A journal is there only if it is asked for.

mod format;
mod layout;

use std::{fs::File, io, os::unix::fs::FileExt};

use format::{GROUP, INODE, bitmap, directory, extent, group, inode, journal_superblock, superblock};
use layout::Layout;

/// The size of a block.
pub const BLOCK: u64 = 4096;

/// The most bytes that a file system may have room for: its blocks have numbers of 32 bits.
pub const LARGEST: u64 = 8 << 40;

/// What the file system is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// How many bytes files can have in it, with their directories.
    pub room: u64,
    /// Whether it has a journal, and so survives a power cut.
    pub journal: bool,
    /// What tells it from others.
    pub uuid: [u8; 16],
}

/// Makes it in a new file.
///
/// # Errors
/// `EFBIG` for more room than [`LARGEST`]; when the file cannot be written.
pub fn make(file: &File, shape: &Shape) -> io::Result<()> {
    if shape.room > LARGEST {
        return Err(io::Error::from_raw_os_error(27));
    }
    let layout = Layout::new(shape.room.div_ceil(BLOCK), shape.journal);
    file.set_len(layout.blocks * BLOCK)?;
    let write = |block: u64, bytes: &[u8]| file.write_all_at(bytes, block * BLOCK);

    let mut descriptors = Vec::with_capacity(usize::try_from(layout.groups).unwrap_or_default() * GROUP);
    for number in 0..layout.groups {
        descriptors.extend(group(&layout, number, &shape.uuid));
    }
    write(1, &descriptors)?;
    // The bitmaps that are not computed by the kernel: the first group's, and that of the last one, which may be short.
    write(layout.block_bitmap(0), &bitmap(layout.used(0), layout.blocks_of(0)))?;
    write(layout.inode_bitmap(0), &bitmap(layout::INODES_USED, layout::INODES_OF_GROUP))?;
    let last = layout.groups - 1;
    if last > 0 {
        write(layout.block_bitmap(last), &bitmap(layout.used(last), layout.blocks_of(last)))?;
    }

    let table = layout.inode_table(0) * BLOCK;
    let put =
        |number: u64, bytes: [u8; INODE]| file.write_all_at(&bytes, table + (number - 1) * INODE as u64);
    let [root, lost] = [layout.root(), layout.root() + 1];
    put(layout::ROOT, inode(0o40755, 3, 1, &extent(root, 1)))?;
    put(layout::LOST_AND_FOUND, inode(0o40700, 2, 1, &extent(lost, 1)))?;
    write(root, &directory(layout::ROOT, Some(layout::LOST_AND_FOUND)))?;
    write(lost, &directory(layout::LOST_AND_FOUND, None))?;

    if layout.journal > 0 {
        let at = extent(layout.journal_at(), layout.journal);
        put(layout::JOURNAL, inode(0o100_600, 1, layout.journal, &at))?;
        write(layout.journal_at(), &journal_superblock(layout.journal, &shape.uuid))?;
    }
    // Last: without it there is no file system.
    file.write_all_at(&superblock(&layout, &shape.uuid), 1024)
}

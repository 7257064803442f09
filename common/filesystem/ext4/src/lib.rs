//! Makes an empty ext4 file system in a sparse file (kernel, Documentation/filesystems/ext4/).
//!
//! It has one use, the writable layer of a container, so it is simple. Each group starts with its bitmaps and
//! its inode table. There is an inode for each block, so that inodes never run out before blocks. Unused
//! metadata is a hole in the file. There are no copies of the superblock. A journal is optional.

mod format;
mod layout;

use std::{fs::File, io, os::unix::fs::FileExt};

use format::{GROUP, INODE, bitmap, directory, extent, group, inode, journal_superblock, superblock};
use layout::Layout;

/// The size of a block, in bytes.
pub const BLOCK: u64 = 4096;

/// The largest room for files, in bytes. Block numbers have 32 bits.
pub const LARGEST: u64 = 8 << 40;

/// The parameters of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// The room for files and directories, in bytes.
    pub room: u64,
    /// Whether the file system has a journal, and so survives a power cut.
    pub journal: bool,
    /// The id of the file system.
    pub uuid: [u8; 16],
}

/// Makes the file system in a new file.
///
/// # Errors
/// `EFBIG` for more room than [`LARGEST`]; an error of writing the file.
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
    // The first group's bitmaps, and the block bitmap of the last group, which may be short. The kernel
    // computes all others.
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
    // The superblock comes last: without it there is no file system.
    file.write_all_at(&superblock(&layout, &shape.uuid), 1024)
}

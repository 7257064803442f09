//! Where everything is in the file system. Offsets and sizes are in blocks.

use crate::BLOCK;

/// A group has as many blocks and inodes as a block has bits, because each bitmap is one block.
pub(crate) const BLOCKS_OF_GROUP: u64 = BLOCK * 8;
pub(crate) const INODES_OF_GROUP: u64 = BLOCK * 8;
/// The blocks of a group's inode table.
const TABLE: u64 = INODES_OF_GROUP * crate::format::INODE as u64 / BLOCK;
/// The blocks that each group needs for itself: two bitmaps and the inode table.
const OVERHEAD: u64 = 2 + TABLE;
/// The smallest useful number of blocks in the last group, beyond its overhead.
const LEAST: u64 = 64;
/// The largest reserve of the kernel: it reserves a fiftieth of all blocks, but not more than this
/// (ext4_calculate_resv_clusters).
const RESERVE: u64 = 4096;

/// Reserved inode numbers (special_inodes.rst), and the first one that is not reserved.
pub(crate) const ROOT: u64 = 2;
pub(crate) const JOURNAL: u64 = 8;
pub(crate) const LOST_AND_FOUND: u64 = 11;
pub(crate) const INODES_USED: u64 = LOST_AND_FOUND;

/// The blocks of the file system, in groups. The first group has the superblock and the group descriptors.
/// Behind its inode table are the root directory, `lost+found` and the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) blocks: u64,
    pub(crate) groups: u64,
    /// The blocks of the journal; 0 for no journal.
    pub(crate) journal: u64,
}

impl Layout {
    /// A layout with `room` blocks for files.
    pub(crate) fn new(room: u64, journal: bool) -> Self {
        let journal = match (journal, room) {
            (false, _) => 0,
            // JBD2_MIN_JOURNAL_BLOCKS of the kernel.
            (true, ..32_768) => 1024,
            (true, _) => 8192,
        };
        let mut layout = Self { blocks: 0, groups: 1, journal };
        loop {
            let needed = layout.head() + layout.groups * OVERHEAD + 2 + journal + room;
            layout.blocks = needed + (needed / 49 + 1).min(RESERVE);
            let needed = layout.blocks.div_ceil(BLOCKS_OF_GROUP);
            if needed <= layout.groups {
                // The last group must hold its own overhead.
                let least = (layout.groups - 1) * BLOCKS_OF_GROUP + OVERHEAD + LEAST;
                layout.blocks = layout.blocks.max(least);
                return layout;
            }
            layout.groups = needed;
        }
    }

    /// The blocks of the superblock and the group descriptors.
    fn head(&self) -> u64 {
        1 + (self.groups * crate::format::GROUP as u64).div_ceil(BLOCK)
    }

    fn first_of(&self, group: u64) -> u64 {
        if group == 0 { self.head() } else { group * BLOCKS_OF_GROUP }
    }

    pub(crate) fn block_bitmap(&self, group: u64) -> u64 {
        self.first_of(group)
    }

    pub(crate) fn inode_bitmap(&self, group: u64) -> u64 {
        self.first_of(group) + 1
    }

    pub(crate) fn inode_table(&self, group: u64) -> u64 {
        self.first_of(group) + 2
    }

    /// The block of the root directory.
    pub(crate) fn root(&self) -> u64 {
        self.head() + OVERHEAD
    }

    /// The first block of the journal, behind `lost+found`.
    pub(crate) fn journal_at(&self) -> u64 {
        self.root() + 2
    }

    /// The number of blocks in a group.
    pub(crate) fn blocks_of(&self, group: u64) -> u64 {
        (self.blocks - group * BLOCKS_OF_GROUP).min(BLOCKS_OF_GROUP)
    }

    /// The number of used blocks in a group. They are its first ones.
    pub(crate) fn used(&self, group: u64) -> u64 {
        if group == 0 { self.journal_at() + self.journal } else { OVERHEAD }
    }

    pub(crate) fn free_blocks(&self) -> u64 {
        (0..self.groups).map(|group| self.blocks_of(group) - self.used(group)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_the_room_that_is_asked_for_and_little_more() {
        for room in
            [1, 16, 1000, 28_000, 30_000, 32_768, 65_000, 100_000, 1 << 20, 1 << 26, crate::LARGEST / BLOCK]
        {
            for journal in [false, true] {
                let layout = Layout::new(room, journal);
                let free = layout.free_blocks() - (layout.blocks / 50).min(RESERVE);
                assert!((room..=room + BLOCKS_OF_GROUP).contains(&free), "{room}: {free}, {layout:?}");
                assert!(layout.used(0) <= layout.blocks_of(0), "{layout:?}");
                assert!(layout.blocks <= u64::from(u32::MAX), "{layout:?}");
                assert!(layout.groups * INODES_OF_GROUP <= u64::from(u32::MAX), "{layout:?}");
            }
        }
    }
}

//! Where everything is.

use crate::BLOCK;

/// As many blocks and inodes as one block has bits.
pub(crate) const BLOCKS_OF_GROUP: u64 = BLOCK * 8;
pub(crate) const INODES_OF_GROUP: u64 = BLOCK * 8;
/// The blocks of a group's table of inodes.
const TABLE: u64 = INODES_OF_GROUP * crate::format::INODE as u64 / BLOCK;
/// Two bitmaps and the table.
const OVERHEAD: u64 = 2 + TABLE;
/// A last group that is shorter is not worth its overhead.
const LEAST: u64 = 64;
/// What the kernel keeps back for itself: a fiftieth of all blocks, and no more than this (ext4_calculate_resv_clusters).
const RESERVE: u64 = 4096;

/// The numbers of inodes that always mean the same (special_inodes.rst), and the first one that does not.
pub(crate) const ROOT: u64 = 2;
pub(crate) const JOURNAL: u64 = 8;
pub(crate) const LOST_AND_FOUND: u64 = 11;
pub(crate) const INODES_USED: u64 = LOST_AND_FOUND;

/// The blocks of the file system, in groups. The first one has the superblock, the groups' descriptors, and behind its table of
/// inodes the root, `lost+found` and the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) blocks: u64,
    pub(crate) groups: u64,
    /// The blocks of the journal; 0 without one.
    pub(crate) journal: u64,
}

impl Layout {
    /// With `room` blocks for files.
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
                // The last group has to hold its own overhead.
                let least = (layout.groups - 1) * BLOCKS_OF_GROUP + OVERHEAD + LEAST;
                layout.blocks = layout.blocks.max(least);
                return layout;
            }
            layout.groups = needed;
        }
    }

    /// The superblock, and the blocks of descriptors.
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

    /// How many blocks a group has.
    pub(crate) fn blocks_of(&self, group: u64) -> u64 {
        (self.blocks - group * BLOCKS_OF_GROUP).min(BLOCKS_OF_GROUP)
    }

    /// How many of them are used, from its first one on.
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

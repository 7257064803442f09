//! Allocates space in the image and writes to it.

use std::os::fd::OwnedFd;

use crate::{BLOCK, Error, format::SLOT};

/// How many blocks are reserved for inodes at a time. They stay in memory until they are full.
const EXTENT: u64 = 16;
/// The maximum tail that follows an inode, in bytes. A longer tail wastes less space in a block of its own.
pub(crate) const TAIL: u64 = 3072;

/// The image file.
#[derive(Debug)]
pub(crate) struct Space {
    file: OwnedFd,
    /// The first free block.
    end: u64,
    /// The offset of the current extent of inodes, in bytes.
    start: u64,
    /// The content of the extent so far.
    filled: Vec<u8>,
    /// The number of used bytes in the extent, and its size.
    used: u64,
    size: u64,
}

impl Space {
    /// An image in an empty file. The first block is reserved.
    pub(crate) fn new(file: OwnedFd) -> Self {
        Self { file, end: 1, start: 0, filled: Vec::new(), used: 0, size: 0 }
    }

    /// Allocates `count` consecutive blocks. Returns the first one.
    pub(crate) fn blocks(&mut self, count: u64) -> Result<u32, Error> {
        let first = self.end;
        let end = first.checked_add(count).filter(|end| *end < u64::from(u32::MAX)).ok_or(Error::TooLarge)?;
        self.end = end;
        Ok(first as u32)
    }

    /// Allocates space for an inode of `head` bytes followed by its tail, and returns the offset. The tail
    /// has at most [`TAIL`] bytes and never crosses the end of a block.
    pub(crate) fn inode(&mut self, head: u64, tail: u64) -> Result<u64, Error> {
        let mut at = place(self.used, head, tail);
        if at + head + tail > self.size {
            self.flush()?;
            at = place(0, head, tail);
            self.size = (at + head + tail).next_multiple_of(BLOCK).max(EXTENT * BLOCK);
            self.start = u64::from(self.blocks(self.size / BLOCK)?) * BLOCK;
        }
        self.used = at + head + tail;
        Ok(self.start + at)
    }

    /// Writes at an offset from [`Space::inode`].
    pub(crate) fn write_inode(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        let Some(at) = offset.checked_sub(self.start).filter(|at| *at < self.size) else {
            return self.write(offset, bytes);
        };
        let (at, end) = (at as usize, at as usize + bytes.len());
        if self.filled.len() < end {
            self.filled.resize(end, 0);
        }
        self.filled[at..end].copy_from_slice(bytes);
        Ok(())
    }

    /// Writes the inodes that are still in memory.
    pub(crate) fn flush(&mut self) -> Result<(), Error> {
        let filled = std::mem::take(&mut self.filled);
        self.write(self.start, &filled)?;
        (self.size, self.used) = (0, 0);
        Ok(())
    }

    /// Writes at an offset in bytes.
    pub(crate) fn write(&self, mut offset: u64, mut bytes: &[u8]) -> Result<(), Error> {
        while !bytes.is_empty() {
            let count = rustix::io::retry_on_intr(|| rustix::io::pwrite(&self.file, bytes, offset))?;
            if count == 0 {
                return Err(std::io::Error::from(std::io::ErrorKind::WriteZero).into());
            }
            offset += count as u64;
            bytes = &bytes[count..];
        }
        Ok(())
    }

    /// Extends the file to the size of all its blocks. Returns the number of blocks.
    pub(crate) fn close(&mut self) -> Result<u32, Error> {
        self.flush()?;
        rustix::fs::ftruncate(&self.file, self.end * BLOCK)?;
        Ok(self.end as u32)
    }
}

/// The first suitable offset from `at` on, in bytes from the start of a block. An inode and its tail are put
/// in one block if they fit. Otherwise kernels before late 2024 (fs/erofs/inode.c, `erofs_fill_symlink`)
/// report a symbolic link as damaged.
fn place(at: u64, head: u64, tail: u64) -> u64 {
    let fits = |at: u64| match tail > 0 && head + tail <= BLOCK {
        true => at % BLOCK + head + tail <= BLOCK,
        false => (at + head) % BLOCK + tail <= BLOCK,
    };
    let at = at.next_multiple_of(SLOT);
    let next = at.next_multiple_of(BLOCK);
    match [at, next].into_iter().find(|at| fits(*at)) {
        Some(at) => at,
        // Put the tail at the start of a block.
        None => next + ((BLOCK - head % BLOCK) % BLOCK).next_multiple_of(SLOT),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_tail_is_cut_and_nothing_overlaps() {
        let file = tempfile::tempfile().unwrap();
        let mut space = Space::new(file.into());
        let mut last = (0, BLOCK);
        let sizes = [0, 1, 31, 32, 100, 1000, 2999, TAIL];
        for head in [64, 96, 2000, 4064, 4096, 5000, 70_000, 262_208] {
            for tail in sizes.into_iter().chain(sizes.into_iter().rev()) {
                let at = space.inode(head, tail).unwrap();
                assert_eq!(at % SLOT, 0);
                assert!((at + head) % BLOCK + tail <= BLOCK, "{head} {tail} at {at}");
                let together = tail == 0 || head + tail > BLOCK || at % BLOCK + head + tail <= BLOCK;
                assert!(together, "{head} {tail} at {at}");
                assert!(at >= last.1, "{head} {tail} at {at}, after {last:?}");
                last = (at, at + head + tail);
            }
        }
        assert!(u64::from(space.close().unwrap()) * BLOCK >= last.1);
    }
}

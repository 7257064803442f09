//! Reads a blob. Keeps as much of it in memory at once as decompression needs.

use std::io::{self, BufRead, Read};

use memchr::memmem;

/// How many bytes of the blob are read at a time.
const READ: usize = 256 << 10;
/// The minimum number of bytes in memory before a search gives up. There is at most one more read.
const ENOUGH: usize = (1 << 20) + READ;
/// The end of a flush in deflate, after the three bits that begin its block (RFC 1951, 3.2.4).
pub(super) const FLUSH: [u8; 4] = [0, 0, 0xff, 0xff];
/// The number of bytes before the next ones that may be overwritten. They have been used already.
pub(super) const BEFORE: usize = 33 << 10;
/// The number of bytes after those in memory that may be overwritten.
pub(super) const BEHIND: usize = 64;

/// A blob. Its next bytes are in memory, with free space around them.
pub(super) struct Input<R> {
    blob: R,
    memory: Vec<u8>,
    start: usize,
    end: usize,
    /// No flush begins in this many of the next bytes.
    clear: usize,
}

impl<R: Read> Input<R> {
    pub(super) fn new(blob: R) -> Self {
        // Twice the size, so that remaining bytes are moved to the front only rarely.
        let memory = vec![0; BEFORE + 2 * (ENOUGH + READ) + BEHIND];
        Self { blob, memory, start: BEFORE, end: BEFORE, clear: 0 }
    }

    pub(super) fn get_ref(&self) -> &R {
        &self.blob
    }

    pub(super) fn get_mut(&mut self) -> &mut R {
        &mut self.blob
    }

    /// All the memory, and the range of the blob's next bytes in it.
    pub(super) fn memory(&mut self) -> (&mut [u8], std::ops::Range<usize>) {
        (&mut self.memory, self.start..self.end)
    }

    /// The blob's next bytes that are in memory.
    pub(super) fn at_hand(&self) -> &[u8] {
        &self.memory[self.start..self.end]
    }

    /// The end of the first flush that begins at least `from` bytes from here. None if there is none in the
    /// bytes that fit into memory.
    ///
    /// # Errors
    /// When the blob cannot be read.
    pub(super) fn find_flush(&mut self, from: usize) -> io::Result<Option<usize>> {
        let mut from = from.max(self.clear);
        loop {
            let bytes = self.at_hand();
            let found = bytes.get(from..).and_then(|bytes| memmem::find(bytes, &FLUSH));
            let clear = found.map_or((bytes.len() + 1).saturating_sub(FLUSH.len()), |found| from + found);
            // If the search began further on, a flush may begin before.
            if from <= self.clear {
                self.clear = clear.max(self.clear);
            }
            if found.is_some() {
                return Ok(Some(clear + FLUSH.len()));
            }
            from = from.max(clear);
            if self.at_hand().len() >= ENOUGH || !self.more()? {
                return Ok(None);
            }
        }
    }

    /// Reads more after the bytes in memory, of which there must be less than [`ENOUGH`]. Returns false at
    /// the end of the blob.
    ///
    /// # Errors
    /// When the blob cannot be read.
    pub(super) fn more(&mut self) -> io::Result<bool> {
        let length = self.end - self.start;
        // Move a short remainder sooner, so that the same memory is used again and stays in the processor's
        // cache.
        if self.end + READ + BEHIND > self.memory.len() || length < READ / 4 {
            self.memory.copy_within(self.start..self.end, BEFORE);
            (self.start, self.end) = (BEFORE, BEFORE + length);
        }
        let count = loop {
            match self.blob.read(&mut self.memory[self.end..self.end + READ]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                outcome => break outcome?,
            }
        };
        self.end += count;
        Ok(count > 0)
    }
}

impl<R: Read> Read for Input<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // If no bytes are in memory and `buffer` is large, read directly into it. A plain archive is then not
        // copied once more.
        if self.start == self.end && buffer.len() >= READ {
            return self.blob.read(buffer);
        }
        let count = self.fill_buf()?.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.at_hand()[..count]);
        self.consume(count);
        Ok(count)
    }
}

impl<R: Read> BufRead for Input<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.start == self.end {
            self.more()?;
        }
        Ok(self.at_hand())
    }

    fn consume(&mut self, count: usize) {
        self.start += count;
        self.clear = self.clear.saturating_sub(count);
    }
}

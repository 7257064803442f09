//! A blob while it is read: as much of it in memory at once as whoever decompresses it has to see.

use std::io::{self, BufRead, Read};

use memchr::memmem;

/// Bytes of the blob read at a time.
const READ: usize = 256 << 10;
/// As much as this is had in memory before a search ends, and one reading more at most.
const ENOUGH: usize = (1 << 20) + READ;
/// How a flush of deflate ends, after the three bits that begin its block (RFC 1951, 3.2.4).
pub(super) const FLUSH: [u8; 4] = [0, 0, 0xff, 0xff];
/// So many bytes in front of the next ones may be written to: they were used already.
pub(super) const BEFORE: usize = 33 << 10;
/// So many bytes behind those in memory may be written to.
pub(super) const BEHIND: usize = 64;

/// A blob, of which the next bytes are in memory, with room around them.
pub(super) struct Input<R> {
    blob: R,
    memory: Vec<u8>,
    start: usize,
    end: usize,
    /// In so many of the next bytes no flush begins.
    clear: usize,
}

impl<R: Read> Input<R> {
    pub(super) fn new(blob: R) -> Self {
        // Twice as much, so that what is left is moved to the front as seldom as that many bytes were used.
        let memory = vec![0; BEFORE + 2 * (ENOUGH + READ) + BEHIND];
        Self { blob, memory, start: BEFORE, end: BEFORE, clear: 0 }
    }

    pub(super) fn get_ref(&self) -> &R {
        &self.blob
    }

    pub(super) fn get_mut(&mut self) -> &mut R {
        &mut self.blob
    }

    /// All the memory, and where in it the blob's next bytes are.
    pub(super) fn memory(&mut self) -> (&mut [u8], std::ops::Range<usize>) {
        (&mut self.memory, self.start..self.end)
    }

    /// The blob's next bytes, as many as are in memory.
    pub(super) fn at_hand(&self) -> &[u8] {
        &self.memory[self.start..self.end]
    }

    /// Where the first flush ends that begins `from` bytes from here or later. None where there is none in what may be in
    /// memory.
    ///
    /// # Errors
    /// What reading gives.
    pub(super) fn find_flush(&mut self, from: usize) -> io::Result<Option<usize>> {
        let mut from = from.max(self.clear);
        loop {
            let bytes = self.at_hand();
            let found = bytes.get(from..).and_then(|bytes| memmem::find(bytes, &FLUSH));
            let clear = found.map_or((bytes.len() + 1).saturating_sub(FLUSH.len()), |found| from + found);
            // Where it began further on, a flush may begin before.
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

    /// Reads more, behind what is in memory, of which there is not [`ENOUGH`]. False at the blob's end.
    ///
    /// # Errors
    /// What reading gives.
    pub(super) fn more(&mut self) -> io::Result<bool> {
        let length = self.end - self.start;
        // What is short is moved sooner, so that the same memory is used again and stays in the processor's cache.
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
        // Nothing is in memory, and all that would be read has room: a plain archive is not copied once more.
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

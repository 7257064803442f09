//! Chunks of decompressed data.

/// The maximum distance of a reference to earlier data in deflate, in bytes (RFC 1951, 3.2.5).
pub(super) const WINDOW: usize = 32 << 10;
/// The usual number of data bytes in a chunk; it may hold a few more. A chunk is small enough to stay in the
/// cache until it is hashed and written. Programs that compress on several cores cut archives into pieces of
/// this size.
pub const SIZE: usize = 1 << 20;
/// Extra bytes at the end of a chunk, for output of a decompressor that is not data.
pub(super) const SPARE: usize = 32;

/// A chunk of data. Memory in front of it holds earlier data.
#[derive(Default)]
pub struct Chunk {
    memory: Vec<u8>,
    end: usize,
}

impl Chunk {
    /// Empties the chunk.
    pub fn clear(&mut self) {
        if self.memory.is_empty() {
            self.memory = vec![0; WINDOW + SIZE + SPARE];
        }
        self.end = WINDOW;
    }

    /// The chunk's data.
    pub fn bytes(&self) -> &[u8] {
        self.memory.get(WINDOW..self.end).unwrap_or_default()
    }

    /// Whether the chunk has no data.
    pub fn is_empty(&self) -> bool {
        self.bytes().is_empty()
    }

    /// The free space after the data.
    pub(super) fn room(&mut self) -> &mut [u8] {
        &mut self.memory[self.end..]
    }

    /// The free space, together with the `length` bytes before it. `length` is at most [`WINDOW`].
    pub(super) fn room_behind(&mut self, length: usize) -> &mut [u8] {
        &mut self.memory[self.end - length..]
    }

    /// Adds the first `count` bytes of the free space to the data.
    pub(super) fn add(&mut self, count: usize) {
        self.end += count;
        debug_assert!(self.end <= self.memory.len());
    }
}

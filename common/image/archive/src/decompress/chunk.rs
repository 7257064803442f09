//! Chunks of an archive that is being decompressed.

/// As far as deflate refers back to what it gave before (RFC 1951, 3.2.5).
pub(super) const WINDOW: usize = 32 << 10;
/// The archive's bytes in a chunk, or a few more: small enough that they are still in the cache when they are hashed and
/// written, and as many as those who compress on several cores cut an archive into.
pub const SIZE: usize = 1 << 20;
/// So many more: room for what a decompressor is made to give behind the archive's bytes.
pub(super) const SPARE: usize = 32;

/// A chunk. In front of its bytes is memory for those that came before them.
#[derive(Default)]
pub struct Chunk {
    memory: Vec<u8>,
    end: usize,
}

impl Chunk {
    /// Empties it.
    pub fn clear(&mut self) {
        if self.memory.is_empty() {
            self.memory = vec![0; WINDOW + SIZE + SPARE];
        }
        self.end = WINDOW;
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        self.memory.get(WINDOW..self.end).unwrap_or_default()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.bytes().is_empty()
    }

    /// Where its next bytes go.
    pub(super) fn room(&mut self) -> &mut [u8] {
        &mut self.memory[self.end..]
    }

    /// The same, with the `length` bytes in front of it, at most [`WINDOW`].
    pub(super) fn room_behind(&mut self, length: usize) -> &mut [u8] {
        &mut self.memory[self.end - length..]
    }

    /// Takes the first `count` bytes of the room as its own.
    pub(super) fn add(&mut self, count: usize) {
        self.end += count;
        debug_assert!(self.end <= self.memory.len());
    }
}

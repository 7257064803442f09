//! Limits on the size of archives. Everything that unpacks archives uses the same ones.

/// The maximum size of an archive and its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The maximum size in bytes of the decompressed archive, and of all files in it, holes included.
    pub size: u64,
    /// The maximum ratio of decompressed to compressed size. It applies above 64 MiB.
    pub ratio: u64,
    /// The maximum number of entries.
    pub entries: u64,
}

impl Default for Limits {
    /// 64 GiB, ten million entries, and a ratio of 1000, which gzip reaches only for zeros.
    fn default() -> Self {
        Self { size: 64 << 30, ratio: 1000, entries: 10_000_000 }
    }
}

/// The limit that an archive exceeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Exceeded {
    /// [`Limits::size`].
    #[error("unpacked size exceeds {0} bytes")]
    Size(u64),
    /// [`Limits::ratio`].
    #[error("unpacked size exceeds {0} times the compressed size")]
    Ratio(u64),
    /// [`Limits::entries`].
    #[error("more than {0} entries")]
    Entries(u64),
}

impl Limits {
    /// No limits, for trusted content.
    pub const NONE: Self = Self { size: u64::MAX, ratio: u64::MAX, entries: u64::MAX };
    /// The ratio is not checked up to this decompressed size in bytes: a small archive of zeros is harmless.
    const FLOOR: u64 = 64 << 20;

    /// Checks that `given` bytes may be decompressed from `taken` bytes.
    ///
    /// # Errors
    /// The exceeded limit.
    pub fn hold_stream(&self, given: u64, taken: u64) -> Result<(), Exceeded> {
        if given > self.size {
            return Err(Exceeded::Size(self.size));
        }
        match given > Self::FLOOR && given / self.ratio.max(1) > taken {
            true => Err(Exceeded::Ratio(self.ratio)),
            false => Ok(()),
        }
    }

    /// Checks the number of entries and the total `size` of their files in bytes. Holes count, because a
    /// program that reads a file reads its holes too.
    ///
    /// # Errors
    /// The exceeded limit.
    pub fn hold_entries(&self, entries: u64, size: u64) -> Result<(), Exceeded> {
        match () {
            () if entries > self.entries => Err(Exceeded::Entries(self.entries)),
            () if size > self.size => Err(Exceeded::Size(self.size)),
            () => Ok(()),
        }
    }
}

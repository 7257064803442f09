//! How much an archive may ask of us: one set of limits, whoever unpacks it.

/// How large an archive and what is in it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Size of the decompressed archive in bytes; also of the files in it, holes included.
    pub size: u64,
    /// How many times larger than its compressed form it may be. Counts from 64 MiB on.
    pub ratio: u64,
    /// Number of its entries.
    pub entries: u64,
}

impl Default for Limits {
    /// 64 GiB, ten million entries; a ratio of 1000, which is what gzip makes of nothing but zeros.
    fn default() -> Self {
        Self { size: 64 << 30, ratio: 1000, entries: 10_000_000 }
    }
}

/// A limit that an archive exceeds.
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
    /// No limit at all, for what is known already.
    pub const NONE: Self = Self { size: u64::MAX, ratio: u64::MAX, entries: u64::MAX };
    /// Below this many bytes no ratio is too high: a small archive of zeros is harmless.
    const FLOOR: u64 = 64 << 20;

    /// Whether `given` bytes may have come out of `taken`.
    ///
    /// # Errors
    /// The limit that they exceed.
    pub fn hold_stream(&self, given: u64, taken: u64) -> Result<(), Exceeded> {
        if given > self.size {
            return Err(Exceeded::Size(self.size));
        }
        match given > Self::FLOOR && given / self.ratio.max(1) > taken {
            true => Err(Exceeded::Ratio(self.ratio)),
            false => Ok(()),
        }
    }

    /// Whether there may be this many entries, with files of `size` bytes in all. (Holes count: who reads a file reads them
    /// all.)
    ///
    /// # Errors
    /// The limit that they exceed.
    pub fn hold_entries(&self, entries: u64, size: u64) -> Result<(), Exceeded> {
        match () {
            () if entries > self.entries => Err(Exceeded::Entries(self.entries)),
            () if size > self.size => Err(Exceeded::Size(self.size)),
            () => Ok(()),
        }
    }
}

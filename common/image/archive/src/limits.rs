//! Limits on the size of archives. Everything that unpacks archives uses the same ones.

/// The maximum size of an archive and its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The maximum size in bytes of the decompressed archive, and of all files in it, holes included.
    pub size: u64,
    /// The maximum ratio of decompressed to compressed size. It applies above [`Limits::FREE`], or above 64 MiB if it
    /// is stricter than the default.
    pub ratio: u64,
    /// The maximum number of entries.
    pub entries: u64,
}

impl Default for Limits {
    /// 64 GiB, ten million entries, and a ratio of 1000, which gzip reaches only for zeros.
    fn default() -> Self {
        Self { size: 64 << 30, ratio: Self::RATIO, entries: 10_000_000 }
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
    /// The default ratio.
    pub const RATIO: u64 = 1000;
    /// The default ratio is not checked up to this decompressed size in bytes. Honest images have files of zeros:
    /// `useradd` with a large id makes a `/var/log/lastlog` of hundreds of MiB. An attacker gains little, because an
    /// ordinary image may have as much.
    pub const FREE: u64 = 4 << 30;
    /// The same for a stricter ratio, which somebody has asked for.
    const FLOOR: u64 = 64 << 20;

    /// Checks that `given` bytes may be decompressed from `taken` bytes.
    ///
    /// # Errors
    /// The exceeded limit.
    pub fn hold_stream(&self, given: u64, taken: u64) -> Result<(), Exceeded> {
        if given > self.size {
            return Err(Exceeded::Size(self.size));
        }
        let free = if self.ratio < Self::RATIO { Self::FLOOR } else { Self::FREE };
        match given > free && given / self.ratio.max(1) > taken {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_counts_for_what_is_large() {
        let (default, strict) = (Limits::default(), Limits { ratio: 999, ..Limits::default() });
        for (limits, given, taken, held) in [
            (default, 361 << 20, 36 << 10, true),
            (default, 4 << 30, 1, true),
            (default, (4 << 30) + 1, 4 << 20, false),
            (default, 5 << 30, 6 << 20, true),
            (strict, 64 << 20, 1, true),
            (strict, (64 << 20) + 1, 64 << 10, false),
        ] {
            assert_eq!(limits.hold_stream(given, taken).is_ok(), held, "{given} {taken}");
        }
    }
}

//! How streams are compressed, told from their first bytes: media types and file names are known to lie about it.

use std::io::{self, BufRead, BufReader, Read};

/// How a stream is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip (RFC 1952).
    Gzip,
    /// Zstandard (RFC 8878).
    Zstd,
    /// xz; archives come in it, the image-spec's layers do not.
    Xz,
    /// bzip2; archives come in it, the image-spec's layers do not.
    Bzip2,
}

impl Compression {
    /// How many of a stream's first bytes [`Compression::detect`] looks at.
    pub const LOOK: usize = 6;

    /// By the first bytes of the stream, of which [`Compression::LOOK`] are enough.
    pub fn detect(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            // A frame, or one that is to be skipped (RFC 8878, 3.1).
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', 0x00, ..] => Self::Xz,
            // A block, or the end of an empty stream.
            [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, ..]
            | [b'B', b'Z', b'h', b'1'..=b'9', 0x17, 0x72, ..] => Self::Bzip2,
            _ => Self::None,
        }
    }
}

/// The first bytes of a stream, at most `length`, and the stream with them still to come.
///
/// # Errors
/// When it cannot be read.
pub fn peek<R: Read>(mut source: R, length: usize) -> io::Result<(Vec<u8>, impl BufRead)> {
    const BUFFER: usize = 128 << 10;
    let mut start = Vec::with_capacity(length);
    source.by_ref().take(length as u64).read_to_end(&mut start)?;
    let whole = io::Cursor::new(start.clone()).chain(BufReader::with_capacity(BUFFER, source));
    Ok((start, whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_looked_at_is_still_to_come() {
        let (start, mut whole) = peek(&b"one, two"[..], 6).unwrap();
        assert_eq!(start, b"one, t");
        let mut read = String::new();
        whole.read_to_string(&mut read).unwrap();
        assert_eq!(read, "one, two");
    }
}

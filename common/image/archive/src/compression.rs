//! Detects the compression of a stream from its first bytes. Media types and file names are not reliable.

use std::io::{self, BufRead, BufReader, Read};

/// The compression of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not compressed.
    None,
    /// gzip (RFC 1952).
    Gzip,
    /// Zstandard (RFC 8878).
    Zstd,
    /// xz. Archives may use it, but the image-spec's layers may not.
    Xz,
    /// bzip2. Archives may use it, but the image-spec's layers may not.
    Bzip2,
}

impl Compression {
    /// How many of a stream's first bytes [`Compression::detect`] needs.
    pub const LOOK: usize = 6;

    /// Detects the compression from the first bytes of a stream. [`Compression::LOOK`] bytes are enough.
    pub fn detect(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            // A frame, or a skippable frame (RFC 8878, 3.1).
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', 0x00, ..] => Self::Xz,
            // A block, or the end of an empty stream.
            [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, ..]
            | [b'B', b'Z', b'h', b'1'..=b'9', 0x17, 0x72, ..] => Self::Bzip2,
            _ => Self::None,
        }
    }
}

/// The first bytes of a stream, at most `length`, and a reader of the whole stream including these bytes.
///
/// # Errors
/// When the stream cannot be read.
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

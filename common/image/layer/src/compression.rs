//! How a layer's blob is compressed, told by its content and never by its media type.

use std::io::{self, Read};

use crate::{chunk::Chunk, gzip::Gzip, input::Input};

/// How a blob is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Plain tar.
    None,
    /// gzip, of a level from 1 (fast) to 12 (small).
    Gzip {
        /// The level.
        level: u32,
    },
    /// zstd, of a level from 1 to 19.
    Zstd {
        /// The level.
        level: i32,
    },
}

impl Compression {
    /// gzip at the level that pays in a build: libdeflate's first is smaller than zlib's second and twice as fast.
    pub const GZIP: Self = Self::Gzip { level: 1 };
    /// zstd at its own default.
    pub const ZSTD: Self = Self::Zstd { level: 3 };

    /// The OCI media type of a layer that is compressed so (image-spec, layer.md).
    pub fn media_type(self) -> &'static str {
        match self {
            Self::None => "application/vnd.oci.image.layer.v1.tar",
            Self::Gzip { .. } => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Zstd { .. } => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }
}

/// A word that names no compression.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is none of none, gzip[:1-12] and zstd[:1-19]")]
pub struct InvalidCompression(String);

impl std::str::FromStr for Compression {
    type Err = InvalidCompression;

    fn from_str(text: &str) -> Result<Self, InvalidCompression> {
        let (name, level) = text.split_once(':').map_or((text, None), |(name, level)| (name, Some(level)));
        let level = level.map(str::parse::<u32>).transpose();
        match (name, level) {
            ("none", Ok(None)) => Ok(Self::None),
            ("gzip", Ok(None)) => Ok(Self::GZIP),
            ("gzip", Ok(Some(level @ 1..=12))) => Ok(Self::Gzip { level }),
            ("zstd", Ok(None)) => Ok(Self::ZSTD),
            ("zstd", Ok(Some(level @ 1..=19))) => Ok(Self::Zstd { level: level as i32 }),
            _ => Err(InvalidCompression(text.to_owned())),
        }
    }
}

impl Default for Compression {
    fn default() -> Self {
        Self::GZIP
    }
}

/// A larger window is refused, as a power of two: it is memory that the blob's author decides on. zstd's levels up to 19
/// stay at 8 MiB; `--long` and `--ultra` go beyond.
const WINDOW_LOG: u32 = 25;

/// Decompresses `blob`.
///
/// # Errors
/// What reading its first bytes gives.
pub(crate) fn decoder<R: Read>(blob: R) -> io::Result<Decoder<R>> {
    let mut input = Input::new(blob);
    while input.at_hand().len() < 4 && input.more()? {}
    Ok(match input.at_hand() {
        [0x1f, 0x8b, ..] => Decoder::Gzip(Box::new(Gzip::new(input)?)),
        // A frame, or one that is to be skipped (RFC 8878, 3.1).
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?;
            decoder.window_log_max(WINDOW_LOG)?;
            Decoder::Zstd(Box::new(decoder))
        }
        _ => Decoder::Plain(input),
    })
}

/// A blob that is being decompressed.
pub(crate) enum Decoder<R: Read> {
    Plain(Input<R>),
    Gzip(Box<Gzip<R>>),
    Zstd(Box<zstd::stream::read::Decoder<'static, Input<R>>>),
}

impl<R: Read> Decoder<R> {
    /// What it reads from.
    pub(crate) fn get_ref(&self) -> &R {
        match self {
            Self::Plain(input) => input.get_ref(),
            Self::Gzip(gzip) => gzip.get_ref(),
            Self::Zstd(decoder) => decoder.get_ref().get_ref(),
        }
    }

    /// Fills an empty chunk with what comes next, as far as it pays. It stays empty only where nothing more comes.
    ///
    /// # Errors
    /// What reading gives, and what is wrong with the blob.
    pub(crate) fn fill(&mut self, chunk: &mut Chunk) -> io::Result<()> {
        match self {
            Self::Plain(input) => fill_from(input, chunk),
            Self::Gzip(gzip) => gzip.fill(chunk),
            Self::Zstd(decoder) => fill_from(decoder, chunk),
        }
    }
}

fn fill_from(reader: &mut impl Read, chunk: &mut Chunk) -> io::Result<()> {
    while !chunk.room().is_empty() {
        match reader.read(chunk.room()) {
            Ok(0) => break,
            Ok(count) => chunk.add(count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// All that comes out of a blob.
#[cfg(test)]
pub(crate) fn decompressed(blob: impl Read) -> io::Result<Vec<u8>> {
    let (mut decoder, mut chunk, mut all) = (decoder(blob)?, Chunk::default(), Vec::new());
    loop {
        chunk.clear();
        decoder.fill(&mut chunk)?;
        if chunk.is_empty() {
            return Ok(all);
        }
        all.extend_from_slice(chunk.bytes());
    }
}

//! How streams are compressed, told from their first bytes: media types and file names are known to lie about it.

use std::{
    cell::Cell,
    io::{self, BufRead, BufReader, Read},
    rc::Rc,
};

use oci_spec::image::MediaType;

/// What a decoder may take of memory for its window, as a power of two in bytes: `zstd --long` takes 27.
const MAX_WINDOW_LOG: u32 = 27;
/// The same for xz, in KiB: `xz -9` takes 65 MiB.
const MAX_XZ_KIB: u32 = 256 << 10;
const BUFFER: usize = 128 << 10;

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
    /// By the first bytes of the stream; six are enough.
    pub fn detect(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, 0x08, ..] => Self::Gzip,
            // A frame, or one that is to be skipped (RFC 8878, 3.1).
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', 0x00, ..] => Self::Xz,
            [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, ..] => Self::Bzip2,
            _ => Self::None,
        }
    }

    /// The media type of a layer that is stored like this; none where the image-spec has none.
    pub fn layer_media_type(self) -> Option<MediaType> {
        match self {
            Self::None => Some(MediaType::ImageLayer),
            Self::Gzip => Some(MediaType::ImageLayerGzip),
            Self::Zstd => Some(MediaType::ImageLayerZstd),
            Self::Xz | Self::Bzip2 => None,
        }
    }

    /// A reader of what is compressed in `source`. Several gzip members, zstd frames or xz streams one after the other
    /// are one content.
    ///
    /// # Errors
    /// When no memory can be had.
    pub fn decoder<'a, R: Read + 'a>(self, source: R) -> io::Result<Box<dyn Read + 'a>> {
        let source = BufReader::with_capacity(BUFFER, source);
        Ok(match self {
            Self::None => Box::new(source),
            Self::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(source)),
            Self::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(source)?;
                decoder.window_log_max(MAX_WINDOW_LOG)?;
                Box::new(decoder)
            }
            Self::Xz => Box::new(lzma_rust2::XzReader::new_mem_limit(source, true, MAX_XZ_KIB)),
            Self::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(source)),
        })
    }
}

/// How much may come out of a compressed stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// In bytes.
    pub size: u64,
    /// In times what went in, once 64 MiB came out.
    pub ratio: u64,
}

impl Default for Limits {
    /// 64 GiB; a ratio of 1000, which is what gzip makes of nothing but zeros.
    fn default() -> Self {
        Self { size: 64 << 30, ratio: 1000 }
    }
}

impl Limits {
    /// Below this many bytes no ratio is too high.
    const FLOOR: u64 = 64 << 20;

    /// A reader as [`Compression::decoder`], which fails when more comes out.
    ///
    /// # Errors
    /// When no memory can be had.
    pub fn decoder<'a, R: Read + 'a>(
        self,
        compression: Compression,
        source: R,
    ) -> io::Result<impl Read + use<'a, R>> {
        let count = Rc::new(Cell::new(0));
        let source = Counted { source, count: Rc::clone(&count) };
        Ok(Bounded { decoder: compression.decoder(source)?, read: count, given: 0, limits: self })
    }
}

struct Counted<R> {
    source: R,
    count: Rc<Cell<u64>>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.count.set(self.count.get() + count as u64);
        Ok(count)
    }
}

struct Bounded<'a> {
    decoder: Box<dyn Read + 'a>,
    read: Rc<Cell<u64>>,
    given: u64,
    limits: Limits,
}

impl Read for Bounded<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.decoder.read(buffer)?;
        self.given += count as u64;
        let Limits { size, ratio } = self.limits;
        let problem = if self.given > size {
            format!("unpacked size exceeds {size} bytes")
        } else if self.given > Limits::FLOOR && self.given / ratio.max(1) > self.read.get() {
            format!("unpacked size exceeds {ratio} times the compressed size")
        } else {
            return Ok(count);
        };
        Err(io::Error::new(io::ErrorKind::InvalidData, problem))
    }
}

/// The first bytes of a stream, at most `length`, and the stream with them still to come.
///
/// # Errors
/// When it cannot be read.
pub fn peek<R: Read>(mut source: R, length: usize) -> io::Result<(Vec<u8>, impl BufRead)> {
    let mut start = Vec::with_capacity(length);
    source.by_ref().take(length as u64).read_to_end(&mut start)?;
    let whole = io::Cursor::new(start.clone()).chain(BufReader::with_capacity(BUFFER, source));
    Ok((start, whole))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn by_content_and_over_several_members() {
        let mut gzip = Vec::new();
        for part in [&b"one, "[..], b"two"] {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(part).unwrap();
            gzip.extend(encoder.finish().unwrap());
        }
        let mut zstd = zstd::encode_all(&b"one, "[..], 1).unwrap();
        zstd.extend([0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, b'x']);
        zstd.extend(zstd::encode_all(&b"two"[..], 1).unwrap());
        let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        bzip2.write_all(b"one, two").unwrap();
        let plain = b"one, two".to_vec();
        for (compression, content) in [
            (Compression::Gzip, gzip),
            (Compression::Zstd, zstd),
            (Compression::Bzip2, bzip2.finish().unwrap()),
            (Compression::None, plain),
        ] {
            assert_eq!(Compression::detect(&content), compression);
            let (start, whole) = peek(&content[..], 6).unwrap();
            assert_eq!(start, content[..6]);
            let mut read = String::new();
            compression.decoder(whole).unwrap().read_to_string(&mut read).unwrap();
            assert_eq!(read, "one, two");
            if compression != Compression::None {
                let cut = &content[..content.len() - 3];
                assert!(io::copy(&mut compression.decoder(cut).unwrap(), &mut io::sink()).is_err());
            }
        }
    }
}

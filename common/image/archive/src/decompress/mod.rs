//! Decompresses streams. This is the one place where decompressors are created and limits are enforced.
//!
//! [`Decoder`] fills [`Chunk`]s, for a pipeline that passes them on without copying. [`Decompressed`] is a
//! reader.

mod chunk;
mod gzip;
mod input;

use std::io::{self, BufRead, Read};

pub use chunk::{Chunk, SIZE as CHUNK};

use crate::{Compression, Exceeded, Limits};
use gzip::Gzip;
use input::Input;

/// The maximum window of zstd, as a power of two in bytes. The stream's author decides how much memory the
/// window takes. zstd's levels up to 19 use at most 8 MiB. `zstd --long` uses 128 MiB, the most that zstd
/// decompresses by default.
const ZSTD_WINDOW_LOG: u32 = 27;
/// The maximum memory for xz, in KiB. `xz -9` needs 65 MiB.
const XZ_KIB: u32 = 256 << 10;

/// Why a stream could not be read to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The stream could not be read.
    #[error("read blob: {0}")]
    Read(#[source] io::Error),
    /// No thread could be started.
    #[error("start a thread: {0}")]
    Thread(#[source] io::Error),
    /// The stream could not be decompressed.
    #[error("decompress blob: {0}")]
    Decompress(#[source] io::Error),
    /// The content exceeds a limit.
    #[error(transparent)]
    Exceeded(#[from] Exceeded),
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Read(error) | Error::Thread(error) | Error::Decompress(error) => error,
            Error::Exceeded(exceeded) => Self::new(io::ErrorKind::InvalidData, exceeded),
        }
    }
}

/// Decompresses a stream, chunk by chunk.
pub struct Decoder<R: Read> {
    form: Form<Counted<R>>,
    limits: Limits,
    given: u64,
}

enum Form<R: Read> {
    Plain(Input<R>),
    Gzip(Box<Gzip<R>>),
    Zstd(Box<zstd::stream::read::Decoder<'static, Input<R>>>),
    Xz(Box<lzma_rust2::XzReader<Input<R>>>),
    Bzip2(Box<bzip2::bufread::MultiBzDecoder<Input<R>>>),
}

impl<R: Read> Decoder<R> {
    /// Detects the compression of `source` and decompresses it. Concatenated gzip members, zstd frames, or
    /// streams of another kind are one content.
    ///
    /// # Errors
    /// When the first bytes cannot be read.
    pub fn new(source: R, limits: Limits) -> Result<Self, Error> {
        let mut input = Input::new(Counted { source, size: 0, error: None });
        while input.at_hand().len() < Compression::LOOK {
            match input.more() {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => return Err(Error::Read(input.get_mut().error.take().unwrap_or(error))),
            }
        }
        let form = match Compression::detect(input.at_hand()) {
            Compression::None => Form::Plain(input),
            Compression::Gzip => Form::Gzip(Box::new(Gzip::new(input).map_err(Error::Decompress)?)),
            Compression::Zstd => {
                let mut decoder =
                    zstd::stream::read::Decoder::with_buffer(input).map_err(Error::Decompress)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(Error::Decompress)?;
                Form::Zstd(Box::new(decoder))
            }
            Compression::Xz => Form::Xz(Box::new(lzma_rust2::XzReader::new_mem_limit(input, true, XZ_KIB))),
            Compression::Bzip2 => Form::Bzip2(Box::new(bzip2::bufread::MultiBzDecoder::new(input))),
        };
        Ok(Self { form, limits, given: 0 })
    }

    /// The number of compressed bytes read so far.
    pub fn taken(&self) -> u64 {
        self.source().size
    }

    /// Fills an empty chunk with the next data, as far as is efficient. The chunk stays empty only at the end
    /// of the stream. Data before an error is in the chunk.
    ///
    /// # Errors
    /// When the stream cannot be read or is not valid.
    pub fn fill(&mut self, chunk: &mut Chunk) -> Result<(), Error> {
        let outcome = match &mut self.form {
            Form::Plain(input) => fill_from(input, chunk),
            Form::Gzip(gzip) => gzip.fill(chunk),
            Form::Zstd(decoder) => fill_from(decoder, chunk),
            Form::Xz(decoder) => fill_from(decoder, chunk),
            Form::Bzip2(decoder) => fill_from(decoder, chunk),
        };
        self.given += chunk.bytes().len() as u64;
        if let Err(error) = outcome {
            let read = self.source_mut().error.take();
            return Err(read.map_or(Error::Decompress(error), Error::Read));
        }
        Ok(self.limits.hold_stream(self.given, self.taken())?)
    }

    fn source(&self) -> &Counted<R> {
        match &self.form {
            Form::Plain(input) => input.get_ref(),
            Form::Gzip(gzip) => gzip.get_ref(),
            Form::Zstd(decoder) => decoder.get_ref().get_ref(),
            Form::Xz(decoder) => decoder.inner().get_ref(),
            Form::Bzip2(decoder) => decoder.get_ref().get_ref(),
        }
    }

    fn source_mut(&mut self) -> &mut Counted<R> {
        match &mut self.form {
            Form::Plain(input) => input.get_mut(),
            Form::Gzip(gzip) => gzip.get_mut(),
            Form::Zstd(decoder) => decoder.get_mut().get_mut(),
            Form::Xz(decoder) => decoder.inner_mut().get_mut(),
            Form::Bzip2(decoder) => decoder.get_mut().get_mut(),
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

/// Counts the bytes read from the stream. Keeps the stream's own error, to tell it apart from the
/// decompressor's.
struct Counted<R> {
    source: R,
    size: u64,
    error: Option<io::Error>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.source.read(buffer) {
            Ok(count) => {
                self.size += count as u64;
                Ok(count)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                let kind = error.kind();
                self.error = Some(error);
                Err(kind.into())
            }
        }
    }
}

/// A reader of the content of a stream.
pub struct Decompressed<R: Read> {
    decoder: Decoder<R>,
    chunk: Chunk,
    position: usize,
    /// The error to return after the bytes of the chunk.
    error: Option<Error>,
}

impl<R: Read> Decompressed<R> {
    /// Detects the compression of `source` and reads its content. Reading fails if more comes out than
    /// `limits` allow.
    ///
    /// # Errors
    /// When the first bytes cannot be read.
    pub fn new(source: R, limits: Limits) -> io::Result<Self> {
        let decoder = Decoder::new(source, limits)?;
        Ok(Self { decoder, chunk: Chunk::default(), position: 0, error: None })
    }

    /// As [`Decompressed::new`], but takes other bytes behind the last gzip member as padding, as gzip(1) does. Files
    /// that come from tapes and block devices have them.
    ///
    /// # Errors
    /// When the first bytes cannot be read.
    pub fn padded(source: R, limits: Limits) -> io::Result<Self> {
        let mut content = Self::new(source, limits)?;
        if let Form::Gzip(gzip) = &mut content.decoder.form {
            gzip.allow_padding();
        }
        Ok(content)
    }
}

impl<R: Read> BufRead for Decompressed<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.position == self.chunk.bytes().len() {
            if let Some(error) = self.error.take() {
                return Err(error.into());
            }
            self.chunk.clear();
            self.position = 0;
            match self.decoder.fill(&mut self.chunk) {
                Ok(()) => {}
                // Data beyond a limit is never returned.
                Err(error @ Error::Exceeded(_)) => {
                    self.chunk.clear();
                    return Err(error.into());
                }
                Err(error) if self.chunk.is_empty() => return Err(error.into()),
                Err(error) => self.error = Some(error),
            }
        }
        Ok(&self.chunk.bytes()[self.position..])
    }

    fn consume(&mut self, count: usize) {
        self.position += count;
    }
}

impl<R: Read> Read for Decompressed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        read_buffered(self, buffer)
    }
}

/// Implements [`Read::read`] for a reader that implements [`BufRead::fill_buf`].
///
/// # Errors
/// When the buffer cannot be filled.
pub fn read_buffered(reader: &mut impl BufRead, buffer: &mut [u8]) -> io::Result<usize> {
    let available = reader.fill_buf()?;
    let count = available.len().min(buffer.len());
    buffer[..count].copy_from_slice(&available[..count]);
    reader.consume(count);
    Ok(count)
}

/// The whole content of a stream.
#[cfg(test)]
fn decompressed(stream: impl Read) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    Decompressed::new(stream, Limits::NONE)?.read_to_end(&mut all)?;
    Ok(all)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// The same content in every compression, in several members where possible.
    fn forms() -> Vec<(Compression, Vec<u8>)> {
        let mut gzip = Vec::new();
        for part in [&b"one, "[..], b"two"] {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(part).unwrap();
            gzip.extend(encoder.finish().unwrap());
        }
        let mut zstd = zstd::encode_all(&b"one, "[..], 1).unwrap();
        zstd.extend([0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, b'x']);
        zstd.extend(zstd::encode_all(&b"two"[..], 1).unwrap());
        let mut bzip2 = Vec::new();
        for part in [&b"one, "[..], b"two"] {
            let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
            encoder.write_all(part).unwrap();
            bzip2.extend(encoder.finish().unwrap());
        }
        // As xz writes it.
        let xz = b"\xfd7zXZ\0\0\x04\xe6\xd6\xb4F\x02\0!\x01\x16\0\0\0t/\xe5\xa3\x01\0\x04one, \0\0\0\0\xc4\xfc\xd4\xd1\x16C\xb3/\
            \0\x01\x1d\x05\xb8-\x80\xaf\x1f\xb6\xf3}\x01\0\0\0\0\x04YZ\
            \xfd7zXZ\0\0\x04\xe6\xd6\xb4F\x02\0!\x01\x16\0\0\0t/\xe5\xa3\x01\0\x02two\0\0\x5d\xd3y)u(R\x03\
            \0\x01\x1b\x03\x0b/\xb9\x10\x1f\xb6\xf3}\x01\0\0\0\0\x04YZ";
        vec![
            (Compression::Gzip, gzip),
            (Compression::Zstd, zstd),
            (Compression::Bzip2, bzip2),
            (Compression::Xz, xz.to_vec()),
            (Compression::None, b"one, two".to_vec()),
        ]
    }

    #[test]
    fn by_content_and_over_several_members() {
        for (compression, content) in forms() {
            assert_eq!(Compression::detect(&content), compression);
            assert_eq!(decompressed(&content[..]).unwrap(), b"one, two");
            if compression != Compression::None {
                assert!(decompressed(&content[..content.len() - 3]).is_err(), "{compression:?}");
            }
        }
    }

    #[test]
    fn bytes_behind_gzip_may_be_padding() {
        let (_, gzip) = forms().swap_remove(0);
        for padding in [&[0; 1000][..], b"\0", b"tail"] {
            let stream = [&gzip[..], padding].concat();
            let read = |content: io::Result<Decompressed<&[u8]>>| io::read_to_string(content.unwrap());
            assert_eq!(read(Decompressed::padded(&stream, Limits::NONE)).unwrap(), "one, two");
            let error = read(Decompressed::new(&stream, Limits::NONE)).unwrap_err();
            assert_eq!(error.to_string(), "data after the end of gzip");
            // What belongs to a member is still checked.
            let damaged = [&gzip[..gzip.len() - 8], &[1; 8], padding].concat();
            assert!(read(Decompressed::padded(&damaged, Limits::NONE)).is_err());
        }
    }

    #[test]
    fn what_came_before_damage_is_read() {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
        encoder.write_all(&[7; 300_000]).unwrap();
        let stream = encoder.finish().unwrap();
        let mut reader = Decompressed::new(&stream[..200_000], Limits::NONE).unwrap();
        let mut read = Vec::new();
        assert!(reader.read_to_end(&mut read).is_err());
        assert!(read.len() > 100_000, "{}", read.len());
    }

    #[test]
    fn the_reader_s_own_error_is_told_from_the_decompressor_s() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("the disk is gone"))
            }
        }
        let stream = zstd::encode_all(&[7; 1000][..], 1).unwrap();
        let mut decoder = Decoder::new(stream[..10].chain(Broken), Limits::NONE).unwrap();
        let mut chunk = Chunk::default();
        chunk.clear();
        let error = decoder.fill(&mut chunk).unwrap_err();
        assert_eq!(error.to_string(), "read blob: the disk is gone");
    }

    #[test]
    fn bombs_are_stopped() {
        let bomb = zstd::encode_all(io::repeat(0).take(200 << 20), 1).unwrap();
        let read = |limits| io::copy(&mut Decompressed::new(&bomb[..], limits).unwrap(), &mut io::sink());
        let error = read(Limits { ratio: 999, ..Limits::default() }).unwrap_err();
        assert_eq!(error.to_string(), "unpacked size exceeds 999 times the compressed size");
        assert_eq!(read(Limits::default()).unwrap(), 200 << 20);
        let error = read(Limits { size: 1 << 20, ..Limits::default() }).unwrap_err();
        assert_eq!(error.to_string(), "unpacked size exceeds 1048576 bytes");
        assert_eq!(read(Limits::NONE).unwrap(), 200 << 20);
    }
}

//! Decompression of gzip (RFC 1952), with its checksum by the processor's carry-less multiplication: flate2's own reader
//! spends a tenth of its time on that.

use std::io::{self, BufRead, Read};

use crc32fast::Hasher;
use flate2::{Decompress, FlushDecompress, Status};

/// One gzip member after the other (RFC 1952, 2.2), and nothing behind them.
pub(crate) struct Gzip<R> {
    blob: R,
    inflate: Decompress,
    checksum: Hasher,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Header,
    Data,
    Done,
}

/// Bits of a header's flags (RFC 1952, 2.3.1).
const HEADER_CHECKSUM: u8 = 1 << 1;
const EXTRA: u8 = 1 << 2;
const NAME: u8 = 1 << 3;
const COMMENT: u8 = 1 << 4;
const RESERVED: u8 = 0b1110_0000;

fn invalid(text: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

impl<R: BufRead> Gzip<R> {
    pub(crate) fn new(blob: R) -> Self {
        Self { blob, inflate: Decompress::new(false), checksum: Hasher::new(), stage: Stage::Header }
    }

    pub(crate) fn get_ref(&self) -> &R {
        &self.blob
    }

    fn header(&mut self) -> io::Result<()> {
        let mut header = Header { blob: &mut self.blob, checksum: Hasher::new() };
        let [first, second, method, flags, ..] = header.bytes::<10>()?;
        if [first, second, method] != [0x1f, 0x8b, 8] || flags & RESERVED != 0 {
            return Err(invalid("invalid gzip header"));
        }
        if flags & EXTRA != 0 {
            for _ in 0..u16::from_le_bytes(header.bytes()?) {
                header.bytes::<1>()?;
            }
        }
        for text in [NAME, COMMENT] {
            while flags & text != 0 && header.bytes::<1>()? != [0] {}
        }
        let checksum = header.checksum.clone().finalize().to_le_bytes();
        if flags & HEADER_CHECKSUM != 0 && header.bytes::<2>()? != checksum[..2] {
            return Err(invalid("corrupt gzip header does not have a matching checksum"));
        }
        self.inflate.reset(false);
        self.checksum.reset();
        Ok(())
    }

    fn trailer(&mut self) -> io::Result<()> {
        let mut trailer = [0; 8];
        self.blob.read_exact(&mut trailer).map_err(named)?;
        let (checksum, size) = (self.checksum.clone().finalize(), self.inflate.total_out() as u32);
        if trailer[..4] != checksum.to_le_bytes() || trailer[4..] != size.to_le_bytes() {
            return Err(invalid("corrupt gzip stream does not have a matching checksum"));
        }
        self.stage = match self.blob.fill_buf()? {
            [] => Stage::Done,
            [0x1f, ..] => Stage::Header,
            _ => return Err(invalid("data after the end of gzip")),
        };
        Ok(())
    }

    /// Some of the current member's data; none at its end.
    fn data(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let input = self.blob.fill_buf()?;
            let at_end = input.is_empty();
            let flush = if at_end { FlushDecompress::Finish } else { FlushDecompress::None };
            let (taken, given) = (self.inflate.total_in(), self.inflate.total_out());
            let status = self.inflate.decompress(input, buffer, flush);
            let status = status.map_err(|_| invalid("corrupt deflate stream"))?;
            self.blob.consume((self.inflate.total_in() - taken) as usize);
            let count = (self.inflate.total_out() - given) as usize;
            self.checksum.update(&buffer[..count]);
            if status == Status::StreamEnd {
                self.trailer()?;
                return Ok(count);
            }
            if count > 0 {
                return Ok(count);
            }
            if at_end {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "incomplete deflate stream"));
            }
        }
    }
}

impl<R: BufRead> Read for Gzip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.stage != Stage::Done && !buffer.is_empty() {
            if self.stage == Stage::Header {
                self.header()?;
                self.stage = Stage::Data;
            }
            match self.data(buffer)? {
                // An empty member.
                0 => {}
                count => return Ok(count),
            }
        }
        Ok(0)
    }
}

/// A header while it is read.
struct Header<'a, R> {
    blob: &'a mut R,
    checksum: Hasher,
}

impl<R: BufRead> Header<'_, R> {
    fn bytes<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.blob.read_exact(&mut bytes).map_err(named)?;
        self.checksum.update(&bytes);
        Ok(bytes)
    }
}

/// The end of the blob where it may not be, in our words.
fn named(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => io::Error::new(error.kind(), "unexpected end of file"),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn all(blob: &[u8]) -> Result<Vec<u8>, String> {
        let mut out = Vec::new();
        // Three bytes at a time, so that every boundary is met.
        let reader = io::BufReader::with_capacity(3, blob);
        Gzip::new(reader).read_to_end(&mut out).map(|_| out).map_err(|error| error.to_string())
    }

    #[test]
    fn headers_with_everything() {
        let builder = flate2::GzBuilder::new().extra(vec![7; 300]).filename("name").comment("words").mtime(1);
        let mut encoder = builder.write(Vec::new(), flate2::Compression::best());
        encoder.write_all(b"content").unwrap();
        let plain = encoder.finish().unwrap();
        assert_eq!(all(&plain).unwrap(), b"content");
        assert_eq!(all(&[&plain[..], &plain].concat()).unwrap(), b"contentcontent");

        // With a checksum of the header, which flate2 does not write.
        let end = 10 + 2 + 300 + 5 + 6;
        let mut checked = plain.clone();
        checked[3] |= HEADER_CHECKSUM;
        let checksum = crc32fast::hash(&checked[..end]).to_le_bytes();
        checked.splice(end..end, checksum[..2].to_vec());
        assert_eq!(all(&checked).unwrap(), b"content");
        checked[20] ^= 1;
        assert_eq!(all(&checked).unwrap_err(), "corrupt gzip header does not have a matching checksum");

        for length in 1..plain.len() {
            assert!(all(&plain[..length]).is_err(), "{length} of {} bytes", plain.len());
        }
        let mut reserved = plain.clone();
        reserved[3] |= 0x20;
        assert_eq!(all(&reserved).unwrap_err(), "invalid gzip header");
        let mut size = plain;
        *size.last_mut().unwrap() = 1;
        assert_eq!(all(&size).unwrap_err(), "corrupt gzip stream does not have a matching checksum");
    }
}

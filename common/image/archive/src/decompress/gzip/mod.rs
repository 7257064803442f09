//! Decompresses gzip (RFC 1952). libdeflate is used for data in segments that it can take at once, and
//! zlib-rs for other data. The members' headers are read here: flate2 would use only zlib-rs, and would spend
//! a tenth of the time on checksums. crc32fast computes them with the processor's carry-less multiplication.

mod segments;

use std::io::{self, BufRead, Read};

use crc32fast::Hasher;
use flate2::{Decompress, FlushDecompress, Status};

use super::{chunk::Chunk, input::Input};
use segments::{Segment, Segments};

/// Decompresses one gzip member after the other (RFC 1952, 2.2). Nothing else may follow them by default.
pub(super) struct Gzip<R> {
    input: Input<R>,
    segments: Segments,
    inflate: Decompress,
    checksum: Hasher,
    /// The size of the current member's data, modulo 2^32.
    size: u32,
    stage: Stage,
    /// Whether other bytes may follow the members. They are not read.
    padded: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Header,
    /// In a member's data, at the possible start of a segment.
    Segments,
    /// In a member's data; the rest is decompressed as a stream.
    Stream,
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

impl<R: Read> Gzip<R> {
    pub(super) fn new(input: Input<R>) -> io::Result<Self> {
        Ok(Self {
            input,
            segments: Segments::new()?,
            inflate: Decompress::new(false),
            checksum: Hasher::new(),
            size: 0,
            stage: Stage::Header,
            padded: false,
        })
    }

    /// Lets other bytes follow the members.
    pub(super) fn allow_padding(&mut self) {
        self.padded = true;
    }

    pub(super) fn get_ref(&self) -> &R {
        self.input.get_ref()
    }

    pub(super) fn get_mut(&mut self) -> &mut R {
        self.input.get_mut()
    }

    /// Adds data to a chunk as far as there is room. The chunk is unchanged only at the end of the blob.
    ///
    /// # Errors
    /// When the blob cannot be read or is not valid.
    pub(super) fn fill(&mut self, chunk: &mut Chunk) -> io::Result<()> {
        while self.stage != Stage::Done && !chunk.room().is_empty() {
            match self.stage {
                Stage::Header => self.header()?,
                Stage::Segments => match self.segments.next(&mut self.input, chunk)? {
                    Segment::Given(count) => self.account(chunk, count),
                    Segment::Ended(count) => {
                        self.account(chunk, count);
                        self.trailer()?;
                    }
                    Segment::NoRoom => return Ok(()),
                    Segment::None => self.stream_on()?,
                },
                Stage::Stream => self.stream(chunk)?,
                Stage::Done => {}
            }
        }
        Ok(())
    }

    fn header(&mut self) -> io::Result<()> {
        let mut header = Header { blob: &mut self.input, checksum: Hasher::new() };
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
        self.checksum.reset();
        self.size = 0;
        self.segments.begin();
        self.stage = Stage::Segments;
        Ok(())
    }

    fn trailer(&mut self) -> io::Result<()> {
        let mut trailer = [0; 8];
        self.input.read_exact(&mut trailer).map_err(named)?;
        let checksum = self.checksum.clone().finalize();
        if trailer[..4] != checksum.to_le_bytes() || trailer[4..] != self.size.to_le_bytes() {
            return Err(invalid("corrupt gzip stream does not have a matching checksum"));
        }
        self.stage = match self.input.fill_buf()? {
            [] => Stage::Done,
            [0x1f, ..] => Stage::Header,
            _ if self.padded => Stage::Done,
            _ => return Err(invalid("data after the end of gzip")),
        };
        Ok(())
    }

    /// Continues with zlib-rs at the end of the last segment.
    fn stream_on(&mut self) -> io::Result<()> {
        self.inflate.reset(false);
        let window = self.segments.window();
        if !window.is_empty() {
            self.inflate.set_dictionary(window).map_err(io::Error::other)?;
        }
        self.stage = Stage::Stream;
        Ok(())
    }

    /// Adds some data of the current member to a chunk.
    fn stream(&mut self, chunk: &mut Chunk) -> io::Result<()> {
        let input = self.input.fill_buf()?;
        let at_end = input.is_empty();
        let flush = if at_end { FlushDecompress::Finish } else { FlushDecompress::None };
        let (taken, given) = (self.inflate.total_in(), self.inflate.total_out());
        let status = self.inflate.decompress(input, chunk.room(), flush);
        let status = status.map_err(|_| invalid("corrupt deflate stream"))?;
        self.input.consume((self.inflate.total_in() - taken) as usize);
        let count = (self.inflate.total_out() - given) as usize;
        chunk.add(count);
        self.account(chunk, count);
        if status == Status::StreamEnd {
            self.trailer()
        } else if at_end && count == 0 {
            Err(io::Error::new(io::ErrorKind::UnexpectedEof, "incomplete deflate stream"))
        } else {
            Ok(())
        }
    }

    /// Updates checksum and size with the last `count` bytes of a chunk.
    fn account(&mut self, chunk: &Chunk, count: usize) {
        let bytes = chunk.bytes();
        self.checksum.update(&bytes[bytes.len() - count..]);
        self.size = self.size.wrapping_add(count as u32);
        self.segments.earn(count);
    }
}

/// A member's header that is being read.
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

/// Rewords the error of an unexpected end.
fn named(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => io::Error::new(error.kind(), "unexpected end of file"),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    fn all(blob: &[u8]) -> Result<Vec<u8>, String> {
        // Three bytes at a time, so that every boundary is tested.
        let few = io::BufReader::with_capacity(3, blob);
        super::super::decompressed(few).map_err(|error| error.to_string())
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

        for length in 2..plain.len() {
            assert!(all(&plain[..length]).is_err(), "{length} of {} bytes", plain.len());
        }
        let mut reserved = plain.clone();
        reserved[3] |= 0x20;
        assert_eq!(all(&reserved).unwrap_err(), "invalid gzip header");
        let mut size = plain;
        *size.last_mut().unwrap() = 1;
        assert_eq!(all(&size).unwrap_err(), "corrupt gzip stream does not have a matching checksum");
    }

    /// Data like that in layers, or like the bytes between segments.
    fn piece() -> impl Strategy<Value = Vec<u8>> {
        let noise = proptest::collection::vec(any::<u8>(), 0..70_000);
        let repeated = (proptest::collection::vec(any::<u8>(), 1..40), 0..60_000_usize)
            .prop_map(|(unit, length)| unit.into_iter().cycle().take(length).collect());
        let flushes = (0..300_usize).prop_map(|count| [0, 0, 0xff, 0xff].repeat(count));
        prop_oneof![2 => noise, 3 => repeated, 1 => flushes]
    }

    /// The members of a blob: for each its pieces, some of them followed by a flush, and its level.
    type Members = Vec<(Vec<(Vec<u8>, bool)>, u32)>;

    fn members() -> impl Strategy<Value = Members> {
        let pieces = proptest::collection::vec((piece(), any::<bool>()), 0..6);
        proptest::collection::vec((pieces, 0..=9_u32), 1..4)
    }

    /// The blob, the ends of its members, and its content.
    fn compress(members: &Members) -> (Vec<u8>, Vec<usize>, Vec<u8>) {
        let (mut blob, mut ends, mut data) = (Vec::new(), Vec::new(), Vec::new());
        for (pieces, level) in members {
            let mut encoder = flate2::write::GzEncoder::new(blob, flate2::Compression::new(*level));
            for (piece, flush) in pieces {
                encoder.write_all(piece).unwrap();
                data.extend_from_slice(piece);
                if *flush {
                    encoder.flush().unwrap();
                }
            }
            blob = encoder.finish().unwrap();
            ends.push(blob.len());
        }
        (blob, ends, data)
    }

    /// Decompresses a blob that is read in pieces of `at_once` bytes.
    fn read_by(blob: &[u8], at_once: usize) -> io::Result<Vec<u8>> {
        super::super::decompressed(io::BufReader::with_capacity(at_once, blob))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        /// Data comes out unchanged, with any flushes, any number of members, and pieces of any size. A blob
        /// that is cut off inside a member is always an error.
        #[test]
        fn what_was_compressed_comes_out(
            members in members(),
            at_once in prop_oneof![Just(1_usize), Just(5), Just(4096), Just(1 << 20)],
            cut in any::<proptest::sample::Index>(),
        ) {
            let (blob, ends, data) = compress(&members);
            prop_assert!(read_by(&blob, at_once).unwrap() == data);
            let cut = 2 + cut.index(blob.len() - 2);
            if !ends.contains(&cut) {
                prop_assert!(read_by(&blob[..cut], at_once).is_err());
            }
        }

        /// A damaged blob gives the same result as with another implementation.
        #[test]
        fn damage_is_seen_as_others_see_it(
            members in members(),
            changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..4),
        ) {
            let (mut blob, ..) = compress(&members);
            for (at, byte) in changes {
                // Keep the first two bytes: they make the blob gzip.
                let at = 2 + at.index(blob.len() - 2);
                blob[at] = byte;
            }
            let mut expected = Vec::new();
            let outcome = flate2::read::MultiGzDecoder::new(&blob[..]).read_to_end(&mut expected);
            match (read_by(&blob, 1 << 20), outcome) {
                (Ok(data), Ok(_)) => prop_assert!(data == expected),
                (Err(_), Err(_)) => {}
                (ours, theirs) => prop_assert!(false, "{:?} beside {theirs:?}", ours.map(|data| data.len())),
            }
        }
    }
}

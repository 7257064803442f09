//! Decompresses deflate in segments. A segment starts and ends on a byte boundary.
//!
//! libdeflate is the fastest decompressor, but it takes a whole deflate stream at once, and a layer is too
//! long for that. Programs that compress on several cores, such as pgzip (podman, buildah, skopeo) and pigz,
//! cut the archive into pieces of at most one mebibyte. Each piece ends with a flush: an empty stored block,
//! which ends on a byte boundary as `00 00 ff ff` (RFC 1951, 3.2.4). The data between two flushes becomes a
//! complete deflate stream with these additions:
//! - In front of it, the data that it refers back to: a stored block with the last 32 KiB of output.
//! - After it, a last block. This block holds a marker. The four bytes of a flush may also occur inside a
//!   block; only if the output ends with the marker did the segment end there.
//!
//! Both are written around the segment in memory.

use std::{
    io::{self, BufRead, Read},
    ptr::NonNull,
};

use libdeflate_sys::{
    libdeflate_alloc_decompressor, libdeflate_decompressor, libdeflate_deflate_decompress_ex,
    libdeflate_free_decompressor, libdeflate_result,
    libdeflate_result_LIBDEFLATE_INSUFFICIENT_SPACE as INSUFFICIENT_SPACE,
    libdeflate_result_LIBDEFLATE_SUCCESS as SUCCESS,
};

use super::super::{
    chunk::{self, Chunk, SPARE, WINDOW},
    input::{self, Input},
};

/// The size of a stored block's header: a byte (not the last block), the length, and the length's complement
/// (RFC 1951, 3.2.4).
const STORED: usize = 5;
/// The last block after a segment: its header and the marker.
const END: [u8; STORED + SPARE] = *b"\x01\x20\x00\xdf\xffthe end of a segment, as it says";
const _: () = assert!(STORED + WINDOW <= input::BEFORE && END.len() <= input::BEHIND);

/// Decompresses segments of a member.
pub(super) struct Segments {
    decompressor: Decompressor,
    /// The last output of the member, at most [`WINDOW`] bytes.
    window: Vec<u8>,
    /// How many bytes may still be decompressed in vain.
    credit: usize,
    /// The output size of the last segment.
    last: usize,
}

/// The initial and maximum credit. It limits how many false ends of a segment are tried.
const CREDIT: usize = 16 * chunk::SIZE;

/// The result of decompressing a segment.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Segment {
    /// This many bytes were decompressed, and the next segment begins.
    Given(usize),
    /// This many bytes were decompressed, and the member's data ended.
    Ended(usize),
    /// The chunk has no room for the segment after its other data. Nothing was decompressed.
    NoRoom,
    /// There is no segment here, or it is not worthwhile. Nothing was decompressed.
    None,
}

impl Segments {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { decompressor: Decompressor::new()?, window: Vec::new(), credit: CREDIT, last: 0 })
    }

    /// Begins a member.
    pub(super) fn begin(&mut self) {
        self.window.clear();
    }

    /// Adds to the credit as many bytes as were decompressed. A blob made to fail then takes at most twice
    /// the time.
    pub(super) fn earn(&mut self, count: usize) {
        self.credit = (self.credit + count).min(CREDIT);
    }

    /// The last output of the member.
    pub(super) fn window(&self) -> &[u8] {
        &self.window
    }

    /// Decompresses the segment at the start of `input` and consumes it. This is tried only if the whole
    /// segment fits into memory.
    ///
    /// # Errors
    /// When the blob cannot be read.
    pub(super) fn next<R: Read>(&mut self, input: &mut Input<R>, chunk: &mut Chunk) -> io::Result<Segment> {
        if chunk.room().len() < self.last && !chunk.is_empty() {
            return Ok(Segment::NoRoom);
        }
        let mut from = 0;
        while self.credit >= chunk::SIZE {
            let end = input.find_flush(from)?;
            match self.decompress(input, end, chunk) {
                Try::Done { given, taken, ended } => {
                    self.credit -= 2 * self.window.len();
                    self.last = given;
                    self.keep(chunk, given);
                    chunk.add(given);
                    input.consume(taken);
                    return Ok(if ended { Segment::Ended(given) } else { Segment::Given(given) });
                }
                Try::NoRoom if !chunk.is_empty() => return Ok(Segment::NoRoom),
                Try::NoRoom => {
                    self.credit -= chunk::SIZE;
                    break;
                }
                Try::Failed => self.credit -= chunk::SIZE,
            }
            match end {
                Some(end) => from = end,
                None => break,
            }
        }
        Ok(Segment::None)
    }

    /// Decompresses from the start of `input` up to the flush at `end`, or to the end of the member's data.
    fn decompress<R: Read>(&mut self, input: &mut Input<R>, end: Option<usize>, chunk: &mut Chunk) -> Try {
        let window = self.window.len();
        let before = if window == 0 { 0 } else { STORED + window };
        let (memory, bytes) = input.memory();
        let start = bytes.start - before;
        if window > 0 {
            let length = (window as u16).to_le_bytes();
            memory[start] = 0;
            memory[start + 1..start + 3].copy_from_slice(&length);
            memory[start + 3..start + STORED].copy_from_slice(&length.map(|byte| !byte));
            memory[start + STORED..bytes.start].copy_from_slice(&self.window);
        }
        let outcome = match end {
            None => self.decompressor.run(&memory[start..bytes.end], chunk.room_behind(window)),
            Some(end) => {
                let end = bytes.start + end;
                let mut kept = [0; END.len()];
                let behind = end..end + END.len();
                kept.copy_from_slice(&memory[behind.clone()]);
                memory[behind.clone()].copy_from_slice(&END);
                let outcome = self.decompressor.run(&memory[start..behind.end], chunk.room_behind(window));
                memory[behind].copy_from_slice(&kept);
                outcome
            }
        };
        let (taken, given) = match outcome {
            Ok((taken, given)) => (taken - before, given - window),
            Err(INSUFFICIENT_SPACE) => return Try::NoRoom,
            Err(_) => return Try::Failed,
        };
        match end {
            Some(end) if taken > end => {
                let out = &chunk.room()[..given];
                // If the output includes the marker's header too, a stored block took the whole last block as
                // its data.
                if taken != end + END.len() || !out.ends_with(&END[STORED..]) || out.ends_with(&END) {
                    return Try::Failed;
                }
                Try::Done { given: given - (END.len() - STORED), taken: end, ended: false }
            }
            _ => Try::Done { given, taken, ended: true },
        }
    }

    /// Keeps the last output for the next segment. `given` bytes of it are in the chunk's free space.
    fn keep(&mut self, chunk: &mut Chunk, given: usize) {
        let out = &chunk.room_behind(self.window.len())[..self.window.len() + given];
        let last = &out[out.len().saturating_sub(WINDOW)..];
        self.window.clear();
        self.window.extend_from_slice(last);
    }
}

/// The result of one call of libdeflate.
enum Try {
    /// `given` bytes of output from `taken` bytes of input. `ended` says whether the member's data ended, or
    /// only the segment.
    Done { given: usize, taken: usize, ended: bool },
    /// The output does not fit.
    NoRoom,
    /// The input is not a deflate stream.
    Failed,
}

/// libdeflate's decompressor, for calls that libdeflater lacks: it does not tell how much input was consumed.
struct Decompressor(NonNull<libdeflate_decompressor>);

impl Decompressor {
    fn new() -> io::Result<Self> {
        // SAFETY: The function takes no arguments and returns null if there is no memory.
        let decompressor = unsafe { libdeflate_alloc_decompressor() };
        NonNull::new(decompressor).map(Self).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }

    /// Decompresses the raw deflate stream at the start of `data` into `out`. Returns the number of bytes
    /// consumed and the number of bytes written.
    fn run(&mut self, data: &[u8], out: &mut [u8]) -> Result<(usize, usize), libdeflate_result> {
        let (mut taken, mut given) = (0, 0);
        // SAFETY: The decompressor is owned by us and valid. Both lengths are those of the buffers, and only
        // the second buffer is written to.
        let result = unsafe {
            libdeflate_deflate_decompress_ex(
                self.0.as_ptr(),
                data.as_ptr().cast(),
                data.len(),
                out.as_mut_ptr().cast(),
                out.len(),
                &mut taken,
                &mut given,
            )
        };
        if result == SUCCESS { Ok((taken, given)) } else { Err(result) }
    }
}

impl Drop for Decompressor {
    fn drop(&mut self) {
        // SAFETY: The pointer came from `libdeflate_alloc_decompressor` and is not used afterwards.
        unsafe { libdeflate_free_decompressor(self.0.as_ptr()) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::input::FLUSH;
    use super::*;
    use flate2::{Compression, write::DeflateEncoder};
    use std::io::Write;

    /// Pieces with a flush after each but the last, followed by bytes that are not part of the member.
    fn member(pieces: &[&[u8]], level: u32) -> Vec<u8> {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::new(level));
        for (n, piece) in pieces.iter().enumerate() {
            if n > 0 {
                encoder.flush().unwrap();
            }
            encoder.write_all(piece).unwrap();
        }
        [&encoder.finish().unwrap()[..], b"the trailer"].concat()
    }

    /// The result of each try, each with its own chunk, and all output.
    fn tries(blob: &[u8]) -> (Vec<Segment>, Vec<u8>) {
        let (mut input, mut segments) = (Input::new(blob), Segments::new().unwrap());
        let (mut outcomes, mut all) = (Vec::new(), Vec::new());
        loop {
            let mut chunk = Chunk::default();
            chunk.clear();
            outcomes.push(segments.next(&mut input, &mut chunk).unwrap());
            all.extend_from_slice(chunk.bytes());
            match outcomes.last() {
                Some(Segment::Given(_)) => {}
                Some(Segment::Ended(_)) => {
                    assert_eq!(input.at_hand(), b"the trailer");
                    return (outcomes, all);
                }
                _ => return (outcomes, all),
            }
        }
    }

    /// Data that seldom repeats, so it does not compress.
    fn noise(length: usize) -> Vec<u8> {
        let mut state = 1_u64;
        let mut byte = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        };
        (0..length).map(|_| byte()).collect()
    }

    #[test]
    fn segments_are_taken_at_once() {
        let text: Vec<u8> = (0..300_000_u32).flat_map(|n| format!("{n} ").into_bytes()).collect();
        let (first, rest) = text.split_at(chunk::SIZE);
        let (second, third) = rest.split_at(100_000);
        for level in [0, 1, 9] {
            let (outcomes, all) = tries(&member(&[first, second, third], level));
            let [first, second, third] = [first, second, third].map(<[u8]>::len);
            assert_eq!(
                outcomes,
                [Segment::Given(first), Segment::Given(second), Segment::Ended(third)],
                "{level}"
            );
            assert!(all == text);
        }
    }

    #[test]
    fn a_flush_within_a_block_is_none() {
        // Noise is stored uncompressed. It contains bytes like those of a flush and of the end of a segment.
        let mut data = noise(300_000);
        for (n, at) in (0..data.len() - 100).step_by(60_000).enumerate() {
            let likeness = [&FLUSH[..], &END[..n.min(END.len())]].concat();
            data[at..at + likeness.len()].copy_from_slice(&likeness);
        }
        // The rest of the last block is as long as the block that is written over it.
        let rest = data.len() - END.len();
        data[rest - FLUSH.len()..rest].copy_from_slice(&FLUSH);
        // This could be that rest.
        let same = [&data[..], &END[..STORED]].concat();
        for level in [0, 9] {
            let (outcomes, all) = tries(&member(&[&data], level));
            assert_eq!(outcomes, [Segment::Ended(data.len())]);
            assert!(all == data);
            let (outcomes, all) = tries(&member(&[&data, &data], level));
            assert_eq!(outcomes, [Segment::Given(data.len()), Segment::Ended(data.len())]);
            assert!(all == [&data[..], &data].concat());
            let (outcomes, all) = tries(&member(&[&same, b"more"], level));
            assert_eq!(outcomes, [Segment::Ended(same.len() + 4)]);
            assert!(all == [&same[..], b"more"].concat());
        }
    }

    #[test]
    fn who_fails_too_often_is_tried_no_more() {
        let flushes = FLUSH.repeat(2 * CREDIT / chunk::SIZE);
        let data = [&noise(100_000)[..], &flushes].concat();
        let (outcomes, _) = tries(&member(&[&data, &data], 0));
        assert_eq!(outcomes, [Segment::None]);
    }

    #[test]
    fn what_is_longer_than_a_chunk_is_none() {
        let data = vec![7; chunk::SIZE + SPARE + 1];
        assert_eq!(tries(&member(&[&data], 1)).0, [Segment::None]);
        assert_eq!(tries(&member(&[&data[1..]], 1)).0, [Segment::Ended(data.len() - 1)]);
    }
}

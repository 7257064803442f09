//! Sparse files: the places of the stored bytes (GNU tar, "Storing Sparse Files").

use std::io::BufRead;

use super::{BLOCK, Error, Segment, number, pax, reader};

/// The maximum number of runs of data in a sparse file.
const SEGMENTS: usize = 1 << 18;

/// Converts alternating offsets and lengths to runs. They must be in order, without overlap, within `size`,
/// and have `stored` bytes in total.
pub(super) fn segments(map: &[u64], size: u64, stored: u64) -> Result<Vec<Segment>, &'static str> {
    const REASON: &str = "sparse file with a map that does not hold together";
    if !map.len().is_multiple_of(2) {
        return Err(REASON);
    }
    let (mut at, mut sum) = (0, 0_u64);
    let mut segments = Vec::with_capacity(map.len() / 2);
    for pair in map.chunks_exact(2) {
        let (offset, length) = (pair[0], pair[1]);
        let end = offset.checked_add(length).filter(|&end| offset >= at && end <= size).ok_or(REASON)?;
        sum += length;
        at = end;
        // GNU tar ends a map with an empty run at the end of the file.
        if length > 0 {
            segments.push(Segment { offset, length });
        }
    }
    if sum != stored { Err(REASON) } else { Ok(segments) }
}

/// Reads the map of GNU's old format: four runs in the header, and 21 in each block that follows. Returns
/// alternating offsets and lengths, and the file's size.
pub(super) fn read_old(
    header: &[u8; BLOCK],
    source: &mut reader::Source<impl BufRead>,
) -> Result<(Vec<u64>, u64), Error> {
    const REASON: &str = "sparse file with a number that is none";
    let at = source.position() - BLOCK as u64;
    let number = |field: &[u8]| {
        let value = number::parse(field).and_then(|value| u64::try_from(value).ok());
        value.ok_or(Error::Header { at, reason: REASON })
    };
    let mut map = Vec::new();
    let push = |fields: &[u8], map: &mut Vec<u64>| {
        for run in fields.chunks_exact(24) {
            if run[0] == 0 {
                break;
            }
            map.extend([number(&run[..12])?, number(&run[12..])?]);
        }
        if map.len() / 2 > SEGMENTS {
            return Err(Error::Header { at, reason: "sparse file in too many pieces" });
        }
        Ok(())
    };
    push(&header[386..482], &mut map)?;
    let size = number(&header[483..495])?;
    let mut more = header[482] != 0;
    while more {
        let block = source.block()?.ok_or(Error::Truncated)?;
        push(&block[..504], &mut map)?;
        more = block[504] != 0;
    }
    Ok((map, size))
}

/// Reads the map of version 1.0, which comes before the data. It consists of decimal lines, the first of
/// which is the number of runs, and is filled up to a block. Returns alternating offsets and lengths, and how
/// many bytes of the entry the map takes.
pub(super) fn read_map(
    stored: u64,
    source: &mut reader::Source<impl BufRead>,
) -> Result<(Vec<u64>, u64), Error> {
    let at = source.position();
    let error = |reason| Error::Header { at, reason };
    let (mut map, mut expected, mut taken) = (Vec::new(), None, 0);
    let (mut digits, mut value) = (0, 0_u64);
    loop {
        if taken + BLOCK as u64 > stored.next_multiple_of(BLOCK as u64) {
            return Err(error("sparse file with a map that does not hold together"));
        }
        let block = source.block()?.ok_or(Error::Truncated)?;
        taken += BLOCK as u64;
        for &byte in &block {
            match byte {
                b'0'..=b'9' if digits < 20 => {
                    let next =
                        pax::decimal(&[byte]).and_then(|digit| value.checked_mul(10)?.checked_add(digit));
                    (digits, value) =
                        (digits + 1, next.ok_or(error("sparse file with a number that is none"))?);
                }
                b'\n' if digits > 0 => {
                    match expected {
                        None if value > SEGMENTS as u64 => {
                            return Err(error("sparse file in too many pieces"));
                        }
                        None => expected = Some(2 * value as usize),
                        Some(_) => map.push(value),
                    }
                    (digits, value) = (0, 0);
                    if Some(map.len()) == expected {
                        return Ok((map, taken));
                    }
                }
                _ => return Err(error("sparse file with a number that is none")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps() {
        for (map, size, stored, good) in [
            (&[0, 10, 100, 5, 200, 0][..], 200, 15, true),
            (&[], 1 << 40, 0, true),
            (&[0, 10, 5, 10], 100, 20, false),
            (&[0, 10], 9, 10, false),
            (&[0, 10], 10, 9, false),
            (&[0], 10, 0, false),
            (&[u64::MAX, 2], u64::MAX, 2, false),
        ] {
            assert_eq!(segments(map, size, stored).is_ok(), good, "{map:?}");
        }
    }
}

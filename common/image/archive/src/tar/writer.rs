//! Writes entries to a stream: in ustar where possible, with PAX headers for the rest. The same entries
//! always give the same bytes.

use std::io::{self, Write};

use super::{BLOCK, Entry, Kind, Time, number::write_octal};

/// Writes an archive.
pub struct Writer<W> {
    out: W,
    /// The number of bytes that fill the last block of the previous entry.
    padding: usize,
}

impl<W: Write> Writer<W> {
    /// Writes an archive from the current position of `out`.
    pub fn new(out: W) -> Self {
        Self { out, padding: 0 }
    }

    /// Writes the headers of `entry`. Exactly `entry.stored` bytes of data must follow, through
    /// [`Writer::data`] or directly into the stream.
    ///
    /// # Errors
    /// Those of the stream.
    pub fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        self.pad()?;
        let (header, records) = encode(entry);
        if !records.is_empty() {
            let mut extended = Entry::new(Kind::File, b"PaxHeaders/0".to_vec());
            (extended.mode, extended.stored) = (0o644, records.len() as u64);
            let (mut block, _) = encode(&extended);
            block[156] = b'x';
            seal(&mut block);
            self.out.write_all(&block)?;
            self.out.write_all(&records)?;
            self.padding = records.len().wrapping_neg() % BLOCK;
            self.pad()?;
        }
        self.out.write_all(&header)?;
        self.padding = (entry.stored.wrapping_neg() % BLOCK as u64) as usize;
        Ok(())
    }

    /// Writes some of the entry's data.
    ///
    /// # Errors
    /// Those of the stream.
    pub fn data(&mut self, data: &[u8]) -> io::Result<()> {
        self.out.write_all(data)
    }

    /// The underlying stream.
    pub fn get_mut(&mut self) -> &mut W {
        &mut self.out
    }

    /// Ends the archive with two blocks of zeros, and returns the stream.
    ///
    /// # Errors
    /// Those of the stream.
    pub fn finish(mut self) -> io::Result<W> {
        self.pad()?;
        self.out.write_all(&[0; 2 * BLOCK])?;
        Ok(self.out)
    }

    fn pad(&mut self) -> io::Result<()> {
        self.out.write_all(&[0; BLOCK][..std::mem::take(&mut self.padding)])
    }
}

/// The entry's header block, and the records for its PAX header.
fn encode(entry: &Entry) -> ([u8; BLOCK], Vec<u8>) {
    let (mut block, mut records) = ([0; BLOCK], Vec::new());
    if let Some((prefix, name)) = split(&entry.path) {
        block[..name.len()].copy_from_slice(name);
        block[345..345 + prefix.len()].copy_from_slice(prefix);
    } else {
        block[..100].copy_from_slice(&entry.path[entry.path.len() - 100..]);
        record(&mut records, b"path", &entry.path);
    }
    if entry.link.len() <= 100 {
        block[157..157 + entry.link.len()].copy_from_slice(&entry.link);
    } else {
        record(&mut records, b"linkpath", &entry.link);
    }
    write_octal(&mut block[100..108], u64::from(entry.mode));
    for (place, key, value) in [
        (108..116, &b"uid"[..], u64::from(entry.uid)),
        (116..124, b"gid", u64::from(entry.gid)),
        (124..136, b"size", entry.stored),
    ] {
        if !write_octal(&mut block[place.clone()], value) {
            write_octal(&mut block[place], 0);
            record(&mut records, key, value.to_string().as_bytes());
        }
    }
    let seconds = u64::try_from(entry.mtime.seconds);
    let fits =
        entry.mtime.nanoseconds == 0 && seconds.is_ok_and(|value| write_octal(&mut block[136..148], value));
    if !fits {
        if !seconds.is_ok_and(|value| write_octal(&mut block[136..148], value)) {
            write_octal(&mut block[136..148], 0);
        }
        record(&mut records, b"mtime", &decimal(entry.mtime));
    }
    if let Some(atime) = entry.atime {
        record(&mut records, b"atime", &decimal(atime));
    }
    block[156] = match entry.kind {
        Kind::File => b'0',
        Kind::HardLink => b'1',
        Kind::Symlink => b'2',
        Kind::CharDevice => b'3',
        Kind::BlockDevice => b'4',
        Kind::Directory => b'5',
        Kind::Fifo => b'6',
    };
    block[257..265].copy_from_slice(b"ustar\x0000");
    if matches!(entry.kind, Kind::CharDevice | Kind::BlockDevice) {
        // Linux's 12 and 20 bits both fit in seven digits.
        write_octal(&mut block[329..337], u64::from(entry.device.0));
        write_octal(&mut block[337..345], u64::from(entry.device.1));
    }
    for (name, value) in &entry.xattrs {
        record(&mut records, &[b"SCHILY.xattr.", &name[..]].concat(), value);
    }
    seal(&mut block);
    (block, records)
}

/// Splits the name into ustar's prefix and name, if it fits.
fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.len() <= 100 {
        return Some((b"", path));
    }
    // The first slash after which the rest fits, so that the prefix is as short as possible.
    let from = path.len().checked_sub(101)?;
    let at = from + path[from..].iter().position(|&byte| byte == b'/')?;
    (at > 0 && at <= 155 && at + 1 < path.len()).then(|| (&path[..at], &path[at + 1..]))
}

fn seal(block: &mut [u8; BLOCK]) {
    block[148..156].fill(b' ');
    let sum: u64 = block.iter().map(|&byte| u64::from(byte)).sum();
    write_octal(&mut block[148..155], sum);
}

/// Adds the record `LENGTH KEY=VALUE\n`. The length includes itself.
fn record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(format!("{length} ").as_bytes());
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

fn decimal(time: Time) -> Vec<u8> {
    let (sign, seconds, nanoseconds) = match (time.seconds < 0, time.nanoseconds) {
        (true, 1..) => ("-", (time.seconds + 1).unsigned_abs(), 1_000_000_000 - time.nanoseconds),
        (true, 0) => ("-", time.seconds.unsigned_abs(), 0),
        (false, nanoseconds) => ("", time.seconds.unsigned_abs(), nanoseconds),
    };
    let text = format!("{sign}{seconds}.{nanoseconds:09}");
    text.trim_end_matches('0').trim_end_matches('.').as_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::super::Reader;
    use super::*;
    use proptest::prelude::*;

    fn bytes(length: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(1_u8..=255, length)
    }

    fn entry() -> impl Strategy<Value = Entry> {
        let kinds = [
            Kind::File,
            Kind::HardLink,
            Kind::Symlink,
            Kind::CharDevice,
            Kind::BlockDevice,
            Kind::Directory,
            Kind::Fifo,
        ];
        let time = (-(1_i64 << 40)..1 << 40, prop_oneof![Just(0), 0..1_000_000_000_u32]);
        let time = time.prop_map(|(seconds, nanoseconds)| Time { seconds, nanoseconds });
        let xattrs = prop::collection::btree_map(bytes(1..20), bytes(1..300), 0..3);
        let numbers = (0..0o10000_u32, any::<u32>(), any::<u32>(), 0..2000_u64);
        let fields = (bytes(1..400), bytes(0..200), prop::sample::select(kinds.to_vec()), numbers);
        (fields, time.clone(), prop::option::of(time), (0..4096_u32, 0..1_u32 << 20), xattrs).prop_map(
            |((mut path, link, kind, (mode, uid, gid, size)), mtime, atime, device, xattrs)| {
                if kind == Kind::File && path.ends_with(b"/") {
                    path.push(b'x');
                }
                let size = if kind == Kind::File { size } else { 0 };
                let device =
                    if matches!(kind, Kind::CharDevice | Kind::BlockDevice) { device } else { (0, 0) };
                let xattrs = xattrs.into_iter().filter(|(name, _)| !name.contains(&b'=')).collect();
                Entry {
                    path,
                    link,
                    kind,
                    mode,
                    uid,
                    gid,
                    mtime,
                    atime,
                    device,
                    xattrs,
                    size,
                    stored: size,
                    sparse: None,
                }
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(entries in prop::collection::vec(entry(), 0..8)) {
            let mut writer = Writer::new(Vec::new());
            for entry in &entries {
                writer.entry(entry).unwrap();
                writer.data(&vec![b'd'; entry.stored as usize]).unwrap();
            }
            let archive = writer.finish().unwrap();
            prop_assert_eq!(archive.len() % BLOCK, 0);
            let mut reader = Reader::new(&archive[..]);
            for entry in entries {
                prop_assert_eq!(reader.next().unwrap(), Some(entry));
            }
            prop_assert_eq!(reader.next().unwrap(), None);
        }

        #[test]
        fn no_bytes_make_it_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..3000), kind in any::<u8>()) {
            if let Some(block) = bytes.first_chunk_mut::<BLOCK>() {
                block[156] = kind;
                block[124..136].copy_from_slice(b"00000001000\0");
                seal(block);
            }
            let mut reader = Reader::new(&bytes[..]);
            while let Ok(Some(_)) = reader.next() {}
        }
    }
}

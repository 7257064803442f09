//! Reads the entries of an archive from a stream.

use std::{
    collections::VecDeque,
    io::{self, BufRead, Read},
};

use super::{BLOCK, Entry, Error, Kind, Segment, Shown, Time, header::Header, pax::Pax, sparse};

/// The stream, with its position.
pub(super) struct Source<R> {
    inner: R,
    position: u64,
}

impl<R: BufRead> Source<R> {
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// The next block; None at the end of the stream.
    pub(super) fn block(&mut self) -> Result<Option<[u8; BLOCK]>, Error> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.inner.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(Error::Truncated),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.position += BLOCK as u64;
        Ok(Some(block))
    }

    fn skip(&mut self, count: u64) -> Result<(), Error> {
        match self.skip_up_to(count)? {
            skipped if skipped == count => Ok(()),
            _ => Err(Error::Truncated),
        }
    }

    /// Skips `count` bytes, or as many as there are. Returns the number skipped.
    fn skip_up_to(&mut self, count: u64) -> Result<u64, Error> {
        let mut left = count;
        while left > 0 {
            let available = self.inner.fill_buf()?.len();
            if available == 0 {
                break;
            }
            let take = usize::try_from(left).map_or(available, |left| left.min(available));
            self.inner.consume(take);
            self.position += take as u64;
            left -= take as u64;
        }
        Ok(count - left)
    }

    /// The offset of the first byte that is not zero, within the next `most` bytes or up to the end of the
    /// stream.
    fn find_data(&mut self, most: u64) -> Result<Option<u64>, Error> {
        let mut left = most;
        while left > 0 {
            let rest = self.inner.fill_buf()?;
            if rest.is_empty() {
                break;
            }
            let length = usize::try_from(left).map_or(rest.len(), |left| left.min(rest.len()));
            let found = rest[..length].iter().position(|&byte| byte != 0);
            let passed = found.unwrap_or(length);
            self.inner.consume(passed);
            self.position += passed as u64;
            left -= passed as u64;
            if found.is_some() {
                return Ok(Some(self.position));
            }
        }
        Ok(None)
    }
}

/// Reads the entries of an archive, one after the other. Anything ambiguous or malformed is an error.
///
/// Some defects are accepted because all programs that unpack images accept them. The archive may be cut off
/// within the zeros that fill the last block. Data after the two blocks of zeros at the end is read and
/// ignored. (estargz keeps its table of contents there.)
pub struct Reader<R> {
    source: Source<R>,
    /// Whether only names, links and content matter.
    content_only: bool,
    /// The offset of the first byte after the end that is not zero.
    trailing: Option<u64>,
    /// The number of unread bytes of the current entry's data.
    left: u64,
    /// The number of zeros that fill the entry's last block.
    padding: u64,
    global: Pax,
    /// The size of all global extended headers so far, in bytes.
    global_bytes: u64,
}

/// The maximum size of an entry's extended headers and long names, in bytes. (An extended attribute has at
/// most 64 KiB, a name 4 KiB. GNU tar's map of a sparse file in version 0 is also stored there.)
const EXTENDED: u64 = 1 << 20;
/// The maximum size of all global extended headers, in bytes. Their content is kept in memory.
const GLOBAL: u64 = 64 << 10;
/// The maximum number of extended headers before an entry.
const HEADERS: usize = 16;

impl<R: BufRead> Reader<R> {
    /// Reads an archive that begins at the current position of `inner`.
    pub fn new(inner: R) -> Self {
        Self {
            source: Source { inner, position: 0 },
            content_only: false,
            trailing: None,
            left: 0,
            padding: 0,
            global: Pax::default(),
            global_bytes: 0,
        }
    }

    /// Reads an archive that is only a container of files and never becomes a file system. Entries of other
    /// types than [`Kind`] are skipped. Owners, modes and times that no file can have become 0.
    pub fn of_content(inner: R) -> Self {
        Self { content_only: true, ..Self::new(inner) }
    }

    /// The stream, at its current position.
    pub fn into_inner(self) -> R {
        self.source.inner
    }

    /// The offset of data other than zeros after the archive's end. It is known once the end was read.
    pub fn trailing(&self) -> Option<u64> {
        self.trailing
    }

    /// The next entry; None at the end of the archive. The stream is then read to its own end.
    ///
    /// # Errors
    /// [`Error`]; the archive cannot be read any further then.
    #[allow(clippy::should_implement_trait, reason = "entries are lent in turn, their data between them")]
    pub fn next(&mut self) -> Result<Option<Entry>, Error> {
        self.source.skip(self.left)?;
        self.source.skip_up_to(self.padding)?;
        (self.left, self.padding) = (0, 0);
        let mut extended = Extended::default();
        loop {
            let at = self.source.position;
            let Some(block) = self.source.block()? else {
                return if extended.count == 0 { Ok(None) } else { Err(Error::Truncated) };
            };
            let header = Header(&block);
            if header.is_zero() {
                // Go's archive/tar ignores headers for an entry that does not follow.
                return self.end().map(|()| None);
            }
            if !header.checksum_holds() {
                return Err(Error::Header { at, reason: "checksum does not match" });
            }
            if self.extend(&mut extended, &header, at)? {
                continue;
            }
            if self.content_only && kind(&header, b"", 0).is_err() {
                let size = header.size().ok_or(Error::Header { at, reason: "invalid size" })?;
                self.source.skip(size)?;
                self.source.skip_up_to(padding(size))?;
                extended = Extended::default();
                continue;
            }
            return self.entry(extended, &block, at).map(Some);
        }
    }

    /// Some of the current entry's data, without consuming it; empty at the end of the data.
    ///
    /// # Errors
    /// [`Error::Truncated`] if the stream ends earlier; [`Error::Read`].
    pub fn data(&mut self) -> Result<&[u8], Error> {
        if self.left == 0 {
            return Ok(&[]);
        }
        let available = self.source.inner.fill_buf()?;
        if available.is_empty() {
            return Err(Error::Truncated);
        }
        Ok(&available[..usize::try_from(self.left).map_or(available.len(), |left| left.min(available.len()))])
    }

    /// Marks `count` bytes of the data from [`Reader::data`] as used.
    pub fn consume(&mut self, count: usize) {
        self.source.inner.consume(count);
        self.source.position += count as u64;
        self.left = self.left.saturating_sub(count as u64);
    }

    /// Reads what follows the first block of zeros: a second one, or the end of the stream; then anything.
    fn end(&mut self) -> Result<(), Error> {
        if let Some(at) = self.source.find_data(BLOCK as u64)? {
            return Err(Error::Lone { at });
        }
        self.trailing = self.source.find_data(u64::MAX)?;
        self.source.skip_up_to(u64::MAX)?;
        Ok(())
    }

    /// Reads a header that applies to the next entry. Returns false for any other header.
    fn extend(&mut self, extended: &mut Extended, header: &Header, at: u64) -> Result<bool, Error> {
        let error = |reason| Error::Extended { at, reason };
        let kind = header.kind();
        if !matches!(kind, b'x' | b'X' | b'g' | b'L' | b'K') {
            return Ok(false);
        }
        extended.count += 1;
        let size = header.size().ok_or(error("invalid size"))?;
        extended.bytes = extended.bytes.saturating_add(size);
        if extended.count > HEADERS || extended.bytes > EXTENDED {
            return Err(error("more than any entry needs"));
        }
        self.global_bytes += if kind == b'g' { size } else { 0 };
        if self.global_bytes > GLOBAL {
            return Err(error("more than any archive says of all its entries"));
        }
        let text = self.text(size)?;
        match kind {
            b'g' => self.global.read(&text).map_err(error)?,
            b'x' | b'X' => {
                extended.pax.get_or_insert_with(|| self.global.clone()).read(&text).map_err(error)?
            }
            _ => {
                let end = text.iter().position(|&byte| byte == 0).unwrap_or(text.len());
                let name = text[..end].to_vec();
                *(if kind == b'L' { &mut extended.path } else { &mut extended.link }) = Some(name);
            }
        }
        // One name or size for all entries makes no sense and is ignored.
        (self.global.path, self.global.link, self.global.size) = (None, None, None);
        Ok(true)
    }

    /// Reads `size` bytes, and skips the rest of their last block.
    fn text(&mut self, size: u64) -> Result<Vec<u8>, Error> {
        let mut text = vec![0; usize::try_from(size).map_err(|_| Error::Truncated)?];
        self.source.inner.read_exact(&mut text).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => Error::Truncated,
            _ => Error::Read(error),
        })?;
        self.source.position += size;
        self.source.skip(padding(size))?;
        Ok(text)
    }

    fn entry(&mut self, extended: Extended, block: &[u8; BLOCK], at: u64) -> Result<Entry, Error> {
        let header = Header(block);
        let error = |reason| Error::Header { at, reason };
        let pax = extended.pax.unwrap_or_else(|| self.global.clone());
        let path =
            pax.sparse.name.clone().or(pax.path.clone()).or(extended.path).unwrap_or_else(|| header.path());
        let kind = kind(&header, &path, pax.size.or(header.size()).unwrap_or_default())?;
        let otherwise = self.content_only.then_some(0);
        let owner = |pax: Option<u32>, field: Option<i64>| {
            let owner = pax.or_else(|| field.and_then(super::pax::id)).or(otherwise);
            owner.ok_or(error("owner out of range"))
        };
        let data = data_of(&header, &pax).map_err(error)?;
        let stored = if kind == Kind::File { data } else { 0 };
        let mtime = header.mtime().map(|seconds| Time { seconds, nanoseconds: 0 });
        let mut entry = Entry {
            link: pax.link.clone().or(extended.link).unwrap_or_else(|| header.link()),
            kind,
            // Some writers add the bits of the file's type.
            mode: header
                .mode()
                .filter(|mode| (0..1 << 21).contains(mode))
                .or(otherwise.map(i64::from))
                .ok_or(error("invalid mode"))? as u32
                & 0o7777,
            uid: owner(pax.uid, header.uid())?,
            gid: owner(pax.gid, header.gid())?,
            mtime: pax
                .mtime
                .or(mtime)
                .or(otherwise.map(|_| Time::default()))
                .ok_or(error("invalid mtime"))?,
            atime: pax.atime,
            device: match kind {
                Kind::CharDevice | Kind::BlockDevice => {
                    header.device().ok_or(error("device out of range"))?
                }
                _ => (0, 0),
            },
            xattrs: Vec::new(),
            size: stored,
            stored,
            sparse: None,
            path,
        };
        (self.left, self.padding) = (data, padding(data));
        if kind == Kind::File {
            self.sparse(&mut entry, &header, &pax, at)?;
        }
        entry.xattrs = pax.xattrs;
        Ok(entry)
    }

    fn sparse(&mut self, entry: &mut Entry, header: &Header, pax: &Pax, at: u64) -> Result<(), Error> {
        let error = |reason| Error::Header { at, reason };
        let (map, size) = if header.kind() == b'S' {
            sparse::read_old(header.0, &mut self.source)?
        } else if !pax.sparse.is_there() {
            return Ok(());
        } else {
            let size = pax.sparse.size.ok_or(error("sparse file without its size"))?;
            match (pax.sparse.major.unwrap_or(0), pax.sparse.minor.unwrap_or(0)) {
                (0, _) => (pax.sparse.map.clone(), size),
                (1, 0) => {
                    let (map, taken) = sparse::read_map(entry.stored, &mut self.source)?;
                    let stored = entry.stored.checked_sub(taken);
                    entry.stored =
                        stored.ok_or(error("sparse file with a map that does not hold together"))?;
                    self.left = entry.stored;
                    (map, size)
                }
                _ => return Err(error("sparse file of a version that no tar writes")),
            }
        };
        if size > i64::MAX as u64 {
            return Err(error("size that no file can have"));
        }
        let segments: Vec<Segment> = sparse::segments(&map, size, entry.stored).map_err(error)?;
        (entry.size, entry.sparse) = (size, Some(segments));
        Ok(())
    }
}

impl<R: BufRead> Reader<R> {
    /// A reader of the current entry's content. Holes of a sparse file are read as zeros.
    pub fn content<'a>(&'a mut self, entry: &'a Entry) -> Content<'a, R> {
        let whole = Segment { offset: 0, length: entry.size };
        let segments = entry.sparse.as_deref().map_or_else(|| vec![whole], <[_]>::to_vec);
        Content { reader: self, segments: segments.into(), position: 0, size: entry.size }
    }
}

/// Reads the content of an entry.
pub struct Content<'a, R> {
    reader: &'a mut Reader<R>,
    segments: VecDeque<Segment>,
    position: u64,
    size: u64,
}

impl<R: BufRead> Read for Content<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.segments.front().is_some_and(|next| next.offset + next.length <= self.position) {
            self.segments.pop_front();
        }
        let up_to = |end: u64| usize::try_from(end).map_or(buffer.len(), |left| left.min(buffer.len()));
        let hole = self.segments.front().map_or(self.size, |next| next.offset);
        let count = match hole.checked_sub(self.position).filter(|&hole| hole > 0) {
            Some(hole) => {
                let count = up_to(hole);
                buffer[..count].fill(0);
                count
            }
            None => {
                let Some(next) = self.segments.front() else { return Ok(0) };
                let most = up_to(next.offset + next.length - self.position);
                let data = self.reader.data()?;
                let count = data.len().min(most);
                buffer[..count].copy_from_slice(&data[..count]);
                self.reader.consume(count);
                count
            }
        };
        self.position += count as u64;
        Ok(count)
    }
}

/// The extended headers before an entry.
#[derive(Default)]
struct Extended {
    count: usize,
    bytes: u64,
    pax: Option<Pax>,
    /// GNU's long name and long link.
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

/// The kind of an entry with this path and `size` bytes of data.
fn kind(header: &Header, path: &[u8], size: u64) -> Result<Kind, Error> {
    Ok(match header.kind() {
        // Before POSIX, a directory was a file whose name ends with a slash. POSIX's type for a file says that
        // it is one, but some writers use it for directories. Data settle it.
        b'0' if size > 0 => Kind::File,
        b'0' | 0 if path.ends_with(b"/") => Kind::Directory,
        b'0' | 0 | b'7' | b'S' => Kind::File,
        b'1' => Kind::HardLink,
        b'2' => Kind::Symlink,
        b'3' => Kind::CharDevice,
        b'4' => Kind::BlockDevice,
        b'5' => Kind::Directory,
        b'6' => Kind::Fifo,
        other => return Err(Error::Type { name: Shown::new(path), kind: char::from(other) }),
    })
}

/// How many bytes of data follow the header.
///
/// Only a file is followed by data, whatever size the header of another entry gives. Go's archive/tar reads
/// archives this way, and so does every container engine. A type from before POSIX may be a directory by its
/// name and still have data.
fn data_of(header: &Header, pax: &Pax) -> Result<u64, &'static str> {
    let size = match header.kind() {
        b'1'..=b'6' => 0,
        _ => pax.size.or(header.size()).ok_or("invalid size")?,
    };
    if size > i64::MAX as u64 { Err("size that no file can have") } else { Ok(size) }
}

fn padding(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK as u64
}

//! The log of a container: the unchanged output of its process, and an index with the time and the stream of
//! each piece.
//!
//! `<log>` is the plain output. `<log>.index` has a line for each piece of it: the time in nanoseconds since
//! 1970, `o` or `e` for the stream, the offset in the log, and the length in bytes.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, BufRead, BufReader, ErrorKind, Write},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use ::operation::{Error, Place};
use nix::libc;
use runtime::ProcessOperation;

use crate::Result;

/// Where output is logged.
#[derive(Debug, Clone)]
pub struct Log {
    /// The file. Output is appended.
    pub path: PathBuf,
    /// When the file reaches this many bytes, it is renamed to `<path>.1`, that to `<path>.2` and so on, and a new file
    /// is begun. The same happens when the index reaches this size, because output may come in small pieces.
    /// None for no limit.
    pub limit: Option<u64>,
    /// How many files are kept, with the current one. The oldest one is replaced.
    pub files: u32,
    /// Whether there is an index. A log that the user named has none.
    pub indexed: bool,
}

/// The stream that output came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Standard output, or a terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Source {
    /// The stream's letter in the index and in the packets to attached clients.
    pub(crate) fn letter(self) -> char {
        match self {
            Self::Stdout => 'o',
            Self::Stderr => 'e',
        }
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name: OsString = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

impl Log {
    /// The log of a process; none if its output goes elsewhere.
    pub fn of(process: &ProcessOperation) -> Option<Self> {
        // A log that the user named has no limit and no index.
        let limit = process.log_limit;
        let files = process.log_files.unwrap_or(Self::FILES);
        Some(Self { path: process.log.clone()?, limit, files, indexed: limit.is_some() })
    }

    /// Where the log is. One without an index was named by the user.
    fn place(&self) -> Place {
        if self.indexed { Place::Store } else { Place::File }
    }

    /// How many files are kept by default.
    pub const FILES: u32 = 2;

    /// The names of a log's files, the current one first, then the older ones.
    pub fn all(path: &Path, files: u32) -> impl DoubleEndedIterator<Item = PathBuf> {
        (0..files).map(move |number| match number {
            0 => path.to_owned(),
            _ => with_suffix(path, &format!(".{number}")),
        })
    }

    /// The name of the index of a log's file.
    pub fn index(path: &Path) -> PathBuf {
        with_suffix(path, ".index")
    }
}

/// An open log.
#[derive(Debug)]
pub(crate) struct Open {
    log: Log,
    file: File,
    index: Option<File>,
    written: u64,
    /// The length of the index, in bytes.
    indexed: u64,
}

/// The length of a file, in bytes.
fn length(file: &File) -> io::Result<u64> {
    Ok(file.metadata()?.len())
}

fn open(path: &Path) -> io::Result<File> {
    let flags = libc::O_NOCTTY | libc::O_CLOEXEC;
    File::options().append(true).create(true).mode(0o640).custom_flags(flags).open(path)
}

impl Open {
    pub(crate) fn new(log: Log) -> Result<Self> {
        let (object, place) = (format!("{:?}", log.path), log.place());
        Self::of(log).map_err(|error| Error::new("open", object, error).of(place))
    }

    fn of(log: Log) -> io::Result<Self> {
        let file = open(&log.path)?;
        let written = length(&file)?;
        let index = log.indexed.then(|| open(&Log::index(&log.path))).transpose()?;
        let indexed = index.as_ref().map(length).transpose()?.unwrap_or_default();
        Ok(Self { log, file, index, written, indexed })
    }

    pub(crate) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        [Some(&self.file), self.index.as_ref()].into_iter().flatten().map(AsFd::as_fd)
    }

    /// Appends output, and ignores errors: a log that is full or gone must not block the process.
    pub(crate) fn append(&mut self, source: Source, output: &[u8]) {
        let added = output.len() as u64;
        let is_full = |limit| self.written > 0 && self.written + added > limit || self.indexed >= limit;
        if self.log.limit.is_some_and(is_full) {
            self.rotate();
        }
        if self.file.write_all(output).is_err() {
            // A part of the output may have been written.
            self.written = length(&self.file).unwrap_or(self.written);
            return;
        }
        if let Some(index) = &mut self.index {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
            let line = format!("{now} {} {} {added}\n", source.letter(), self.written);
            let _ = index.write_all(line.as_bytes());
            self.indexed += line.len() as u64;
        }
        self.written += added;
    }

    /// Begins a new file. If the old one cannot be renamed or removed, it is emptied. Each index goes before its
    /// file, to where there is none: a log without an index can still be read, but an index must not describe
    /// another log.
    fn rotate(&mut self) {
        let files: Vec<PathBuf> = Log::all(&self.log.path, self.log.files).collect();
        if let [.., _, oldest] = files.as_slice() {
            let _ = fs::remove_file(Log::index(oldest));
            let _ = fs::remove_file(oldest);
        }
        // The only file is made anew, and not emptied: then readers see that it is another one.
        let mut moved = match files.as_slice() {
            [only] => (fs::remove_file(Log::index(only)), fs::remove_file(only)),
            _ => (Err(ErrorKind::NotFound.into()), Err(ErrorKind::NotFound.into())),
        };
        for pair in files.windows(2).rev() {
            let [from, to] = pair else { continue };
            moved = (fs::rename(Log::index(from), Log::index(to)), fs::rename(from, to));
        }
        let path = &self.log.path;
        if let Some(index) = &mut self.index {
            match moved.0.and_then(|()| open(&Log::index(path))) {
                Ok(file) => *index = file,
                Err(_) => drop(index.set_len(0)),
            }
        }
        match moved.1.and_then(|()| open(path)) {
            Ok(file) => self.file = file,
            Err(_) => drop(self.file.set_len(0)),
        }
        (self.written, self.indexed) = (0, 0);
    }
}

/// A piece of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// Nanoseconds since 1970; none for output that the index does not describe.
    pub time: Option<i128>,
    /// The stream.
    pub source: Source,
    /// The offset of its first byte.
    pub from: u64,
    /// The offset behind its last byte.
    pub to: u64,
}

/// A reader of a log's index, which follows the index as it grows.
#[derive(Debug)]
pub struct Entries {
    index: Option<BufReader<File>>,
    /// A line that is not complete yet.
    part: String,
    /// The offset where the next chunk begins.
    at: u64,
}

impl Entries {
    /// Opens the index of the log at `path`. A log may have none.
    ///
    /// # Errors
    /// When the index exists and cannot be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        let index = match File::open(Log::index(path)) {
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            index => Some(BufReader::new(index?)),
        };
        Ok(Self { index, part: String::new(), at: 0 })
    }

    /// Whether this is still the index of the log at `path`; also if both have none.
    pub fn is_at(&self, path: &Path) -> bool {
        let identity = |found: fs::Metadata| (found.dev(), found.ino());
        let there = fs::metadata(Log::index(path)).map(identity).ok();
        there == self.index.as_ref().and_then(|index| index.get_ref().metadata().map(identity).ok())
    }

    /// Returns the next chunk of a log of `length` bytes; none if there is no more for now. With `is_whole`
    /// nobody writes to the log any more, so output that the index does not describe becomes a chunk too.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn next(&mut self, length: u64, is_whole: bool) -> io::Result<Option<Chunk>> {
        if let Some(index) = &mut self.index {
            while index.read_line(&mut self.part)? > 0 && self.part.ends_with('\n') {
                let line = std::mem::take(&mut self.part);
                let Some(mut chunk) = chunk(&line) else { continue };
                // Output before this chunk that no line describes belongs to it.
                chunk.from = self.at.min(chunk.to);
                if chunk.to > self.at && chunk.to <= length {
                    self.at = chunk.to;
                    return Ok(Some(chunk));
                }
            }
        }
        if self.at < length && (is_whole || self.index.is_none()) {
            let rest = Chunk { time: None, source: Source::Stdout, from: self.at, to: length };
            self.at = length;
            return Ok(Some(rest));
        }
        Ok(None)
    }
}

fn chunk(line: &str) -> Option<Chunk> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let &[time, source, from, length] = words.as_slice() else { return None };
    let source = if source == "e" { Source::Stderr } else { Source::Stdout };
    let (from, length): (u64, u64) = (from.parse().ok()?, length.parse().ok()?);
    Some(Chunk { time: time.parse().ok(), source, from, to: from.checked_add(length)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(path: &Path, limit: Option<u64>, files: u32) -> Open {
        Open::new(Log { path: path.to_owned(), limit, files, indexed: true }).unwrap()
    }

    fn older(path: &Path) -> PathBuf {
        Log::all(path, 2).next_back().unwrap()
    }

    #[test]
    fn at_most_twice_the_limit_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut open = log(&path, Some(100), 2);
        let line = |number: u8| format!("{number:050}");
        for number in 0..9 {
            open.append(Source::Stdout, line(number).as_bytes());
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), line(8));
        assert_eq!(fs::read_to_string(older(&path)).unwrap(), line(6) + &line(7));
        // An existing log is continued.
        let mut again = log(&path, None, 2);
        again.append(Source::Stderr, b"0123456789");
        assert_eq!(fs::read_to_string(&path).unwrap(), line(8) + "0123456789");
        let mut entries = Entries::open(&path).unwrap();
        let mut next = || entries.next(60, false).unwrap().map(|chunk| (chunk.source, chunk.from, chunk.to));
        assert_eq!(next(), Some((Source::Stdout, 0, 50)));
        assert_eq!(next(), Some((Source::Stderr, 50, 60)));
        assert_eq!(next(), None);
        fs::remove_dir_all(dir.path()).unwrap();
        open.append(Source::Stdout, b"lost, but nothing fails");
    }

    #[test]
    fn as_many_files_are_kept_as_are_asked_for() {
        for files in [1_u32, 4] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("log");
            let mut open = log(&path, Some(100), files);
            for number in 0..20 {
                open.append(Source::Stdout, format!("{number:050}").as_bytes());
            }
            let names: Vec<PathBuf> = Log::all(&path, files).collect();
            let kept = |name: &PathBuf| fs::read_to_string(name).unwrap();
            let all: String = names.iter().rev().map(kept).collect();
            let first = 20 - 2 * files;
            assert_eq!(all, (first..20).map(|number| format!("{number:050}")).collect::<String>());
            // Each has its own index.
            assert_eq!(
                names.iter().map(|name| kept(&Log::index(name)).lines().count()).sum::<usize>(),
                2 * files as usize
            );
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2 * files as usize);
        }
    }

    #[test]
    fn an_index_of_small_pieces_has_a_limit_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut open = log(&path, Some(1000), 2);
        (0..10_000).for_each(|_| open.append(Source::Stderr, b"x"));
        for path in [&path, &older(&path)] {
            let (log, index) = (fs::read(path).unwrap(), fs::read_to_string(Log::index(path)).unwrap());
            assert!((1..1100).contains(&index.len()), "{}", index.len());
            assert_eq!(index.lines().count(), log.len());
        }
        // If others truncate or fill up the log, the index must not contain wrong offsets.
        open.file.set_len(0).unwrap();
        open.file = File::open(&path).unwrap();
        open.append(Source::Stdout, b"not written");
        assert_eq!(open.written, 0);
    }

    #[test]
    fn what_the_index_does_not_tell_is_read_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        fs::write(&path, "0123456789").unwrap();
        fs::write(Log::index(&path), "7 e 2 3\nbroken\n9 o 99 1\n8 o 5").unwrap();
        let mut entries = Entries::open(&path).unwrap();
        let mut next = || entries.next(10, true).unwrap().map(|chunk| (chunk.time, chunk.from, chunk.to));
        assert_eq!(next(), Some((Some(7), 0, 5)));
        assert_eq!(next(), Some((None, 5, 10)));
        assert_eq!(next(), None);
    }
}

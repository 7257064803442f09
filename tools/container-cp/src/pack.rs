//! Writes a file, or a directory with its content, as a tar.

use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use archive::{Entry, Kind, Shown, Time, Writer};
use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, fstat, openat, readlinkat, statat},
    io::Errno,
};
use toolkit::prelude::*;

use super::root::{Root, kind};

/// How many bytes a file may have that tells no size.
const MOST_UNSIZED: u64 = 16 << 20;

/// The source of a copy.
#[derive(Debug)]
pub(crate) struct Source {
    /// The directory of the source, and the name in it.
    above: OwnedFd,
    name_there: OsString,
    /// The default name of the copy. Empty if only the content of a directory is copied.
    pub(crate) name: OsString,
    stat: Stat,
}

impl Source {
    /// Finds the source. A symbolic link is copied as a link, unless `follow` is set or the path ends with a
    /// slash.
    pub(crate) fn find(root: &Root, path: &Path, follow: bool) -> Result<Self> {
        let failed = |errno: Errno| {
            anyhow::Error::from(operation::Error::new("open", format_args!("{path:?}"), errno))
        };
        let text = path.as_os_str().as_bytes();
        let is_content = text.ends_with(b"/.") || text == b"." || path.file_name().is_none();
        let needs_directory = is_content || text.ends_with(b"/");
        let (above, name_there) = if is_content {
            (root.open(path, OFlags::PATH | OFlags::DIRECTORY).map_err(failed)?, OsString::from("."))
        } else if follow || needs_directory {
            let (_, name, above) = root.last(path).map_err(failed)?;
            (above, name.into())
        } else {
            let above = path.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let name = path.file_name().unwrap_or_default().to_owned();
            (root.open(above, OFlags::PATH | OFlags::DIRECTORY).map_err(failed)?, name)
        };
        let stat = statat(&above, &name_there, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
        if needs_directory && kind(&stat) != FileType::Directory {
            return Err(failed(Errno::NOTDIR));
        }
        // The copy of a followed link has the link's name, as with Docker.
        let name = if is_content { OsString::new() } else { path.file_name().unwrap_or_default().to_owned() };
        Ok(Self { above, name_there, name, stat })
    }

    pub(crate) fn is_directory(&self) -> bool {
        kind(&self.stat) == FileType::Directory
    }
}

/// A directory that is being written.
struct Level {
    directory: OwnedFd,
    path: Vec<u8>,
    /// The names that are still to be written.
    names: std::vec::IntoIter<Vec<u8>>,
}

pub(crate) struct Packer<'a, W: Write> {
    root: &'a Root,
    writer: Writer<W>,
    /// The first path of each file with several names, by device and inode.
    links: HashMap<(u64, u64), Vec<u8>>,
}

/// For `map_err`: the error of `verb` on a file in the copy.
fn on<E: Into<operation::Cause>>(verb: &'static str, path: &[u8]) -> impl FnOnce(E) -> anyhow::Error {
    let name = Shown::new(path);
    move |cause| operation::Error::new(verb, name, cause).into()
}

fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() { name.to_vec() } else { [directory, b"/", name].concat() }
}

impl<'a, W: Write> Packer<'a, W> {
    pub(crate) fn new(root: &'a Root, out: W) -> Self {
        Self { root, writer: Writer::new(out), links: HashMap::new() }
    }

    /// Writes the whole source under the name `name`. An empty name writes the content of a directory.
    pub(crate) fn run(mut self, source: &Source, name: &OsStr) -> Result<()> {
        let name_there = source.name_there.as_bytes();
        // Not by recursion: a container decides how deep its directories are.
        let mut levels = Vec::new();
        levels.extend(self.pack(&source.above, name_there, name.as_bytes().to_vec(), &source.stat)?);
        while let Some(Level { directory, path, names }) = levels.last_mut() {
            let Some(name) = names.next() else {
                levels.pop();
                continue;
            };
            let path = join(path, &name);
            let found = match statat(&*directory, &name[..], AtFlags::SYMLINK_NOFOLLOW) {
                // The file was removed in the meantime.
                Err(Errno::NOENT) => continue,
                found => found.map_err(on("look at", &path))?,
            };
            let below = self.pack(directory, &name, path, &found)?;
            levels.extend(below);
        }
        self.writer.finish().context("write the tar")?;
        Ok(())
    }

    /// Writes one entry. Returns the level below if it is a directory.
    fn pack(&mut self, above: &OwnedFd, name: &[u8], path: Vec<u8>, stat: &Stat) -> Result<Option<Level>> {
        match kind(stat) {
            FileType::Directory => return self.directory(above, name, path).map(Some),
            FileType::Socket => {
                operation::tell!("container-cp: warning: socket {} is left out", Shown::new(&path));
            }
            other => self.file(above, name, path, stat, other)?,
        }
        Ok(None)
    }

    fn directory(&mut self, above: &OwnedFd, name: &[u8], path: Vec<u8>) -> Result<Level> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = openat(above, name, flags, Mode::empty()).map_err(on("open", &path))?;
        let stat = fstat(&directory).map_err(on("look at", &path))?;
        let shown = if path.is_empty() { b"./".to_vec() } else { [&path[..], b"/"].concat() };
        self.put(&self.plain(Kind::Directory, shown, &stat))?;
        let names = names(&directory).map_err(on("read", &path))?.into_iter();
        Ok(Level { directory, path, names })
    }

    fn file(
        &mut self,
        above: &OwnedFd,
        name: &[u8],
        path: Vec<u8>,
        stat: &Stat,
        kind: FileType,
    ) -> Result<()> {
        if stat.st_nlink > 1 {
            if let Some(link) = self.links.get(&(stat.st_dev, stat.st_ino)).cloned() {
                return self.put(&Entry { link, ..self.plain(Kind::HardLink, path, stat) });
            }
            self.links.insert((stat.st_dev, stat.st_ino), path.clone());
        }
        match kind {
            FileType::RegularFile => return self.content(above, name, &path),
            FileType::Symlink => {
                let link = readlinkat(above, name, Vec::new()).map_err(on("read", &path))?.into_bytes();
                return self.put(&Entry { link, ..self.plain(Kind::Symlink, path, stat) });
            }
            _ => {}
        }
        let kind = match kind {
            FileType::CharacterDevice => Kind::CharDevice,
            FileType::BlockDevice => Kind::BlockDevice,
            _ => Kind::Fifo,
        };
        let device = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        self.put(&Entry { device, ..self.plain(kind, path, stat) })
    }

    fn content(&mut self, above: &OwnedFd, name: &[u8], path: &[u8]) -> Result<()> {
        // Opening must not block, even if the file was replaced, for example by a FIFO.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = openat(above, name, flags, Mode::empty()).map_err(on("open", path))?;
        let stat = fstat(&file).map_err(on("look at", path))?;
        if kind(&stat) != FileType::RegularFile {
            return Err(on("read", path)("it changed while it was read".to_owned()));
        }
        let mut entry = self.plain(Kind::File, path.to_vec(), &stat);
        let file = File::from(file);
        if stat.st_size == 0 {
            return self.unsized_content(file, entry);
        }
        entry.size = stat.st_size.unsigned_abs();
        entry.stored = entry.size;
        self.put(&entry)?;
        let mut file = file.take(entry.size);
        let copied = io::copy(&mut file, self.writer.get_mut()).map_err(on("copy", path))?;
        let missing = entry.size - copied;
        if missing > 0 {
            operation::tell!(
                "container-cp: warning: {} became shorter while it was read: {missing} bytes are zeros",
                Shown::new(path)
            );
            io::copy(&mut io::repeat(0).take(missing), self.writer.get_mut()).map_err(on("copy", path))?;
        }
        Ok(())
    }

    /// The kernel tells no size of its own files, such as those of procfs: they are read to know it. What cannot be
    /// read is copied as an empty file, with a warning.
    fn unsized_content(&mut self, file: File, mut entry: Entry) -> Result<()> {
        let mut content = Vec::new();
        let read = file.take(MOST_UNSIZED + 1).read_to_end(&mut content);
        let cause = match read {
            Ok(length) if length as u64 > MOST_UNSIZED => {
                Some(format!("it has no known size, and more than {MOST_UNSIZED} bytes"))
            }
            read => read.err().map(|error| error.to_string()),
        };
        if let Some(cause) = cause {
            let name = Shown::new(&entry.path);
            operation::tell!("container-cp: warning: the copy of {name} is empty: {cause}");
            content.clear();
        }
        entry.size = content.len() as u64;
        entry.stored = entry.size;
        self.put(&entry)?;
        self.writer.get_mut().write_all(&content).map_err(on("copy", &entry.path))
    }

    fn put(&mut self, entry: &Entry) -> Result<()> {
        self.writer.entry(entry).context("write the tar")
    }

    fn plain(&self, kind: Kind, path: Vec<u8>, stat: &Stat) -> Entry {
        let mtime = Time { seconds: stat.st_mtime, nanoseconds: stat.st_mtime_nsec as u32 };
        let (uid, gid) = self.root.ids.inside((stat.st_uid, stat.st_gid));
        Entry { mode: stat.st_mode & 0o7777, uid, gid, mtime, ..Entry::new(kind, path) }
    }
}

/// The names in the directory, sorted.
fn names(directory: impl AsFd) -> Result<Vec<Vec<u8>>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

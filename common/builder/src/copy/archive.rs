//! ADD of a local archive: a tar file, plain or compressed with gzip, bzip2, xz or zstd, told by its content.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write},
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Component, Path, PathBuf},
};

use layer::archive::{Entry, Kind, Reader};
use rustix::fs::{FileType, Timespec};

use super::{CopyError, Metadata, Owner, Place, place};

/// The decompressed file.
fn decompressed(file: File) -> io::Result<Box<dyn BufRead>> {
    let mut file = BufReader::with_capacity(1 << 17, file);
    let magic = file.fill_buf()?;
    Ok(match magic {
        [0x1f, 0x8b, ..] => buffered(flate2::bufread::MultiGzDecoder::new(file)),
        [b'B', b'Z', b'h', ..] => buffered(bzip2::bufread::MultiBzDecoder::new(file)),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => buffered(lzma_rust2::XzReader::new(file, true)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => buffered(zstd::stream::read::Decoder::with_buffer(file)?),
        _ => Box::new(file),
    })
}

fn buffered(reader: impl Read + 'static) -> Box<dyn BufRead> {
    Box::new(BufReader::with_capacity(1 << 17, reader))
}

/// Whether a file is an archive: its first block, decompressed, is the header of a tar entry.
pub(super) fn is_archive(file: &File) -> bool {
    let first = || -> io::Result<bool> {
        let mut copy = file.try_clone()?;
        copy.seek(SeekFrom::Start(0))?;
        let mut block = [0; 512];
        decompressed(copy)?.read_exact(&mut block)?;
        Ok(has_checksum(&block))
    };
    let found = first().unwrap_or(false);
    let mut file = file;
    file.seek(SeekFrom::Start(0)).is_ok() && found
}

/// A tar header says the sum of its bytes, its own eight taken for spaces (POSIX pax, "ustar Interchange Format").
fn has_checksum(block: &[u8; 512]) -> bool {
    let text = String::from_utf8_lossy(&block[148..156]).into_owned();
    let stated = u32::from_str_radix(text.trim_matches(['\0', ' ']), 8);
    let sum = |from: &[u8]| from.iter().map(|byte| u32::from(*byte)).sum::<u32>();
    stated.is_ok_and(|stated| stated == sum(&block[..148]) + sum(&block[156..]) + 8 * 32)
}

/// Unpacks an archive below `target`. Owners are those of the archive, unless `owner` gives one.
pub(super) fn unpack(
    file: File,
    path: &Path,
    target: &Path,
    owner: Option<Owner>,
    place: &Place,
) -> Result<(), CopyError> {
    let failed = |source: io::Error| CopyError::Archive { path: path.to_owned(), source };
    let mut archive = Reader::new(decompressed(file).map_err(failed)?);
    place.ensure(target)?;
    loop {
        let entry = archive.next().map_err(|error| failed(io::Error::other(error)))?;
        let Some(entry) = entry else { return Ok(()) };
        let Some(name) = inside(&entry.path) else { continue };
        let at = target.join(&name);
        let metadata = metadata(&entry, owner);
        let link = OsStr::from_bytes(&entry.link);
        let device = rustix::fs::makedev(entry.device.0, entry.device.1);
        match entry.kind {
            Kind::File => {
                place.file(&at, &metadata, &mut Content { archive: &mut archive, entry: &entry })?
            }
            Kind::Directory if name.as_os_str().is_empty() => {}
            Kind::Directory => place.directory(&at, &metadata)?,
            Kind::Symlink => place.symlink(&at, &metadata, link)?,
            Kind::HardLink => place.hard_link(&at, &target.join(inside(&entry.link).unwrap_or_default()))?,
            Kind::CharDevice => place.node(&at, &metadata, FileType::CharacterDevice, device)?,
            Kind::BlockDevice => place.node(&at, &metadata, FileType::BlockDevice, device)?,
            Kind::Fifo => place.node(&at, &metadata, FileType::Fifo, 0)?,
        }
    }
}

/// An entry's name below the target; none for one that would leave it.
fn inside(name: &[u8]) -> Option<PathBuf> {
    let mut path = PathBuf::new();
    for part in Path::new(OsStr::from_bytes(name)).components() {
        match part {
            Component::Normal(part) => path.push(part),
            Component::ParentDir => path.pop().then_some(())?,
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Some(path)
}

fn metadata(entry: &Entry, owner: Option<Owner>) -> Metadata {
    let xattrs =
        entry.xattrs.iter().map(|(name, value)| (std::ffi::OsString::from_vec(name.clone()), value.clone()));
    Metadata {
        mode: entry.mode,
        owner: owner.unwrap_or(Owner { uid: entry.uid, gid: entry.gid }),
        modified: Some(Timespec { tv_sec: entry.mtime.seconds, tv_nsec: entry.mtime.nanoseconds.into() }),
        xattrs: xattrs.filter(|(name, _)| place::is_portable(name)).collect(),
    }
}

/// The data of one entry.
struct Content<'a> {
    archive: &'a mut Reader<Box<dyn BufRead>>,
    entry: &'a Entry,
}

impl Content<'_> {
    fn copy(&mut self, file: &mut File, mut length: u64) -> io::Result<()> {
        while length > 0 {
            let data = self.archive.data().map_err(io::Error::other)?;
            let take = usize::try_from(length).map_or(data.len(), |length| length.min(data.len()));
            if take == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            file.write_all(&data[..take])?;
            self.archive.consume(take);
            length -= take as u64;
        }
        Ok(())
    }
}

impl place::Source for Content<'_> {
    fn write_to(&mut self, file: &mut File) -> io::Result<()> {
        let Some(segments) = &self.entry.sparse else { return self.copy(file, self.entry.size) };
        for segment in segments {
            file.seek(SeekFrom::Start(segment.offset))?;
            self.copy(file, segment.length)?;
        }
        file.set_len(self.entry.size)
    }
}

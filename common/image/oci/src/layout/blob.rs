//! Blobs. They are checked while they are read. A new blob is written to an unnamed file, then linked into
//! place.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Read, Write},
    os::{
        fd::{AsFd, AsRawFd},
        unix::fs::FileExt,
    },
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use oci_spec::image::{Descriptor, MediaType};
use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT},
    io::Errno,
};

use super::{Error, Layout, of_store};
use crate::digest::{Algorithm, Digest, Hasher, Mismatch, Verifying};

/// Large enough that system calls cost little, small enough for the processor's cache.
const BUFFER: usize = 256 << 10;

/// Opens a regular file. Anything else is rejected, without waiting at a FIFO or touching a device.
pub(crate) fn open_regular(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
    }
}

/// A reader that checks the blob: see [`Layout::blob_reader`].
pub type BlobReader = Verifying<File>;

pub(super) fn open(layout: &Layout, descriptor: &Descriptor) -> Result<BlobReader, Error> {
    let digest = Digest::try_from(descriptor.digest())?;
    let file = open_unchecked(layout, descriptor)?;
    Ok(Verifying::held_by(layout.holder.clone(), file, digest, descriptor.size()))
}

/// Opens a blob and checks only its size.
pub(super) fn open_unchecked(layout: &Layout, descriptor: &Descriptor) -> Result<File, Error> {
    let digest = Digest::try_from(descriptor.digest())?;
    let path = layout.blob_path(&digest);
    let file = match open_regular(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Error::NoBlob(digest)),
        Err(error) => return Err(Error::io("open", path)(error)),
    };
    let found = file.metadata().map_err(Error::io("open", path))?.len();
    if found != descriptor.size() {
        let mismatch = Mismatch::Size { digest, expected: descriptor.size(), found, more: false };
        return Err(mismatch.held_by(&layout.holder).into());
    }
    let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Sequential);
    Ok(file)
}

/// A blob being written. Until it is committed it has no name (`O_TMPFILE`), or a temporary one if the file
/// system needs a name. Dropping the writer leaves nothing behind.
#[derive(Debug)]
pub struct BlobWriter {
    layout: Layout,
    file: BufWriter<File>,
    temporary: Option<Temporary>,
    hasher: Hasher,
    size: u64,
    expected: Option<(Digest, u64)>,
}

/// The path of a temporary file, removed on drop.
#[derive(Debug)]
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// A unique temporary path next to the blobs' directories.
pub(super) fn temporary_name(layout: &Layout) -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let (pid, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    layout.path().join(format!(".new-{pid}-{count}-{}", nanoseconds()))
}

/// The current time. It tells apart two processes with the same pid, one after the other or in two pid
/// namespaces.
fn nanoseconds() -> u128 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.unwrap_or_default().as_nanos()
}

impl BlobWriter {
    pub(super) fn new(
        layout: &Layout,
        algorithm: Algorithm,
        expected: Option<(Digest, u64)>,
    ) -> Result<Self, Error> {
        layout.note_writing()?;
        layout.watch_the_disk();
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let (file, temporary) = match rustix::fs::open(layout.path(), flags, Mode::from_raw_mode(0o644)) {
            Ok(file) => (File::from(file), None),
            // File systems and kernels without O_TMPFILE answer this.
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {
                let path = temporary_name(layout);
                let file = File::options().read(true).write(true).create_new(true).open(&path);
                (file.map_err(Error::io("create", &path))?, Some(Temporary(path)))
            }
            Err(error) => return Err(Error::io("create a blob in", layout.path())(error.into())),
        };
        let (layout, file) = (layout.clone(), BufWriter::with_capacity(BUFFER, file));
        Ok(Self { layout, file, temporary, hasher: Hasher::new(algorithm), size: 0, expected })
    }

    /// The number of bytes written so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The file under construction, for readers that read the blob by offset while it grows. Only flushed
    /// bytes can be read. The content is not checked before [`BlobWriter::seal`].
    ///
    /// # Errors
    /// When the system has no more descriptors.
    pub fn file(&self) -> io::Result<File> {
        self.file.get_ref().try_clone()
    }

    /// Writes everything from `source`. Returns the number of bytes.
    ///
    /// # Errors
    /// When `source` cannot be read or the blob cannot be written.
    pub fn copy_from(&mut self, source: &mut impl Read) -> io::Result<u64> {
        let mut buffer = vec![0; BUFFER];
        let before = self.size;
        loop {
            match source.read(&mut buffer) {
                Ok(0) => return Ok(self.size - before),
                Ok(count) => self.write_all(&buffer[..count])?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Checks that the content so far matches the descriptor given to [`Layout::writer_of`].
    ///
    /// # Errors
    /// The difference.
    pub fn check(&self) -> Result<(), Mismatch> {
        self.compare(self.hasher.clone().finish()).map(drop)
    }

    fn compare(&self, found: Digest) -> Result<Digest, Mismatch> {
        match self.expected.clone() {
            Some((digest, expected)) if self.size != expected => {
                Err(Mismatch::Size { digest, expected, found: self.size, more: false })
            }
            Some((expected, _)) if found != expected => Err(Mismatch::Digest { expected, found }),
            _ => Ok(found),
        }
    }

    /// Ends the blob without moving it into place.
    ///
    /// # Errors
    /// When the blob cannot be written, or does not match the descriptor given to [`Layout::writer_of`].
    pub fn seal(self) -> Result<SealedBlob, Error> {
        let found = self.compare(self.hasher.clone().finish())?;
        let Self { layout, file, temporary, size, .. } = self;
        let place = layout.blob_path(&found);
        let file = file.into_inner().map_err(|error| Error::io("write", place)(error.into_error()))?;
        Ok(SealedBlob { layout, file, temporary, digest: found, size })
    }

    /// Ends the blob and moves it into place. It may exist already. Returns its digest and its size in bytes.
    ///
    /// # Errors
    /// Those of [`BlobWriter::seal`] and [`SealedBlob::commit`]; nothing is then left behind.
    pub fn commit(self) -> Result<(Digest, u64), Error> {
        let sealed = self.seal()?;
        let (digest, size) = (sealed.digest.clone(), sealed.size);
        sealed.commit()?;
        Ok((digest, size))
    }

    /// Like [`BlobWriter::commit`], but returns a descriptor with this media type.
    ///
    /// # Errors
    /// Those of [`BlobWriter::commit`].
    pub fn commit_as(self, media_type: MediaType) -> Result<Descriptor, Error> {
        let (digest, size) = self.commit()?;
        Ok(Descriptor::new(media_type, size, digest))
    }
}

impl Write for BlobWriter {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        if let Some((digest, expected)) = &self.expected
            && self.size + buffer.len() as u64 > *expected
        {
            let (digest, expected) = (digest.clone(), *expected);
            let mismatch = Mismatch::Size { digest, expected, found: expected, more: true };
            return Err(io::Error::new(io::ErrorKind::InvalidData, mismatch));
        }
        let count = self.file.write(buffer).map_err(of_store)?;
        self.hasher.update(&buffer[..count]);
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush().map_err(of_store)
    }
}

/// A complete blob that is not in place yet. Dropping it leaves nothing behind.
#[derive(Debug)]
pub struct SealedBlob {
    layout: Layout,
    file: File,
    temporary: Option<Temporary>,
    digest: Digest,
    size: u64,
}

impl SealedBlob {
    /// The blob's digest.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The blob's size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Reads up to `length` bytes from the start of the blob.
    ///
    /// # Errors
    /// When the blob cannot be read.
    pub fn read_start(&self, length: u64) -> io::Result<Vec<u8>> {
        let mut content = vec![0; usize::try_from(length.min(self.size)).unwrap_or(0)];
        self.file.read_exact_at(&mut content, 0)?;
        Ok(content)
    }

    /// A reader from the start of the blob. All readers share one position, so use one at a time.
    ///
    /// # Errors
    /// When the system cannot duplicate or rewind the file.
    pub fn reader(&self) -> io::Result<impl Read + use<>> {
        let mut file = self.file.try_clone()?;
        io::Seek::rewind(&mut file)?;
        Ok(file)
    }

    /// Moves the blob into place. It may exist already.
    ///
    /// # Errors
    /// When the file cannot be linked into place.
    pub fn commit(self) -> Result<(), Error> {
        // An existing blob that a power cut may have damaged is replaced.
        if self.layout.blob_size(&self.digest)? == Some(self.size) && self.layout.is_trusted(&self.digest)? {
            self.layout.touch_blob(&self.digest);
            return Ok(());
        }
        self.put()
    }

    /// Moves the blob into place and replaces any file there.
    pub(super) fn put(self) -> Result<(), Error> {
        let place = self.layout.blob_path(&self.digest);
        link(&self.layout, &self.file, self.temporary, &place)?;
        self.layout.trust(self.digest);
        Ok(())
    }
}

impl Layout {
    /// Makes an existing blob look new, so that garbage collection keeps it until something refers to it. If
    /// the system does not allow this, the blob is left as it is.
    pub fn touch_blob(&self, digest: &Digest) {
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        let times =
            Timestamps { last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT }, last_modification: now };
        let _ = rustix::fs::utimensat(CWD, self.blob_path(digest), &times, AtFlags::empty());
    }
}

/// Gives the file its name. It is not synced here: one sync covers all blobs of a command, before the image
/// gets its name ([`super::sync`]).
fn link(layout: &Layout, file: &File, temporary: Option<Temporary>, place: &Path) -> Result<(), Error> {
    layout.note_unsynced();
    if let Some(directory) = place.parent() {
        operation::make_directories(directory, 0o777).map_err(Error::io("create directory", directory))?;
    }
    if let Some(temporary) = temporary {
        return fs::rename(&temporary.0, place).map_err(Error::io("create", place));
    }
    match link_nameless(file, place) {
        Ok(()) => return Ok(()),
        Err(Errno::EXIST) => {}
        Err(error) => return Err(Error::io("create", place)(error.into())),
    }
    let temporary = Temporary(temporary_name(layout));
    link_nameless(file, &temporary.0).map_err(|error| Error::io("create", &temporary.0)(error.into()))?;
    fs::rename(&temporary.0, place).map_err(Error::io("create", place))
}

/// Links an unnamed file through `/proc`, as open(2) describes for `O_TMPFILE`. Without `/proc` the
/// descriptor itself is linked, which needs CAP_DAC_READ_SEARCH.
fn link_nameless(file: &File, place: &Path) -> Result<(), Errno> {
    let name = format!("/proc/self/fd/{}", file.as_raw_fd());
    match rustix::fs::linkat(CWD, name.as_str(), CWD, place, AtFlags::SYMLINK_FOLLOW) {
        Err(Errno::NOENT) => rustix::fs::linkat(file.as_fd(), "", CWD, place, AtFlags::EMPTY_PATH),
        result => result,
    }
}

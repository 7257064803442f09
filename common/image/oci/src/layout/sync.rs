//! What a power cut may take, and what not: docs/store.md says it to users.
//!
//! A change is promised to last once it was reported. It costs one `syncfs` for each command, whatever the command wrote:
//! blobs and the new list go to the disk together, then the list takes its name, then that name goes to the disk. A list
//! that the disk has therefore never names a blob that the disk has not.

use std::{fs::File, io, sync::atomic::Ordering};

use rustix::fs::{Mode, OFlags};

use super::{Error, Layout};

impl Layout {
    /// Whether what is changed from here on is synced. Without, a power cut may lose the store: for stores that nobody
    /// will miss.
    #[must_use]
    pub fn with_sync(self, sync: bool) -> Self {
        Self { sync, ..self }
    }

    /// Makes the blobs last that were written. A change of a name does so itself: this is for who names none. Costs nothing
    /// where no blob was new.
    ///
    /// # Errors
    /// When the disk refuses what was written.
    pub fn sync_blobs(&self) -> Result<(), Error> {
        match self.unsynced.load(Ordering::Relaxed) {
            true => self.sync_everything(),
            false => Ok(()),
        }
    }

    /// Notes that there is a new blob.
    pub(super) fn note_unsynced(&self) {
        self.unsynced.store(true, Ordering::Relaxed);
    }

    /// All that was written to the file system of the store, by whomever: contents and names.
    pub(crate) fn sync_everything(&self) -> Result<(), Error> {
        if !self.sync {
            return Ok(());
        }
        let sync = || -> io::Result<()> { Ok(rustix::fs::syncfs(self.open_directory()?)?) };
        sync().map_err(Error::io("sync", &self.path))?;
        self.unsynced.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// The names in the layout's own directory.
    pub(super) fn sync_names(&self) -> Result<(), Error> {
        if !self.sync {
            return Ok(());
        }
        let synced = self.open_directory().and_then(|directory| directory.sync_all());
        match synced {
            // What some network file systems answer, which have nothing to do there.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
            synced => synced.map_err(Error::io("sync", &self.path)),
        }
    }

    /// The content of a file that gets its name next.
    pub(super) fn sync_file(&self, file: &File) -> io::Result<()> {
        if self.sync { file.sync_all() } else { Ok(()) }
    }

    fn open_directory(&self) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(rustix::fs::open(&self.path, flags, Mode::empty())?.into())
    }
}

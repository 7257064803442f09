//! What a power cut can destroy, and what it cannot. docs/store.md explains it to users.
//!
//! A change is durable once it has been reported. This costs one `syncfs` per command. Blobs and the new list
//! go to the disk together, then the list gets its name, then that name goes to the disk. So a list on the
//! disk never names a blob that is not on the disk.

use std::{fs::File, io, sync::atomic::Ordering};

use rustix::fs::{Mode, OFlags};

use super::{Error, Layout};

impl Layout {
    /// Sets whether further changes are synced. Without sync, a power cut may destroy the store: only for
    /// stores that can be lost.
    #[must_use]
    pub fn with_sync(self, sync: bool) -> Self {
        Self { sync, ..self }
    }

    /// Makes all written blobs durable. A change of a name does this too; this method is for commands that
    /// give no name. It does nothing if no blob was written.
    ///
    /// # Errors
    /// When the disk rejects the data.
    pub fn sync_blobs(&self) -> Result<(), Error> {
        match self.unsynced.load(Ordering::Relaxed) {
            true => self.sync_everything(),
            false => Ok(()),
        }
    }

    /// Opens what [`Layout::sync_everything`] syncs, before something is written. The kernel reports an error of
    /// the disk once to each descriptor that was open before: a sync of another program does not hide it then
    /// (syncfs(2)).
    pub(super) fn watch_the_disk(&self) {
        if self.sync
            && self.watched.get().is_none()
            && let Ok(directory) = self.open_directory()
        {
            let _ = self.watched.set(directory);
        }
    }

    /// Notes that a new blob was written.
    pub(super) fn note_unsynced(&self) {
        self.unsynced.store(true, Ordering::Relaxed);
    }

    /// Syncs everything on the store's file system, whichever process wrote it.
    pub(crate) fn sync_everything(&self) -> Result<(), Error> {
        if !self.sync {
            return Ok(());
        }
        let _status = operation::Status::last("waiting for the disk");
        let sync = || -> io::Result<()> {
            match self.watched.get() {
                Some(directory) => rustix::fs::syncfs(directory)?,
                None => rustix::fs::syncfs(self.open_directory()?)?,
            }
            Ok(())
        };
        sync().map_err(Error::io("sync", &self.path))?;
        self.unsynced.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Syncs the names in the layout's own directory.
    pub(super) fn sync_names(&self) -> Result<(), Error> {
        if !self.sync {
            return Ok(());
        }
        let synced = self.open_directory().and_then(|directory| directory.sync_all());
        match synced {
            // Some network file systems answer this: they have nothing to sync there.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
            synced => synced.map_err(Error::io("sync", &self.path)),
        }
    }

    /// Syncs the content of a file that gets its name next.
    pub(super) fn sync_file(&self, file: &File) -> io::Result<()> {
        if self.sync { file.sync_all() } else { Ok(()) }
    }

    fn open_directory(&self) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(rustix::fs::open(&self.path, flags, Mode::empty())?.into())
    }
}

use std::{
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags, openat, unlinkat},
    io::Errno,
};

use crate::{Result, failed};

/// The directory of the streams, below `$STAVE_RUN`.
pub(crate) const STREAMS: &str = "streams";

/// The directory with the socket of a container, `$STAVE_RUN`, where its record is. Its streams are in `streams` below.
#[derive(Debug)]
pub struct Place {
    directory: OwnedFd,
    path: PathBuf,
    id: String,
}

impl Place {
    /// Opens `run_dir` for the container `id`.
    ///
    /// # Errors
    /// When the directory cannot be opened.
    pub fn open(run_dir: &Path, id: &str) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = openat(CWD, run_dir, flags, Mode::empty())
            .map_err(failed("open", format_args!("directory {run_dir:?}")))?;
        Ok(Self { directory, path: run_dir.to_owned(), id: id.to_owned() })
    }

    pub(crate) fn try_clone(&self) -> Result<Self> {
        let directory =
            self.directory.try_clone().map_err(failed("open", format_args!("directory {:?}", self.path)))?;
        Ok(Self { directory, path: self.path.clone(), id: self.id.clone() })
    }

    /// Removes one of the container's files. A missing file is fine.
    pub(crate) fn remove(&self, suffix: &str) -> std::result::Result<(), Errno> {
        match unlinkat(self, self.name(suffix), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// The name of one of the container's files.
    pub(crate) fn name(&self, suffix: &str) -> String {
        format!("{}.{suffix}", self.id)
    }

    /// The name of one of the container's streams. Only the directory protects it: the stream belongs to the user of
    /// the container's process, who decides about its mode.
    pub(crate) fn stream(&self, suffix: &str) -> String {
        format!("{STREAMS}/{}", self.name(suffix))
    }

    /// Removes one of the container's streams, also where earlier versions made it.
    pub(crate) fn remove_stream(&self, suffix: &str) -> std::result::Result<(), Errno> {
        match unlinkat(self, self.stream(suffix), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => self.remove(suffix),
            Err(errno) => Err(errno),
        }
    }

    /// The path of one of the container's streams, quoted for messages.
    pub(crate) fn shown_stream(&self, suffix: &str) -> String {
        format!("{:?}", self.path.join(self.stream(suffix)))
    }

    /// The path of one of the container's files, quoted for messages.
    pub(crate) fn shown(&self, suffix: &str) -> String {
        format!("{:?}", self.path.join(self.name(suffix)))
    }

    /// A short path of the file, for a socket address: that has at most 107 bytes, however long the
    /// directory's path is.
    pub(crate) fn short(&self, suffix: &str) -> PathBuf {
        format!("/proc/self/fd/{}/{}", self.directory.as_raw_fd(), self.name(suffix)).into()
    }
}

impl AsFd for Place {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

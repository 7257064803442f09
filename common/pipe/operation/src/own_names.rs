//! Names of sockets that no other user can take.
//!
//! Any process of a network namespace can take an abstract name. Where one that is not believed has it, the name's owner
//! uses a file instead, in a directory that only root can enter. There is one for each network namespace, for all run
//! directories, as with abstract names.

use std::os::{
    fd::{AsFd, AsRawFd, OwnedFd},
    unix::fs::MetadataExt,
};

use rustix::{
    fs::{AtFlags, CWD, FlockOperation, Mode, OFlags, flock, fstat, mkdirat, openat, unlinkat},
    io::{Errno, retry_on_intr},
    net::SocketAddrUnix,
    process::geteuid,
};

/// The directory of all network namespaces. Only root can make it.
const PLACE: &str = "/run/stave-sockets";

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The directory of this thread's network namespace.
#[derive(Debug)]
pub(crate) struct OwnNames {
    directory: OwnedFd,
    namespace: String,
}

impl OwnNames {
    /// Opens the directory. None if there is none, or if others may enter it.
    ///
    /// # Errors
    /// When it is unknown whether there is one.
    pub(crate) fn find() -> Result<Option<Self>, Errno> {
        match Self::open() {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::ACCESS | Errno::PERM) => Ok(None),
            found => found.map(Some),
        }
    }

    /// Makes the directory, if it is missing.
    ///
    /// # Errors
    /// When it cannot be made: by an ordinary user, or on a read-only file system.
    pub(crate) fn make() -> Result<Self, Errno> {
        unless_there(mkdirat(CWD, PLACE, Mode::RWXU))?;
        let all = private(openat(CWD, PLACE, DIRECTORY, Mode::empty())?)?;
        unless_there(mkdirat(&all, namespace()?, Mode::RWXU))?;
        Self::open()
    }

    fn open() -> Result<Self, Errno> {
        // Most machines have none.
        let all = private(openat(CWD, PLACE, DIRECTORY, Mode::empty())?)?;
        let namespace = namespace()?;
        let directory = private(openat(&all, &namespace, DIRECTORY, Mode::empty())?)?;
        Ok(Self { directory, namespace })
    }

    /// The address of this name. It is valid as long as this value.
    ///
    /// # Errors
    /// When the name is too long.
    pub(crate) fn address(&self, name: &str) -> Result<SocketAddrUnix, Errno> {
        SocketAddrUnix::new(format!("/proc/self/fd/{}/{}", self.directory.as_raw_fd(), file(name)))
    }

    /// Waits until no other process changes the names, and keeps others out until this value is dropped.
    pub(crate) fn lock(&self) -> Result<(), Errno> {
        retry_on_intr(|| flock(&self.directory, FlockOperation::LockExclusive))
    }

    /// Removes a name, if it is there.
    pub(crate) fn remove(&self, name: &str) -> Result<(), Errno> {
        match unlinkat(&self.directory, file(name), AtFlags::empty()) {
            Err(Errno::NOENT) => Ok(()),
            removed => removed,
        }
    }

    /// Removes the directories, unless there are names in them.
    pub(crate) fn tidy(&self) {
        let removed = || {
            let all = openat(CWD, PLACE, DIRECTORY, Mode::empty())?;
            unlinkat(&all, &self.namespace, AtFlags::REMOVEDIR)?;
            unlinkat(CWD, PLACE, AtFlags::REMOVEDIR)
        };
        // Others may use them.
        let _: Result<(), Errno> = removed();
    }
}

fn unless_there(made: Result<(), Errno>) -> Result<(), Errno> {
    match made {
        Err(Errno::EXIST) => Ok(()),
        made => made,
    }
}

/// A directory that only this user can enter.
fn private(directory: OwnedFd) -> Result<OwnedFd, Errno> {
    let found = fstat(directory.as_fd())?;
    let is_open = Mode::from_raw_mode(found.st_mode).intersects(Mode::RWXG | Mode::RWXO);
    if found.st_uid == geteuid().as_raw() && !is_open { Ok(directory) } else { Err(Errno::ACCESS) }
}

/// The name of this thread's network namespace. As long as a process listens there, no other one has it.
fn namespace() -> Result<String, Errno> {
    let found = std::fs::metadata("/proc/thread-self/ns/net");
    let found = found.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::NOENT))?;
    Ok(found.ino().to_string())
}

/// The file of a name.
fn file(name: &str) -> String {
    name.replace('/', "|")
}

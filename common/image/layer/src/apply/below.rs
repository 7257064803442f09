//! The lower layers, seen as one file system.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use archive::Shown;
use rustix::{
    fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, openat, openat2, readlinkat, statat},
    io::Errno,
};

use super::{EntryError, Error, name};
use crate::overlay;

/// The lower layers: directories and images, in overlayfs's form.
#[derive(Debug, Default)]
pub struct Below {
    /// The highest layer first.
    roots: Vec<Arc<Root>>,
}

/// A layer that may still be being unpacked. Readers wait for it. The first reader opens it.
#[derive(Debug, Default)]
pub(crate) struct Root {
    /// The layer's place; None if it will never be ready.
    path: OnceLock<Option<PathBuf>>,
    opened: OnceLock<Result<OwnedFd, Arc<io::Error>>>,
}

impl Root {
    /// Notes that the layer is ready at `path`.
    pub(crate) fn stands(&self, path: &Path) {
        let _ = self.path.set(Some(path.to_owned()));
    }

    /// Notes that the layer will never be ready. Has no effect if it is ready already.
    pub(crate) fn fails(&self) {
        let _ = self.path.set(None);
    }

    fn wait(&self) -> Result<BorrowedFd<'_>, io::Error> {
        let Some(path) = self.path.wait() else {
            return Err(io::Error::other("a layer below could not be unpacked"));
        };
        let opened = self.opened.get_or_init(|| open_root(path).map_err(Arc::new));
        opened.as_ref().map(OwnedFd::as_fd).map_err(|error| match error.raw_os_error() {
            Some(number) => io::Error::from_raw_os_error(number),
            None => io::Error::new(error.kind(), error.clone()),
        })
    }
}

/// What the lower layers have at a path.
#[derive(Debug)]
pub(super) enum Found {
    Nothing,
    /// A directory, opened in the highest layer that has it.
    Directory(OwnedFd),
    /// The link's target, and its parent directory in the layer that has it.
    Symlink(Vec<u8>, OwnedFd),
    /// Any other file: its parent directory in the layer that has it.
    File(OwnedFd),
}

impl Below {
    /// The layers at these paths (directories or images), lowest first.
    ///
    /// # Errors
    /// When a layer is missing.
    pub fn open<P: AsRef<Path>>(lowest_first: &[P]) -> io::Result<Self> {
        let open = |path: &P| {
            path.as_ref().symlink_metadata()?;
            let root = Root::default();
            root.stands(path.as_ref());
            Ok(Arc::new(root))
        };
        Ok(Self { roots: lowest_first.iter().rev().map(open).collect::<io::Result<_>>()? })
    }

    /// Like [`Below::open`], for layers that may not be ready yet.
    pub(crate) fn coming(lowest_first: &[Arc<Root>]) -> Self {
        Self { roots: lowest_first.iter().rev().cloned().collect() }
    }

    /// What the lower layers have at `path`. Its parents must not be symbolic links there. Whiteouts and
    /// opaque directories are taken into account.
    pub(super) fn find(&self, path: &[u8]) -> Result<Found, EntryError> {
        for root in &self.roots {
            match find_in(wait(root, path)?, path).map_err(error("look for", path))? {
                InOne::Continue => {}
                InOne::Hidden => return Ok(Found::Nothing),
                InOne::Found(found) => return Ok(found),
            }
        }
        Ok(Found::Nothing)
    }

    /// The names in the root of the merged lower layers, sorted.
    pub(super) fn root_names(&self) -> Result<Vec<Vec<u8>>, EntryError> {
        let mut seen = std::collections::BTreeMap::new();
        for root in &self.roots {
            let root = wait(root, b".")?;
            let call = || -> rustix::io::Result<()> {
                let directory = open_directory(root, b".", OFlags::RDONLY)?;
                for entry in rustix::fs::Dir::read_from(&directory)? {
                    let name = entry?.file_name().to_bytes().to_vec();
                    if name != b"." && name != b".." && !seen.contains_key(&name) {
                        let stat = statat(&directory, &name[..], AtFlags::SYMLINK_NOFOLLOW)?;
                        seen.insert(name, !overlay::is_whiteout(&stat));
                    }
                }
                Ok(())
            };
            let mut call = call;
            call().map_err(error("read", b"."))?;
        }
        Ok(seen.into_iter().filter_map(|(name, there)| there.then_some(name)).collect())
    }
}

/// Opens a layer for examining it: its directory, or the root of its image, which is mounted privately.
pub(crate) fn open_root(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match openat(CWD, path, flags, Mode::empty()) {
        Err(Errno::NOTDIR) => mount::image(path).map(OwnedFd::from).map_err(io::Error::other),
        result => Ok(result?),
    }
}

fn wait<'a>(root: &'a Root, path: &[u8]) -> Result<BorrowedFd<'a>, EntryError> {
    root.wait().map_err(|source| {
        EntryError::Below(Box::new(Error::Below { verb: "look for", name: Shown::new(path), source }))
    })
}

/// For `map_err`: an error while doing `verb` on `path` in the lower layers.
pub(super) fn error(verb: &'static str, path: &[u8]) -> impl FnOnce(Errno) -> EntryError {
    move |source| {
        EntryError::Below(Box::new(Error::Below { verb, name: Shown::new(path), source: source.into() }))
    }
}

enum InOne {
    /// This layer does not have the path.
    Continue,
    /// This layer hides the path in the layers below it.
    Hidden,
    Found(Found),
}

fn open_directory(root: BorrowedFd, path: &[u8], access: OFlags) -> rustix::io::Result<OwnedFd> {
    let path = if path.is_empty() { b"." } else { path };
    let flags = access | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat2(root, path, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)
}

fn find_in(root: BorrowedFd, path: &[u8]) -> rustix::io::Result<InOne> {
    if path.is_empty() {
        return open_directory(root, b"", OFlags::RDONLY).map(|root| InOne::Found(Found::Directory(root)));
    }
    // Most paths exist, or have no parent in this layer. One call is enough for either.
    let (parent, name) = name::split(path);
    let directory = match open_directory(root, parent, OFlags::RDONLY) {
        Ok(directory) => directory,
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return blocked(root, parent),
        Err(error) => return Err(error),
    };
    let stat = match statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return blocked(root, parent),
        Err(error) => return Err(error),
    };
    Ok(match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            InOne::Found(Found::Directory(openat(&directory, name, flags, Mode::empty())?))
        }
        FileType::Symlink => {
            let target = readlinkat(&directory, name, Vec::new())?.into_bytes();
            InOne::Found(Found::Symlink(target, directory))
        }
        _ if overlay::is_whiteout(&stat) => InOne::Hidden,
        _ => InOne::Found(Found::File(directory)),
    })
}

/// Whether the layer hides `parent` of the layers below it, by an opaque directory on the way or by something
/// that is not a directory.
fn blocked(root: BorrowedFd, parent: &[u8]) -> rustix::io::Result<InOne> {
    let ends = parent.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
    for end in ends.chain([parent.len()]) {
        match open_directory(root, &parent[..end], OFlags::RDONLY) {
            Ok(directory) if !parent.is_empty() && overlay::is_opaque(&directory)? => {
                return Ok(InOne::Hidden);
            }
            Ok(_) => {}
            Err(Errno::NOENT) => return Ok(InOne::Continue),
            Err(Errno::NOTDIR | Errno::LOOP) => return Ok(InOne::Hidden),
            Err(error) => return Err(error),
        }
    }
    Ok(InOne::Continue)
}

//! Removes a tree that may be hostile: by descriptors, never across a mount, never through a symbolic link,
//! at any depth.

use std::{
    ffi::{CStr, CString, OsStr},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, RawDir, ResolveFlags, SeekFrom, openat2, renameat, unlinkat},
    io::Errno,
};

use operation::Place;

use crate::{Error, Result, detached::EntryBuffer, error::on, resolve};

/// Directories deeper than this are moved up before they are emptied, so that neither descriptors nor the
/// stack run out.
const DEEPEST: usize = 64;

/// Removes the absolute `path`, with everything below it if it is a directory. A missing path is not an
/// error. Continues after errors. Mounts stay, and are errors.
///
/// # Errors
/// The first error.
pub fn remove(path: &Path) -> Result<()> {
    let (directory, name) = match resolve::parent(path) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        result => result.map_err(on("open the directory of", path))?,
    };
    let Ok(name) = CString::new(name.as_bytes()) else { return Ok(()) };
    let refused = match unlinkat(&directory, &name, AtFlags::empty()) {
        Err(errno @ (Errno::ISDIR | Errno::PERM)) => errno,
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(on("remove", path)(errno)),
    };
    let top = match open_directory(directory.as_fd(), &name) {
        Err(Errno::NOENT) => return Ok(()),
        // It is not a directory, so unlinkat(2) had another reason.
        Err(Errno::NOTDIR) => return Err(on("remove", path)(refused)),
        result => result.map_err(on("remove", path))?,
    };
    let mut removal = Removal { top: top.as_fd(), moved: 0, first_error: None };
    removal.all_below();
    let error = removal.first_error.take();
    drop(top);
    match (error, unlinkat(&directory, &name, AtFlags::REMOVEDIR)) {
        (Some((name, errno)), _) => {
            let name = OsStr::from_bytes(name.to_bytes());
            Err(Error::new("remove", format_args!("{name:?} in {path:?}"), errno).of(Place::Store))
        }
        (None, Ok(()) | Err(Errno::NOENT)) => Ok(()),
        (None, Err(errno)) => Err(on("remove", path)(errno)),
    }
}

struct Removal<'fd> {
    top: BorrowedFd<'fd>,
    /// How many directories were moved up to `top`.
    moved: u64,
    first_error: Option<(CString, Errno)>,
}

impl Removal<'_> {
    fn all_below(&mut self) {
        let mut before = None;
        loop {
            self.empty(self.top, 0);
            // Directories that were moved up are emptied in the next round.
            if before == Some(self.moved) || self.moved == 0 || self.first_error.is_some() {
                return;
            }
            before = Some(self.moved);
        }
    }

    /// Removes the content of `directory`.
    fn empty(&mut self, directory: BorrowedFd<'_>, depth: usize) {
        let mut below = Vec::new();
        if let Err(errno) = self.files_of(directory, &mut below) {
            self.note(c".", errno);
        }
        for name in below {
            match self.directory(directory, &name, depth) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => self.note(&name, errno),
            }
        }
    }

    /// Removes everything except directories, and collects these. The directory is read from the start each
    /// time, because file systems may skip entries after removals.
    fn files_of(
        &mut self,
        directory: BorrowedFd<'_>,
        below: &mut Vec<CString>,
    ) -> std::result::Result<(), Errno> {
        rustix::fs::seek(directory, SeekFrom::Start(0))?;
        let mut buffer: EntryBuffer = [MaybeUninit::uninit(); 16 << 10];
        let mut entries = RawDir::new(directory, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            if entry.file_type() == FileType::Directory {
                below.push(name.to_owned());
                continue;
            }
            match unlinkat(directory, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(Errno::ISDIR) => below.push(name.to_owned()),
                Err(errno) => self.note(name, errno),
            }
        }
        Ok(())
    }

    fn directory(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &CStr,
        depth: usize,
    ) -> std::result::Result<(), Errno> {
        // Most directories are empty after one pass, or were never filled.
        match unlinkat(parent, name, AtFlags::REMOVEDIR) {
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            result => return result,
        }
        if depth >= DEEPEST {
            return self.move_up(parent, name);
        }
        // A second pass, for entries that a file system skipped or that were added.
        for last in [false, true] {
            let inside = open_directory(parent, name)?;
            self.empty(inside.as_fd(), depth + 1);
            match unlinkat(parent, name, AtFlags::REMOVEDIR) {
                Err(Errno::NOTEMPTY | Errno::EXIST) if !last => {}
                // Something below was moved up, or could not be removed; the error is noted.
                Err(Errno::NOTEMPTY | Errno::EXIST) if self.first_error.is_some() => return Ok(()),
                result => return result,
            }
        }
        Ok(())
    }

    fn move_up(&mut self, parent: BorrowedFd<'_>, name: &CStr) -> std::result::Result<(), Errno> {
        self.moved += 1;
        let new = format!(".moved-up-{}-{}", std::process::id(), self.moved);
        renameat(parent, name, self.top, new)
    }

    fn note(&mut self, name: &CStr, errno: Errno) {
        self.first_error.get_or_insert_with(|| (name.to_owned(), errno));
    }
}

fn open_directory(parent: BorrowedFd<'_>, name: &CStr) -> std::result::Result<OwnedFd, Errno> {
    let open = |flags| {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        openat2(parent, name, flags | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty(), resolve)
    };
    match open(OFlags::RDONLY) {
        // overlayfs leaves a directory of mode 000 in its work directory.
        Err(Errno::ACCESS) => {
            let place = open(OFlags::PATH)?;
            rustix::fs::chmod(resolve::proc_path(place.as_fd()), Mode::RWXU)?;
            open(OFlags::RDONLY)
        }
        // It is the root of a mount: the tree is still in use.
        Err(Errno::XDEV) => Err(Errno::BUSY),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::symlink};

    #[test]
    fn removes_trees_files_and_links_but_not_what_they_point_to() {
        let dir = tempfile::tempdir().unwrap();
        let kept = dir.path().join("kept");
        fs::create_dir_all(kept.join("x")).unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir_all(tree.join("a/b/c")).unwrap();
        fs::write(tree.join("a/b/file"), "").unwrap();
        symlink(&kept, tree.join("a/link")).unwrap();
        fs::set_permissions(tree.join("a/b"), std::os::unix::fs::PermissionsExt::from_mode(0o000)).unwrap();
        remove(&tree).unwrap();
        assert!(!tree.exists() && kept.join("x").exists());
        remove(&tree).unwrap();
        remove(&tree.join("x/y")).unwrap();
        symlink(&kept, &tree).unwrap();
        assert!(remove(&tree.join("x")).is_err(), "a link on the way is not followed");
        remove(&tree).unwrap();
        assert!(kept.join("x").exists());
    }

    #[test]
    fn depth_and_width_do_not_matter() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir(&tree).unwrap();
        let mut at = rustix::fs::open(&tree, OFlags::PATH, Mode::empty()).unwrap();
        for level in 0..2000 {
            for name in ["d", "e"] {
                rustix::fs::mkdirat(&at, name, Mode::RWXU).unwrap();
            }
            if level % 100 == 0 {
                for n in 0..300 {
                    let flags = OFlags::CREATE | OFlags::WRONLY;
                    rustix::fs::openat(&at, format!("{n}"), flags, Mode::RWXU).unwrap();
                }
            }
            at = rustix::fs::openat(&at, "d", OFlags::PATH, Mode::empty()).unwrap();
        }
        drop(at);
        remove(&tree).unwrap();
        assert!(!tree.exists());
    }

    #[test]
    fn a_mount_in_it_stays_and_is_named() {
        crate::apart(|| {
            let dir = tempfile::tempdir().unwrap();
            let inside = dir.path().join("tree/a/mounted");
            fs::create_dir_all(&inside).unwrap();
            fs::write(dir.path().join("tree/file"), "").unwrap();
            let tmpfs = crate::FileSystem::open("tmpfs").unwrap();
            let mount = tmpfs.mount(rustix::mount::MountAttrFlags::empty()).unwrap();
            mount.attach(resolve::place(&inside).unwrap()).unwrap();
            fs::write(inside.join("precious"), "").unwrap();
            let message = remove(&dir.path().join("tree")).unwrap_err().to_string();
            let precious = inside.join("precious").exists();
            crate::unmount(&inside).unwrap();
            assert!(precious && !dir.path().join("tree/file").exists());
            assert_eq!(
                message,
                format!("remove \"mounted\" in {:?}: Device or resource busy", dir.path().join("tree"))
            );
            remove(&dir.path().join("tree")).unwrap();
        });
    }
}

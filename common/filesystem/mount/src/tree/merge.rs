//! Makes one directory of several upper directories of overlayfs that lie upon each other.

use std::{
    collections::{BTreeMap, HashMap},
    ffi::{CStr, CString, OsStr},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use rustix::{
    fs::{AtFlags, FileType, Mode, Stat, XattrFlags, fstat, linkat, mkdirat, mknodat, statat},
    io::Errno,
};

use super::{
    copy::{names, open},
    entry,
};

/// How the merged directory gets its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Files {
    /// Each is a copy: the original may change afterwards.
    Copied,
    /// Each is a hard link. Nothing may write to the original as long as the merged directory is used.
    Linked,
}

/// Upper directories to merge.
pub struct Merging<'a> {
    /// The directories, lowest first.
    pub tops: &'a [BorrowedFd<'a>],
    /// How files are taken over.
    pub files: Files,
    /// Whether overlayfs's attributes are those of `userxattr`.
    pub userxattr: bool,
    /// Whether the directories below all tops have something at a path. The mark of a deleted file is left out if not.
    pub is_below: &'a dyn Fn(&Path) -> Result<bool, Errno>,
    /// Is asked before each entry. The merge ends with [`Errno::CANCELED`] if it returns false.
    pub goes_on: &'a dyn Fn() -> bool,
}

/// An error number, and the path of the entry that it is about.
pub type Failed = (Vec<u8>, Errno);

/// A directory of the result, and the tops that it comes from, the highest first.
struct Part {
    path: Vec<u8>,
    of: Vec<usize>,
    /// Whether it hides what is below the last of these tops.
    closed: bool,
}

/// What stands at a name.
enum Found {
    /// No directory: the top that it is in.
    Entry(usize, Stat),
    Directory(Part),
}

impl Merging<'_> {
    /// Fills the empty directory `to` with what an overlay of the tops would have written to one. Owners, modes, times, extended
    /// attributes, hard links, holes in files, whiteouts and opaque directories are kept.
    ///
    /// # Errors
    /// The first entry that cannot be read or made. What was made so far stays.
    pub fn merge(&self, to: impl AsFd) -> Result<(), Failed> {
        let to = to.as_fd();
        let mut links = HashMap::new();
        let mut parts =
            vec![Part { path: b".".to_vec(), of: (0..self.tops.len()).rev().collect(), closed: false }];
        // Hostile trees may be very deep: neither the stack nor the number of open files grows with them.
        let mut done = 0;
        while done < parts.len() {
            let more = self.content(&mut parts[done], to, &mut links)?;
            parts.extend(more);
            done += 1;
        }
        // Parents last: new entries change their times.
        for part in parts.iter().rev() {
            self.finish(part, to).map_err(|errno| (part.path.clone(), errno))?;
        }
        Ok(())
    }

    /// The attribute of a directory that hides what is below it.
    fn opaque(&self) -> &'static CStr {
        if self.userxattr { c"user.overlay.opaque" } else { c"trusted.overlay.opaque" }
    }

    fn is_opaque(&self, directory: &OwnedFd) -> Result<bool, Errno> {
        let mut value = [0_u8; 2];
        match rustix::fs::fgetxattr(directory, self.opaque(), &mut value[..]) {
            Ok(length) => Ok(value[..length] == *b"y"),
            Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(false),
            // Another value than the kernel sets.
            Err(Errno::RANGE) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    /// Makes the entries of a directory. Returns its subdirectories, which are made and empty.
    fn content(
        &self,
        part: &mut Part,
        to: BorrowedFd<'_>,
        links: &mut HashMap<(u64, u64), (Vec<u8>, CString)>,
    ) -> Result<Vec<Part>, Failed> {
        let here = part.path.clone();
        let at = |errno| (here.clone(), errno);
        let mut opened: Vec<(usize, OwnedFd)> = Vec::new();
        let mut found: BTreeMap<CString, Found> = BTreeMap::new();
        for (place, top) in part.of.iter().enumerate() {
            let directory = open(self.tops[*top], &here).map_err(at)?;
            for name in names(&directory).map_err(at)? {
                let path = [&here[..], b"/", name.to_bytes()].concat();
                let stat = statat(&directory, &name, AtFlags::SYMLINK_NOFOLLOW);
                add(&mut found, name, *top, stat.map_err(|errno| (path.clone(), errno))?, path);
            }
            let ends = self.is_opaque(&directory).map_err(at)?;
            opened.push((*top, directory));
            if ends {
                part.closed = true;
                part.of.truncate(place + 1);
                break;
            }
        }
        let target = open(to, &here).map_err(at)?;
        let mut below = Vec::new();
        for (name, found) in found {
            let path = [&here[..], b"/", name.to_bytes()].concat();
            let failed = |errno| (path.clone(), errno);
            if !(self.goes_on)() {
                return Err(failed(Errno::CANCELED));
            }
            match found {
                Found::Directory(part) => {
                    mkdirat(&target, &name, Mode::RWXU).map_err(failed)?;
                    below.push(part);
                }
                Found::Entry(top, stat) => {
                    let from = opened.iter().find(|(other, _)| *other == top).map(|(_, directory)| directory);
                    let from = from.ok_or_else(|| failed(Errno::NOENT))?;
                    self.entry(from, to, &target, (&here, &name), &stat, links).map_err(failed)?;
                }
            }
        }
        Ok(below)
    }

    /// Makes one entry that is no directory.
    fn entry(
        &self,
        from: &OwnedFd,
        to: BorrowedFd<'_>,
        target: &OwnedFd,
        (here, name): (&[u8], &CStr),
        stat: &Stat,
        links: &mut HashMap<(u64, u64), (Vec<u8>, CString)>,
    ) -> Result<(), Errno> {
        if is_whiteout(stat) {
            let path = [here, b"/", name.to_bytes()].concat();
            let path = path.strip_prefix(b"./").unwrap_or(&path);
            if !(self.is_below)(Path::new(OsStr::from_bytes(path)))? {
                return Ok(());
            }
            return mknodat(target, name, FileType::CharacterDevice, Mode::empty(), 0);
        }
        if self.files == Files::Linked {
            return linkat(from, name, target, name, AtFlags::empty());
        }
        let id = (stat.st_dev, stat.st_ino);
        if let Some((directory, first)) = links.get(&id) {
            return linkat(open(to, directory)?, first, target, name, AtFlags::empty());
        }
        entry::copy(from.as_fd(), target.as_fd(), name, stat)?;
        if stat.st_nlink > 1 {
            links.insert(id, (here.to_vec(), name.to_owned()));
        }
        Ok(())
    }

    /// Gives a directory the attributes of the highest top that has it.
    fn finish(&self, part: &Part, to: BorrowedFd<'_>) -> Result<(), Errno> {
        let Some(highest) = part.of.first() else { return Ok(()) };
        let (original, directory) = (open(self.tops[*highest], &part.path)?, open(to, &part.path)?);
        if part.closed {
            rustix::fs::fsetxattr(&directory, self.opaque(), b"y", XattrFlags::empty())?;
        }
        let stat = fstat(&original)?;
        entry::like(original, directory, &stat)
    }
}

/// Adds what a top has at a name, below what the tops above it have there.
fn add(found: &mut BTreeMap<CString, Found>, name: CString, top: usize, stat: Stat, path: Vec<u8>) {
    let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    match found.get_mut(&name) {
        None if is_directory => {
            found.insert(name, Found::Directory(Part { path, of: vec![top], closed: false }));
        }
        None => {
            found.insert(name, Found::Entry(top, stat));
        }
        Some(Found::Directory(part)) if !part.closed => match is_directory {
            true => part.of.push(top),
            // A file, or the mark of a deleted one, hides what is below.
            false => part.closed = true,
        },
        Some(_) => {}
    }
}

/// Whether this is the mark of a deleted file: a character device 0:0.
fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, File},
        os::unix::fs::MetadataExt,
    };

    use rustix::mount::MountAttrFlags;

    use super::*;
    use crate::FileSystem;

    /// Mounts an overlay, changes it, and unmounts it.
    fn written(dir: &Path, lower: &[&str], upper: &str, change: impl FnOnce(&Path)) {
        for name in [upper, "work", "mounted"] {
            fs::create_dir_all(dir.join(name)).unwrap();
        }
        mounted(dir, lower, Some(upper), change);
        fs::remove_dir_all(dir.join("work")).unwrap();
    }

    fn mounted<T>(dir: &Path, lower: &[&str], upper: Option<&str>, look: impl FnOnce(&Path) -> T) -> T {
        let overlay = FileSystem::open("overlay").unwrap();
        for name in lower {
            overlay.set("lowerdir+", dir.join(name).as_path()).unwrap();
        }
        if let Some(upper) = upper {
            overlay.set("upperdir", dir.join(upper).as_path()).unwrap();
            overlay.set("workdir", dir.join("work").as_path()).unwrap();
        }
        let target = dir.join("mounted");
        let mount = overlay.mount(MountAttrFlags::empty()).unwrap();
        mount.attach(crate::resolve::place(&target).unwrap()).unwrap();
        drop(mount);
        let found = look(&target);
        crate::unmount(&target).unwrap();
        found
    }

    /// Everything in a directory: path, mode, size, number of links, and text or target.
    fn all(root: &Path) -> Vec<String> {
        let mut all = Vec::new();
        let mut left = vec![root.to_owned()];
        while let Some(path) = left.pop() {
            let stat = path.symlink_metadata().unwrap();
            let text = if stat.is_file() { fs::read_to_string(&path).unwrap() } else { String::new() };
            let name = path.strip_prefix(root).unwrap().display();
            all.push(format!("{name} {:o} {} {} {text}", stat.mode(), stat.uid(), stat.mtime()));
            if stat.is_dir() {
                left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            }
        }
        all.sort();
        all
    }

    /// A base, and the tops `one`, `two` and `three` upon it.
    fn make_tops(dir: &Path) {
        fs::create_dir_all(dir.join("base/etc/deep")).unwrap();
        fs::create_dir_all(dir.join("base/gone")).unwrap();
        fs::create_dir(dir.join("empty")).unwrap();
        for name in ["etc/a", "etc/deep/b", "gone/c", "d"] {
            fs::write(dir.join("base").join(name), name).unwrap();
        }
        written(dir, &["base"], "one", |root| {
            fs::write(root.join("etc/a"), "one").unwrap();
            fs::remove_dir_all(root.join("gone")).unwrap();
            fs::create_dir(root.join("new")).unwrap();
            fs::write(root.join("new/file"), "one").unwrap();
            fs::hard_link(root.join("new/file"), root.join("twin")).unwrap();
            fs::remove_file(root.join("d")).unwrap();
            fs::write(root.join("passing"), "one").unwrap();
        });
        written(dir, &["one", "base"], "two", |root| {
            fs::create_dir(root.join("gone")).unwrap();
            fs::write(root.join("gone/again"), "two").unwrap();
            fs::create_dir(root.join("d")).unwrap();
            fs::remove_dir_all(root.join("etc/deep")).unwrap();
            fs::create_dir(root.join("etc/deep")).unwrap();
            fs::remove_file(root.join("passing")).unwrap();
            fs::set_permissions(root.join("new"), std::os::unix::fs::PermissionsExt::from_mode(0o711))
                .unwrap();
        });
        written(dir, &["two", "one", "base"], "three", |root| {
            fs::write(root.join("etc/deep/three"), "three").unwrap();
            fs::remove_dir(root.join("d")).unwrap();
            fs::write(root.join("d"), "three").unwrap();
            std::os::unix::fs::chown(root, Some(5), None).unwrap();
        });
    }

    #[test]
    fn an_overlay_of_the_result_shows_what_one_of_the_tops_shows() {
        crate::apart(|| {
            let dir = tempfile::tempdir().unwrap();
            let dir = dir.path();
            make_tops(dir);
            let wanted = mounted(dir, &["three", "two", "one", "base"], None, all);
            let tops = ["one", "two", "three"].map(|name| File::open(dir.join(name)).unwrap());
            let tops: Vec<_> = tops.iter().map(AsFd::as_fd).collect();
            for files in [Files::Copied, Files::Linked] {
                let name = format!("{files:?}");
                fs::create_dir(dir.join(&name)).unwrap();
                let is_below = |path: &Path| Ok(dir.join("base").join(path).symlink_metadata().is_ok());
                let merging =
                    Merging { tops: &tops, files, userxattr: false, is_below: &is_below, goes_on: &|| true };
                merging.merge(File::open(dir.join(&name)).unwrap()).unwrap();
                let inode = |path: &str| dir.join(path).metadata().unwrap().ino();
                assert_eq!(inode(&format!("{name}/twin")), inode(&format!("{name}/new/file")));
                assert_eq!(inode(&format!("{name}/twin")) == inode("one/twin"), files == Files::Linked);
                assert!(dir.join(&name).join("passing").symlink_metadata().is_err(), "it hides nothing");
                assert_eq!(mounted(dir, &[&name, "base"], None, all), wanted, "{name}");
            }
            let stops = Merging {
                tops: &tops,
                files: Files::Linked,
                userxattr: false,
                is_below: &|_| Ok(true),
                goes_on: &|| false,
            };
            let (_, errno) = stops.merge(File::open(dir.join("empty")).unwrap()).unwrap_err();
            assert_eq!(errno, Errno::CANCELED);
        });
    }
}

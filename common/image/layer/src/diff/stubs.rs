//! Finds mount points that exist in an upper directory only because something was mounted there.

use std::{
    collections::BTreeSet,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat, openat, openat2, statat},
    io::Errno,
};

use super::{
    Error,
    entries::{kind, names, open_directory, tree},
    upper::facts,
};
use crate::overlay;

/// Finds files and directories in an upper directory that were made only as mount points, among the paths
/// `mounted` (paths in the container) and their parents.
///
/// These are empty files and directories that `lower` (lowest first) does not have, and directories that
/// contain nothing else and otherwise match the lower layers. The container did not write them.
///
/// # Errors
/// When an upper directory cannot be read.
pub fn stubs(
    uppers: &[BorrowedFd],
    lower: &[PathBuf],
    mounted: &[PathBuf],
) -> Result<BTreeSet<Vec<u8>>, Error> {
    let opened = lower.iter().map(|path| open_lower(path)).collect::<Result<Vec<_>, _>>()?;
    let mut below: Vec<BorrowedFd> = opened.iter().map(AsFd::as_fd).collect();
    let mut places = BTreeSet::new();
    for path in mounted {
        let mut place = PathBuf::new();
        for part in path.components() {
            if let Component::Normal(name) = part {
                place.push(name);
                places.insert(place.clone());
            }
        }
    }
    let (mut all, mut written) = (BTreeSet::new(), BTreeSet::new());
    for upper in uppers {
        let mut found = BTreeSet::new();
        // The content of a directory comes before the directory.
        for place in places.iter().rev() {
            let path = place.as_os_str().as_bytes();
            if is_stub(*upper, &below, place, &found)? {
                found.insert(path.to_vec());
            } else if look(*upper, place).is_some() {
                written.insert(path.to_vec());
            }
        }
        all.extend(found);
        below.push(*upper);
    }
    Ok(all.difference(&written).cloned().collect())
}

fn open_lower(path: &Path) -> Result<OwnedFd, Error> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(CWD, path, flags, Mode::empty()).map_err(tree("open", path.as_os_str().as_bytes()))
}

fn is_stub(
    upper: BorrowedFd,
    lower: &[BorrowedFd],
    place: &Path,
    found: &BTreeSet<Vec<u8>>,
) -> Result<bool, Error> {
    let path = place.as_os_str().as_bytes();
    let Some(own) = look(upper, place) else { return Ok(false) };
    let below = lower.iter().rev().find_map(|layer| look(*layer, place).map(|stat| (layer, stat)));
    let below = below.filter(|(_, stat)| !overlay::is_whiteout(stat));
    match kind(&own) {
        FileType::RegularFile => Ok(own.st_size == 0 && own.st_nlink == 1 && below.is_none()),
        FileType::Directory => {
            let directory = open_directory(upper, path)?;
            if overlay::is_opaque(&directory).map_err(tree("read attribute of", path))? {
                return Ok(false);
            }
            for name in names(&directory, path)? {
                let inside = place.join(std::ffi::OsStr::from_bytes(&name));
                if !found.contains(inside.as_os_str().as_bytes()) {
                    return Ok(false);
                }
            }
            let Some((layer, _)) = below else { return Ok(true) };
            let Ok(same) = open_directory(*layer, path) else { return Ok(false) };
            let of = |fd: &OwnedFd| facts(fd.as_fd()).map_err(tree("stat", path));
            Ok(of(&directory)? == of(&same)?)
        }
        _ => Ok(false),
    }
}

/// The status of `place` below `root`. Symbolic links are not followed.
fn look(root: BorrowedFd, place: &Path) -> Option<Stat> {
    let above = place.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let look = || -> Result<Stat, Errno> {
        let above = openat2(root, above, flags, Mode::empty(), resolve)?;
        statat(above, place.file_name().unwrap_or_default(), AtFlags::SYMLINK_NOFOLLOW)
    };
    look().ok()
}

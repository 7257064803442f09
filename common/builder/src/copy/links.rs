//! Follows the symbolic links on a path, one by one.

use std::{
    collections::VecDeque,
    ffi::OsStr,
    os::{fd::BorrowedFd, unix::ffi::OsStrExt},
    path::{Component, Path, PathBuf},
};

use rustix::{fs::OFlags, io::Errno};

use super::{
    CopyError, Kind, failed,
    tree::{kind, open_inside, stat},
};

/// The largest number of links on a path, as in the kernel.
const MAX_LINKS: u32 = 40;

/// Resolves every link in `path` below `root`, including the last part. A missing part is allowed. Calls
/// `seen` with the path of each link.
///
/// # Errors
/// [`CopyError::System`]: `ELOOP` for too many links.
pub(crate) fn resolve(
    root: BorrowedFd<'_>,
    path: &Path,
    seen: &mut dyn FnMut(&Path),
) -> Result<PathBuf, CopyError> {
    let mut real = PathBuf::new();
    let mut links = 0;
    let parts = |path: &Path| path.components().map(|part| part.as_os_str().to_owned()).collect::<Vec<_>>();
    let mut rest = VecDeque::from(parts(path));
    while let Some(part) = rest.pop_front() {
        match Path::new(&part).components().next() {
            Some(Component::Normal(name)) => real.push(name),
            Some(Component::RootDir) => real.clear(),
            Some(Component::ParentDir) => drop(real.pop()),
            _ => {}
        }
        let file = match open_inside(root, &real, OFlags::PATH | OFlags::NOFOLLOW) {
            Ok(file) => file,
            Err(Errno::NOENT | Errno::NOTDIR) => continue,
            Err(error) => return Err(failed("open", path)(error)),
        };
        if kind(&stat(&file, path)?) != Kind::Symlink {
            continue;
        }
        links += 1;
        seen(&real);
        if links > MAX_LINKS {
            return Err(failed("open", path)(Errno::LOOP));
        }
        let text = rustix::fs::readlinkat(&file, "", []).map_err(failed("read link", &real))?;
        real.pop();
        for part in parts(Path::new(OsStr::from_bytes(text.as_bytes()))).into_iter().rev() {
            rest.push_front(part);
        }
    }
    Ok(real)
}

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt,
    path::Path,
};

/// Makes a directory and those above it that are missing, with this mode. Succeeds if it exists.
///
/// `std::fs::create_dir_all` says "File exists" when it cannot look at what is there. This says why it could not.
///
/// # Errors
/// When one of them cannot be made or looked at, or is no directory.
pub fn make_directories(path: impl AsRef<Path>, mode: u32) -> io::Result<()> {
    let path = path.as_ref();
    if path.as_os_str().is_empty() {
        return Ok(());
    }
    let mut made = make(path, mode);
    if let (Err(error), Some(above)) = (&made, path.parent())
        && error.kind() == io::ErrorKind::NotFound
    {
        make_directories(above, mode)?;
        made = make(path, mode);
    }
    made
}

fn make(path: &Path, mode: u32) -> io::Result<()> {
    let Err(error) = DirBuilder::new().mode(mode).create(path) else { return Ok(()) };
    match error.kind() {
        io::ErrorKind::NotFound => Err(error),
        // The kernel may refuse before it sees that the directory exists (EROFS, EACCES).
        io::ErrorKind::AlreadyExists => {
            if fs::metadata(path)?.is_dir() {
                Ok(())
            } else {
                Err(error)
            }
        }
        _ => {
            if path.is_dir() {
                Ok(())
            } else {
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use nix::errno::Errno;

    use super::*;
    use crate::errno_of;

    #[test]
    fn directories_are_made_once_and_what_is_in_the_way_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/c");
        for _ in 0..2 {
            make_directories(&path, 0o700).unwrap();
        }
        for made in ["a", "a/b", "a/b/c"] {
            let mode = fs::metadata(dir.path().join(made)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o700, "{made}");
        }
        fs::write(path.join("file"), "").unwrap();
        let refused = |at: &str| errno_of(&make_directories(path.join(at), 0o700).unwrap_err()).unwrap();
        assert_eq!(refused("file"), Errno::EEXIST);
        assert_eq!(refused("file/below"), Errno::ENOTDIR);
        // What cannot be looked at is not "File exists".
        symlink("loop", path.join("loop")).unwrap();
        assert_eq!(refused("loop"), Errno::ELOOP);
    }
}

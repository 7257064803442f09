//! What the directories below an upper one have.

use std::{
    io,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

use operation::unless_gone;
use rustix::fs::{CWD, Mode, OFlags, openat};

use crate::overlay;

/// Whether the directories, lowest first, have something at this path. No symbolic link on the way is followed.
///
/// # Errors
/// When a directory cannot be looked at: what it has is unknown.
pub fn has(lower: &[PathBuf], path: &Path) -> io::Result<bool> {
    for layer in lower.iter().rev() {
        let mut at = layer.clone();
        let mut hides = false;
        let mut parts = path.components().peekable();
        while let Some(part) = parts.next() {
            at.push(part);
            let Some(found) = unless_gone(at.symlink_metadata())? else { break };
            if found.file_type().is_char_device() && found.rdev() == 0 {
                return Ok(false);
            }
            if parts.peek().is_none() {
                return Ok(true);
            }
            // What is no directory, or an opaque one, hides what the layers below have in its place.
            if !found.is_dir() {
                return Ok(false);
            }
            hides = hides || is_opaque(&at)?;
        }
        if hides {
            return Ok(false);
        }
    }
    Ok(false)
}

fn is_opaque(directory: &Path) -> io::Result<bool> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(overlay::is_opaque(openat(CWD, directory, flags, Mode::empty())?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn what_is_below_is_found_through_layers() {
        let dir = tempfile::tempdir().unwrap();
        let layer = |name: &str| dir.path().join(name);
        fs::create_dir_all(layer("one").join("etc/deep")).unwrap();
        fs::write(layer("one").join("etc/deep/file"), "").unwrap();
        fs::create_dir_all(layer("two").join("etc")).unwrap();
        std::os::unix::fs::symlink("/", layer("two").join("etc/deep")).unwrap();
        let lower = [layer("one"), layer("two")];
        let has = |lower: &[PathBuf], at: &str| has(lower, Path::new(at)).unwrap();
        assert!(has(&lower[..1], "etc/deep/file"));
        assert!(!has(&lower, "etc/deep/file"), "a link is in the way");
        assert!(has(&lower, "etc/deep") && has(&lower, "etc"));
        assert!(!has(&lower, "etc/none") && !has(&[], "etc"));
    }

    #[test]
    fn what_cannot_be_looked_at_is_not_missing() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("loop", dir.path().join("loop")).unwrap();
        assert!(has(&[dir.path().join("loop")], Path::new("etc")).is_err());
    }
}

//! What the directories below an upper one have.

use std::{
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

use rustix::fs::{CWD, Mode, OFlags, openat};

use crate::overlay;

/// Whether the directories, lowest first, have something at this path. No symbolic link on the way is followed.
pub fn has(lower: &[PathBuf], path: &Path) -> bool {
    for layer in lower.iter().rev() {
        let mut at = layer.clone();
        let mut parts = path.components().peekable();
        while let Some(part) = parts.next() {
            at.push(part);
            let Ok(found) = at.symlink_metadata() else { break };
            if found.file_type().is_char_device() && found.rdev() == 0 {
                return false;
            }
            if parts.peek().is_none() {
                return true;
            }
            // What is no directory, or an opaque one, hides what the layers below have in its place.
            if !found.is_dir() {
                return false;
            }
            if is_opaque(&at) {
                return parts
                    .try_fold(at, |at, part| {
                        let next = at.join(part);
                        next.symlink_metadata().ok().map(|_| next)
                    })
                    .is_some();
            }
        }
    }
    false
}

fn is_opaque(directory: &Path) -> bool {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = openat(CWD, directory, flags, Mode::empty());
    open.is_ok_and(|open| overlay::is_opaque(open).unwrap_or_default())
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
        let path = |text: &str| PathBuf::from(text);
        assert!(has(&lower[..1], &path("etc/deep/file")));
        assert!(!has(&lower, &path("etc/deep/file")), "a link is in the way");
        assert!(has(&lower, &path("etc/deep")) && has(&lower, &path("etc")));
        assert!(!has(&lower, &path("etc/none")) && !has(&[], &path("etc")));
    }
}

//! What has changed, in the words of `docker diff`.

use std::{
    ffi::OsStr,
    io::{self, BufReader},
    os::unix::{
        ffi::OsStrExt,
        fs::{FileTypeExt, MetadataExt},
    },
    path::{Path, PathBuf},
    thread,
};

use archive::{Reader, Shown};
use layer::{
    compression::Compression,
    whiteout::{OPAQUE, WHITEOUT},
};
use toolkit::prelude::*;

use crate::trees::{Trees, open};

/// A line for each change: `A` for what was added, `C` for what was changed, `D` for what was removed.
pub(crate) fn lines(trees: &Trees, lower: &[PathBuf]) -> Result<String> {
    let (reader, writer) = io::pipe().context("create a pipe")?;
    thread::scope(|scope| {
        let written = scope.spawn(|| trees.write(writer, Compression::None).map(drop));
        let read = read(BufReader::new(reader), lower);
        // Without a reader the writer ends; its own error says more.
        written.join().unwrap_or_else(|_| Err(anyhow!("the writing thread panicked")))?;
        read
    })
}

fn read(input: impl io::BufRead, lower: &[PathBuf]) -> Result<String> {
    let mut reader = Reader::of_content(input);
    let mut text = String::new();
    while let Some(entry) = reader.next().context("read the changes")? {
        let path = Path::new(OsStr::from_bytes(&entry.path));
        let Some(name) = path.file_name().map(OsStrExt::as_bytes).filter(|name| *name != OPAQUE) else {
            continue;
        };
        let (kind, path) = match name.strip_prefix(WHITEOUT) {
            Some(name) => ('D', path.with_file_name(OsStr::from_bytes(name))),
            None if exists(lower, path) => ('C', path.components().collect()),
            None => ('A', path.components().collect()),
        };
        text += &format!("{kind} /{}\n", plain(&path));
    }
    Ok(text)
}

/// On a line of its own, whatever its name is.
fn plain(path: &Path) -> String {
    match path.to_str().filter(|text| !text.contains(char::is_control)) {
        Some(text) => text.to_owned(),
        None => Shown::new(path.as_os_str().as_bytes()).to_string(),
    }
}

/// Whether the layers, lowest first, have something at this path.
fn exists(lower: &[PathBuf], path: &Path) -> bool {
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
    open(directory).is_ok_and(|directory| layer::is_opaque(directory).unwrap_or_default())
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
        assert!(exists(&lower[..1], &path("etc/deep/file")));
        assert!(!exists(&lower, &path("etc/deep/file")), "a link is in the way");
        assert!(exists(&lower, &path("etc/deep")) && exists(&lower, &path("etc")));
        assert!(!exists(&lower, &path("etc/none")) && !exists(&[], &path("etc")));
        assert!(!plain(Path::new("a\nb")).contains('\n'));
    }
}

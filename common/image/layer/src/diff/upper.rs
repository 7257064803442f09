//! An upper directory of overlayfs.

use std::{
    io::Write,
    os::fd::{AsFd, BorrowedFd},
};

use archive::Shown;
use rustix::fs::{CWD, FileType, Mode, OFlags, Stat, fstat, openat};

use super::{
    Error, Options,
    entries::{Entries, join, kind, names, open_directory, stat, tree},
};
use crate::{overlay, whiteout::WHITEOUT};

pub(super) fn walk<W: Write>(
    root: BorrowedFd,
    entries: &mut Entries<W>,
    options: &Options,
) -> Result<(), Error> {
    // Directories that are still to be read, the next one last.
    let mut left = vec![Vec::new()];
    while let Some(path) = left.pop() {
        let directory = open_directory(root, &path)?;
        if !path.is_empty() || root_differs(directory.as_fd(), options)? {
            entries.directory(&directory, &path)?;
        }
        if check(&directory, b".", &path)? == Form::Opaque {
            entries.opaque(&path)?;
        }
        let mut below = Vec::new();
        for name in names(&directory, &path)? {
            let path = join(&path, &name);
            if options.without.contains(&path) {
                continue;
            }
            let stat = stat(&directory, &name, &path)?;
            if name.starts_with(WHITEOUT) {
                let reason = "a name that starts with \".wh.\" is a whiteout in a layer";
                return Err(Error::Refused { name: Shown::new(&path), reason });
            }
            if kind(&stat) == FileType::Directory {
                below.push(path);
            } else if overlay::is_whiteout(&stat) || is_whiteout_file(&directory, &name, &path, &stat)? {
                let at = path.len() - name.len();
                entries.whiteout(&path[..at.saturating_sub(1)], &name)?;
            } else {
                entries.file(&directory, &name, path, &stat)?;
            }
        }
        left.extend(below.into_iter().rev());
    }
    Ok(())
}

/// What overlayfs's attributes say of a file or directory.
#[derive(PartialEq, Eq)]
enum Form {
    Plain,
    /// A directory that hides those below.
    Opaque,
    /// A regular file that stands for a whiteout, where no device can be made.
    Whiteout,
}

/// Looks at the attributes of overlayfs.
fn check(directory: impl AsFd, name: &[u8], path: &[u8]) -> Result<Form, Error> {
    let at = overlay::proc_path(directory, name);
    let found = overlay::all_xattr_names(&at).map_err(tree("list attributes of", path))?;
    let mut form = Form::Plain;
    for attribute in found {
        let Some(word) = overlay::PREFIXES.iter().find_map(|prefix| attribute.strip_prefix(*prefix)) else {
            continue;
        };
        let reason = match word {
            b"opaque" => {
                let mut value = [0; 4];
                let length = rustix::fs::lgetxattr(&at[..], &attribute[..], &mut value[..]);
                if value[..length.map_err(tree("read attribute of", path))?] == *b"y" {
                    form = Form::Opaque;
                }
                continue;
            }
            b"whiteout" => {
                form = Form::Whiteout;
                continue;
            }
            b"redirect" => "overlayfs left a redirect on it: mount with redirect_dir=off",
            b"metacopy" => "overlayfs left it without its data: mount with metacopy=off",
            // origin, impure, nlink, uuid, upper: overlayfs's own notes, which change nothing that a layer says.
            _ => continue,
        };
        return Err(Error::Refused { name: Shown::new(path), reason });
    }
    Ok(form)
}

fn is_whiteout_file(directory: impl AsFd, name: &[u8], path: &[u8], stat: &Stat) -> Result<bool, Error> {
    Ok(kind(stat) == FileType::RegularFile
        && check(directory, name, path)? == Form::Whiteout
        && stat.st_size == 0)
}

fn root_differs(root: BorrowedFd, options: &Options) -> Result<bool, Error> {
    let Some(below) = &options.below else { return Ok(false) };
    let below = openat(CWD, below, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(tree("open", below.as_os_str().as_encoded_bytes()))?;
    Ok(facts(root).map_err(tree("stat", b"."))? != facts(below.as_fd()).map_err(tree("stat", b"."))?)
}

/// What a layer says of a directory itself: mode, owner, group, extended attributes.
pub(super) type Facts = (u32, u32, u32, Vec<(Vec<u8>, Vec<u8>)>);

pub(super) fn facts(directory: BorrowedFd) -> rustix::io::Result<Facts> {
    let stat = fstat(directory)?;
    Ok((stat.st_mode, stat.st_uid, stat.st_gid, overlay::xattrs(directory, b".")?))
}

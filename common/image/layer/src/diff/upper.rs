//! Writes an upper directory of overlayfs.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    io::Write,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use archive::{Shown, WHITEOUT};
use rustix::fs::{CWD, FileType, Mode, OFlags, Stat, fstat, openat};

use super::{
    Error, Options,
    below::has,
    entries::{Entries, join, kind, names, open_directory, stat, tree},
};
use crate::overlay;

/// A directory that is still to be read.
struct Left {
    path: Vec<u8>,
    /// The tops that it comes from, the highest first.
    of: Vec<usize>,
    /// Whether it hides what is below all tops: something else stood in its place in between.
    opaque: bool,
}

/// Writes the tops, lowest first, as if all of it had been written to one.
pub(super) fn walk<W: Write>(
    tops: &[BorrowedFd],
    entries: &mut Entries<W>,
    options: &Options,
) -> Result<(), Error> {
    // The next one is the last.
    let mut left = vec![Left { path: Vec::new(), of: (0..tops.len()).rev().collect(), opaque: false }];
    while let Some(Left { path, of, mut opaque }) = left.pop() {
        let mut parts = Vec::new();
        for top in of {
            let directory = open_directory(tops[top], &path)?;
            let ends = check(&directory, b".", &path)? == Form::Opaque;
            parts.push((top, names(&directory, &path)?, directory));
            if ends {
                opaque = true;
                break;
            }
        }
        let Some((_, _, highest)) = parts.first() else { continue };
        if !path.is_empty() || root_differs(highest.as_fd(), options)? {
            entries.directory(highest, &path)?;
        }
        if opaque {
            entries.opaque(&path)?;
        }
        let all: BTreeSet<&Vec<u8>> = parts.iter().flat_map(|(_, names, _)| names).collect();
        let mut below = Vec::new();
        for name in all {
            let path = join(&path, name);
            if options.without.contains(&path) {
                continue;
            }
            if name.starts_with(WHITEOUT) {
                let reason = "a name that starts with \".wh.\" is a whiteout in a layer";
                return Err(Error::Refused { name: Shown::new(&path), reason });
            }
            below.extend(entry(&parts, name, path, entries, options)?);
        }
        left.extend(below.into_iter().rev());
    }
    Ok(())
}

/// Writes what the highest top has under a name; a directory is left for later.
fn entry<W: Write>(
    parts: &[(usize, Vec<Vec<u8>>, OwnedFd)],
    name: &[u8],
    path: Vec<u8>,
    entries: &mut Entries<W>,
    options: &Options,
) -> Result<Option<Left>, Error> {
    let mut of = Vec::new();
    let having =
        parts.iter().filter(|(_, names, _)| names.binary_search_by(|other| other[..].cmp(name)).is_ok());
    for (top, _, directory) in having {
        let stat = stat(directory, name, &path)?;
        if kind(&stat) == FileType::Directory {
            of.push(*top);
            continue;
        }
        if !of.is_empty() {
            // A file, or the mark of a deleted one, lies under the directory and hides what is below.
            return Ok(Some(Left { path, of, opaque: true }));
        }
        if overlay::is_whiteout(&stat) || is_whiteout_file(directory, name, &path, &stat)? {
            // In one top it is there because there is something below.
            let is_below = || has(&options.lower, Path::new(OsStr::from_bytes(&path)));
            if parts.len() == 1 || is_below().map_err(tree("look below", &path))? {
                let at = path.len() - name.len();
                entries.whiteout(&path[..at.saturating_sub(1)], name)?;
            }
        } else {
            entries.file(directory, name, path, &stat)?;
        }
        return Ok(None);
    }
    Ok((!of.is_empty()).then_some(Left { path, of, opaque: false }))
}

/// What overlayfs's attributes say of a file or directory.
#[derive(PartialEq, Eq)]
enum Form {
    Plain,
    /// A directory that hides the directories below it.
    Opaque,
    /// A regular file that is a whiteout, used where no device can be made.
    Whiteout,
}

/// Reads the attributes of overlayfs.
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
            // origin, impure, nlink, uuid, upper: overlayfs's own notes. They do not affect a layer.
            _ => continue,
        };
        return Err(Error::Refused { name: Shown::new(path), reason });
    }
    Ok(form)
}

pub(super) fn is_whiteout_file(
    directory: impl AsFd,
    name: &[u8],
    path: &[u8],
    stat: &Stat,
) -> Result<bool, Error> {
    Ok(kind(stat) == FileType::RegularFile
        && check(directory, name, path)? == Form::Whiteout
        && stat.st_size == 0)
}

fn root_differs(root: BorrowedFd, options: &Options) -> Result<bool, Error> {
    let Some(below) = options.lower.last() else { return Ok(false) };
    let below = openat(CWD, below, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(tree("open", below.as_os_str().as_encoded_bytes()))?;
    Ok(facts(root).map_err(tree("stat", b"."))? != facts(below.as_fd()).map_err(tree("stat", b"."))?)
}

/// What a layer records about a directory itself: mode, owner, group, extended attributes.
pub(super) type Facts = (u32, u32, u32, Vec<(Vec<u8>, Vec<u8>)>);

pub(super) fn facts(directory: BorrowedFd) -> rustix::io::Result<Facts> {
    let stat = fstat(directory)?;
    Ok((stat.st_mode, stat.st_uid, stat.st_gid, overlay::xattrs(directory, b".")?))
}

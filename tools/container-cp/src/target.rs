//! The directory and the name of a copy, by Docker's rules.

use std::{
    ffi::OsString,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FileType, OFlags, fstat},
    io::Errno,
};
use toolkit::prelude::*;

use super::{
    pack::Source,
    root::{Root, kind},
};

/// A directory, and the name of the copy in it.
#[derive(Debug)]
pub(crate) struct Target {
    /// The directory's path below its root.
    pub(crate) path: PathBuf,
    pub(crate) directory: OwnedFd,
    /// The name. Empty if the content of a directory is copied into this directory.
    pub(crate) name: OsString,
}

fn failed(path: &Path, errno: Errno) -> anyhow::Error {
    operation::Error::new("open", format_args!("{path:?}"), errno).into()
}

impl Target {
    /// An existing directory, for the entries of a tar.
    pub(crate) fn directory(root: &Root, path: &Path) -> Result<Self> {
        let directory =
            root.open(path, OFlags::PATH | OFlags::DIRECTORY).map_err(|errno| failed(path, errno))?;
        Ok(Self { path: path.to_owned(), directory, name: OsString::new() })
    }

    /// The target for this source.
    pub(crate) fn find(root: &Root, path: &Path, source: &Source) -> Result<Self> {
        let failed = |errno| failed(path, errno);
        let says_directory = path.as_os_str().as_bytes().ends_with(b"/");
        let found = match root.open(path, OFlags::PATH) {
            Ok(found) => Some(kind(&fstat(found).map_err(failed)?)),
            // With a slash at the end, the path of a file is an error.
            Err(Errno::NOENT) => None,
            Err(errno) => return Err(failed(errno)),
        };
        match found {
            Some(FileType::Directory) => {
                Ok(Self { name: source.name.clone(), ..Self::directory(root, path)? })
            }
            Some(_) if source.is_directory() => {
                Err(anyhow!("a directory cannot be copied to {path:?}: that is a file"))
            }
            None if says_directory && !source.is_directory() => Err(hint(
                anyhow!("there is no directory {path:?}"),
                "without the slash, it is the name of the copy",
            )),
            _ => {
                let (above, name, directory) = root.last(path).map_err(failed)?;
                Ok(Self { path: above, directory, name: name.into() })
            }
        }
    }
}

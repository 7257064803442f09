//! The directories that become a layer.

use std::{
    collections::BTreeSet,
    io::Write,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use layer::{
    compression::Compression,
    diff::{self, Options, Summary},
};
use rustix::fs::{CWD, Mode, OFlags, openat};
use toolkit::prelude::*;

/// The source of a layer.
pub(crate) enum Trees {
    /// Both lowest first; `lower`: the layers that they lie on.
    Uppers {
        uppers: Vec<OwnedFd>,
        lower: Vec<PathBuf>,
        without: BTreeSet<Vec<u8>>,
    },
    Both {
        lower: OwnedFd,
        upper: OwnedFd,
    },
}

impl Trees {
    /// The directories below, lowest first. `directories` are the arguments of the command line.
    pub(crate) fn lower(&self, directories: &[PathBuf]) -> Vec<PathBuf> {
        match self {
            Self::Uppers { lower, .. } => lower.clone(),
            Self::Both { .. } => directories.first().cloned().into_iter().collect(),
        }
    }

    pub(crate) fn write(&self, out: impl Write, compression: Compression) -> Result<Summary> {
        let newest = oci::timestamp::source_date_epoch()?;
        Ok(match self {
            Self::Uppers { uppers, lower, without } => {
                let uppers: Vec<_> = uppers.iter().map(AsFd::as_fd).collect();
                let options = Options {
                    compression,
                    lower: lower.clone(),
                    without: without.clone(),
                    newest,
                    all: None,
                };
                diff::uppers(&uppers, out, &options)?
            }
            Self::Both { lower, upper } => diff::trees(
                lower.as_fd(),
                upper.as_fd(),
                out,
                &Options { compression, newest, ..Options::default() },
            )?,
        })
    }
}

pub(crate) fn open(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(CWD, path, flags, Mode::empty()).with_context(|| format!("open {path:?}"))
}

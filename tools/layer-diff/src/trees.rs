//! What is made a layer.

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

/// The directory that a container writes to.
pub(crate) fn written(rootfs: &members::Rootfs) -> Result<PathBuf> {
    rootfs.upper.clone().ok_or_else(|| anyhow!("`rootfs` is read-only: it has no upper directory"))
}

/// The source of a layer.
pub(crate) enum Trees {
    /// `lower`: the layers that it lies on, lowest first.
    Upper {
        upper: OwnedFd,
        lower: Vec<PathBuf>,
        without: BTreeSet<Vec<u8>>,
    },
    Both {
        lower: OwnedFd,
        upper: OwnedFd,
    },
}

impl Trees {
    /// What was there before, lowest first. `directories` are those of the command line.
    pub(crate) fn lower(&self, directories: &[PathBuf]) -> Vec<PathBuf> {
        match self {
            Self::Upper { lower, .. } => lower.clone(),
            Self::Both { .. } => directories.first().cloned().into_iter().collect(),
        }
    }

    pub(crate) fn write(&self, out: impl Write, compression: Compression) -> Result<Summary> {
        let newest = oci::timestamp::source_date_epoch();
        Ok(match self {
            Self::Upper { upper, lower, without } => {
                let options = Options {
                    compression,
                    below: lower.last().cloned(),
                    without: without.clone(),
                    newest,
                    all: None,
                };
                diff::upper(upper.as_fd(), out, &options)?
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

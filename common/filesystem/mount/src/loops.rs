//! Loop devices: a file as a block device.

use std::{
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use operation::Place;
use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    io::Errno,
};

use crate::{
    Detached, Error, Result,
    error::{mounting, on},
    sys,
};

/// How many times to ask for a free loop device. Another process may take it first.
const TRIES: usize = 100;

/// Mounts the open `file` at `path` by a loop device. The device is released with the mount.
pub(crate) fn by_loop(
    path: &Path,
    file: &OwnedFd,
    readonly: bool,
    mount: impl Fn(&Path) -> Result<Detached>,
) -> Result<Detached> {
    let control = open(Path::new("/dev/loop-control"), OFlags::RDWR)?;
    for _ in 0..TRIES {
        let number = sys::free_loop(control.as_fd()).map_err(mounting("find a loop device for", path))?;
        let name = PathBuf::from(format!("/dev/loop{number}"));
        // Open until it is mounted. Otherwise the kernel would release it at once.
        let device = open(&name, if readonly { OFlags::RDONLY } else { OFlags::RDWR })?;
        match sys::configure_loop(device.as_fd(), file.as_fd(), path, readonly) {
            Err(Errno::BUSY) => {}
            Err(errno) => {
                return Err(
                    Error::new("make", format_args!("{path:?} a loop device"), errno).of(Place::Namespace)
                );
            }
            Ok(()) => {
                return mount(&name)
                    .map_err(|error| error.instead("mount", format_args!("image {path:?} by {name:?}")));
            }
        }
    }
    Err(mounting("find a loop device for", path)(Errno::BUSY))
}

pub(crate) fn open(path: &Path, flags: OFlags) -> Result<OwnedFd> {
    openat(CWD, path, flags | OFlags::CLOEXEC, Mode::empty()).map_err(on("open", path))
}

//! The host's devices, for a privileged container.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::Path,
};

use oci_spec::runtime::{LinuxDevice, LinuxDeviceBuilder, LinuxDeviceType};
use rustix::fs::{major, minor};

use crate::{Error, error::Result};

/// Not the container's business: file systems of its own are mounted there, or nodes that it has already.
const LEFT_OUT: [&str; 13] = [
    "/dev/console",
    "/dev/fd",
    "/dev/full",
    "/dev/mqueue",
    "/dev/null",
    "/dev/ptmx",
    "/dev/pts",
    "/dev/random",
    "/dev/shm",
    "/dev/tty",
    "/dev/urandom",
    "/dev/zero",
    "/dev/.lxc",
];

/// All that have a node in `/dev`.
pub(super) fn of_host() -> Result<Vec<LinuxDevice>> {
    let mut devices = Vec::new();
    collect(Path::new("/dev"), &mut devices).map_err(Error::at("list", "the devices in \"/dev\""))?;
    devices.sort_by(|one, other| one.path().cmp(other.path()));
    Ok(devices)
}

fn collect(directory: &Path, devices: &mut Vec<LinuxDevice>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if LEFT_OUT.iter().any(|left_out| path == Path::new(left_out)) {
            continue;
        }
        let Ok(found) = path.symlink_metadata() else { continue };
        let kind = if found.is_dir() {
            collect(&path, devices)?;
            continue;
        } else if found.file_type().is_char_device() {
            LinuxDeviceType::C
        } else if found.file_type().is_block_device() {
            LinuxDeviceType::B
        } else {
            continue;
        };
        let device = LinuxDeviceBuilder::default()
            .path(path)
            .typ(kind)
            .major(i64::from(major(found.rdev())))
            .minor(i64::from(minor(found.rdev())))
            .file_mode(found.mode() & 0o7777)
            .uid(found.uid())
            .gid(found.gid())
            .build();
        devices.extend(device.ok());
    }
    Ok(())
}

//! Sets `linux.sysctl`: variables of the container's new namespaces.

use std::{
    fs::{self, File},
    io::{self, ErrorKind, Write},
    os::fd::OwnedFd,
    path::Path,
};

use mount::{Detached, FileSystem};
use oci_spec::runtime::Spec;
use rustix::{
    fs::{Mode, OFlags, openat},
    mount::MountAttrFlags,
};

use super::channel::Channel;
use crate::{Error, error::Result, spec::is_default_parameter};

/// Sets the variables. Network variables exist only if their protocol does.
///
/// In somebody else's container, `/proc/sys` is read-only. Then a procfs of our own has the same variables,
/// if the kernel lets us mount one. If not, variables that already have their value are left, and a default
/// that cannot be set is a warning.
pub(super) fn set(spec: &Spec, channel: &Channel) -> Result<()> {
    let parameters = spec.linux().as_ref().and_then(|linux| linux.sysctl().as_ref());
    let mut own = None;
    let mut unset = Vec::new();
    for (name, value) in parameters.into_iter().flatten() {
        let place = Path::new("sys").join(crate::spec::parameter(name));
        let path = Path::new("/proc").join(&place);
        let failed = match fs::write(&path, value) {
            Ok(()) => continue,
            Err(error) if error.kind() == ErrorKind::ReadOnlyFilesystem => error,
            Err(error) => return Err(Error::system("write", format_args!("{path:?}"), error)),
        };
        let procfs = own.get_or_insert_with(own_procfs);
        if let Some(procfs) = procfs {
            write_in(procfs, &place, value).map_err(Error::at("write", format_args!("{path:?}")))?;
        } else if fs::read_to_string(&path).is_ok_and(|now| is_same(&now, value)) {
            // The value is right already.
        } else if is_default_parameter(name) {
            unset.push(name.as_str());
        } else {
            return Err(Error::system("write", format_args!("{path:?}"), failed));
        }
    }
    if !unset.is_empty() {
        unset.sort_unstable();
        let object = unset.join(" and ");
        channel.warn(&Error::system(
            "set",
            object,
            "/proc/sys is read-only, as in a container; it stays as it is",
        ));
    }
    Ok(())
}

/// A procfs of the caller's namespaces that is mounted nowhere; none if the kernel does not make one.
fn own_procfs() -> Option<Detached> {
    let closed = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    FileSystem::open("proc").and_then(|procfs| procfs.mount(closed)).ok()
}

fn write_in(procfs: &Detached, place: &Path, value: &str) -> io::Result<()> {
    let file: OwnedFd = openat(procfs, place, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    File::from(file).write_all(value.as_bytes())
}

/// Compares values. The kernel separates numbers in its own way.
fn is_same(now: &str, value: &str) -> bool {
    now.split_whitespace().eq(value.split_whitespace())
}

//! Devices of the host for a container: all for a privileged one, or the requested ones.

use std::{
    fs::{self, Metadata},
    io,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

use oci_spec::{
    OciSpecError,
    runtime::{
        LinuxDevice, LinuxDeviceBuilder, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType, Mount,
        MountBuilder,
    },
};
use rustix::fs::{major, minor};

use super::Overrides;
use crate::{Error, error::Result};

/// Paths that a privileged container does not get: it has its own file systems or nodes there.
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

/// A device that is given to a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its node on the host.
    source: PathBuf,
    /// Its node in the container.
    node: LinuxDevice,
    access: String,
}

impl Device {
    /// Finds the device at `source`, or all devices below that directory, for `target` in the container.
    /// `access` says what the container may do with it: `r`ead, `w`rite, `m`ake nodes.
    ///
    /// # Errors
    /// When there is no device.
    pub fn find(source: &Path, target: &Path, access: &str) -> Result<Vec<Self>> {
        let object = || format!("device {source:?}");
        let found = source.canonicalize().map_err(Error::at("find", object()))?;
        let metadata = found.metadata().map_err(Error::at("find", object()))?;
        let mut nodes = Vec::new();
        if metadata.is_dir() {
            collect(&found, &mut nodes).map_err(Error::at("list", object()))?;
        } else {
            nodes.extend(node(&found, &metadata));
        }
        if nodes.is_empty() {
            return Err(Error::system(
                "find",
                object(),
                "it is neither a device nor a directory with devices",
            ));
        }
        nodes.sort_by(|one, other| one.path().cmp(other.path()));
        let given = nodes.into_iter().map(|mut node| {
            let source = node.path().clone();
            let below = source.strip_prefix(&found).unwrap_or(Path::new(""));
            node.set_path(if below.as_os_str().is_empty() { target.to_owned() } else { target.join(below) });
            Self { source, node, access: access.to_owned() }
        });
        Ok(given.collect())
    }

    /// A bind mount of the host's own node, for a user namespace.
    pub(super) fn mount(&self) -> std::result::Result<Mount, OciSpecError> {
        let options = ["bind", "rprivate"].map(str::to_owned).to_vec();
        MountBuilder::default()
            .destination(self.node.path())
            .typ("bind")
            .source(&self.source)
            .options(options)
            .build()
    }

    /// The rule that lets a cgroup use the device.
    pub(super) fn rule(&self) -> LinuxDeviceCgroup {
        let rule = LinuxDeviceCgroupBuilder::default()
            .allow(true)
            .typ(self.node.typ())
            .major(self.node.major())
            .minor(self.node.minor())
            .access(&self.access);
        rule.build().unwrap_or_default()
    }
}

/// The nodes of a container. No nodes can be made in a user namespace; there the requested devices are
/// mounted.
pub(super) fn of(overrides: &Overrides, in_user_namespace: bool) -> Result<Vec<LinuxDevice>> {
    let mut nodes = if overrides.privileged { of_host()? } else { Vec::new() };
    if !in_user_namespace {
        // A requested device replaces the host's own.
        nodes.retain(|node| !overrides.devices.iter().any(|asked| asked.node.path() == node.path()));
        nodes.extend(overrides.devices.iter().map(|asked| asked.node.clone()));
    }
    Ok(nodes)
}

/// Fails if a device is requested that the container could not use.
pub(super) fn check(overrides: &Overrides, mounts: &[Mount], in_user_namespace: bool) -> Result<()> {
    let dev = mounts.iter().rfind(|mount| mount.destination() == Path::new("/dev"));
    if !overrides.devices.is_empty() && dev.is_some_and(|dev| dev.typ().as_deref() != Some("tmpfs")) {
        return Err(Error::new("make devices in \"/dev\": it is a directory of the host"));
    }
    let has_list = overrides.cgroup.is_some() && !in_user_namespace;
    if !overrides.device_rules.is_empty() && !overrides.privileged && !has_list {
        return Err(Error::new(
            "add to the list of devices: only root of the machine gives a container one, in a cgroup of its own",
        ));
    }
    Ok(())
}

/// All devices with a node in `/dev`.
fn of_host() -> Result<Vec<LinuxDevice>> {
    let mut devices = Vec::new();
    collect(Path::new("/dev"), &mut devices).map_err(Error::at("list", "the devices in \"/dev\""))?;
    devices.retain(|device| !LEFT_OUT.iter().any(|left_out| device.path().starts_with(left_out)));
    devices.sort_by(|one, other| one.path().cmp(other.path()));
    Ok(devices)
}

/// Collects all devices below a directory. Links are not followed.
fn collect(directory: &Path, devices: &mut Vec<LinuxDevice>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let Ok(found) = path.symlink_metadata() else { continue };
        match found.is_dir() {
            true => collect(&path, devices)?,
            false => devices.extend(node(&path, &found)),
        }
    }
    Ok(())
}

/// The device at `path`, with its owner and mode there; none if it is something else.
fn node(path: &Path, found: &Metadata) -> Option<LinuxDevice> {
    let kind = match found.file_type() {
        kind if kind.is_char_device() => LinuxDeviceType::C,
        kind if kind.is_block_device() => LinuxDeviceType::B,
        _ => return None,
    };
    let device = LinuxDeviceBuilder::default()
        .path(path)
        .typ(kind)
        .major(i64::from(major(found.rdev())))
        .minor(i64::from(minor(found.rdev())))
        .file_mode(found.mode() & 0o7777)
        .uid(found.uid())
        .gid(found.gid());
    device.build().ok()
}

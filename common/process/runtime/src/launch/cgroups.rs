//! The process's own cgroup.

use cgroup::{DeviceProgram, Group, Hierarchy};
use oci_spec::runtime::Spec;
use rustix::io::Errno;

use super::namespaces::in_user_namespace;
use crate::{Error, error::Result};

/// The cgroup that the specification names, which was made before; none if it names none.
pub(super) fn of(spec: &Spec) -> Result<Option<Group>> {
    let Some(path) = spec.linux().as_ref().and_then(|linux| linux.cgroups_path().as_ref()) else {
        return Ok(None);
    };
    match Group::open(&Hierarchy::open()?, path)? {
        Some(group) => Ok(Some(group)),
        None => Err(Error::system("enter", format_args!("cgroup {path:?}"), Errno::NOENT)),
    }
}

/// Limits the devices of the cgroup to the list of the specification, if it has one.
pub(super) fn limit_devices(group: &Group, spec: &Spec) -> Result<()> {
    let resources = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
    let Some(rules) = resources.and_then(|resources| resources.devices().as_ref()) else { return Ok(()) };
    // In a user namespace no device can be made, and no program of this kind can be attached.
    if in_user_namespace()? {
        return Ok(());
    }
    Ok(DeviceProgram::compile(rules).attach(group)?)
}

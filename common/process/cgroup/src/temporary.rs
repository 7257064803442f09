use std::{
    ffi::OsStr,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use rustix::{
    fs::{AtFlags, Dir, FlockOperation, Mode, OFlags, flock, openat, unlinkat},
    io::Errno,
};

use operation::unless_gone;

use crate::{
    CgroupOperation, Group, Hierarchy, device_list, docker_devices,
    error::{Result, at},
};

/// The prefix of the names of these cgroups. No container's id begins with it.
const PREFIX: &str = "_step-";

/// How often to try: another process that sweeps is seldom faster.
const ATTEMPTS: usize = 100;

/// A cgroup that is removed when this value is dropped, for a process without a record: a step of a build. If
/// its maker is killed, the next [`Temporary::new`] removes what is left.
///
/// The cgroup is locked as long as its maker lives.
#[derive(Debug)]
pub struct Temporary {
    group: Group,
    /// The hierarchy with the device list, in a cgroup of the same path, if no program can limit devices.
    devices: Option<Hierarchy>,
}

impl Temporary {
    /// Creates a cgroup. With `limits_devices` it gets Docker's device list, if no program can limit devices.
    /// In a user namespace there is nothing to limit.
    ///
    /// # Errors
    /// As [`Group::create`].
    pub fn new(limits_devices: bool) -> Result<Self> {
        let hierarchy = Hierarchy::open()?;
        sweep(&hierarchy);
        // Another process that sweeps may remove the cgroup before it is locked, or even opened.
        let made = |group: Result<Group>| -> Result<Option<Group>> {
            let Some(group) = unless_gone(group)? else { return Ok(None) };
            let locked = flock(group.as_fd(), FlockOperation::NonBlockingLockExclusive).is_ok();
            Ok((locked && Group::open(&hierarchy, group.path())?.is_some()).then_some(group))
        };
        for _ in 0..ATTEMPTS {
            let path = Path::new(CgroupOperation::TOP).join(format!("{PREFIX}{}", random()?));
            let Some(group) = made(Group::create(&hierarchy, &path))? else { continue };
            let mut own = Self { group, devices: None };
            if limits_devices && let Some(list) = device_list::plan(&path, &docker_devices())? {
                let lists = list.hierarchy()?;
                sweep_lists(&lists, &hierarchy);
                own.devices = Some(lists);
                list.make()?;
            }
            return Ok(own);
        }
        Err(at("create", "cgroup for a step")("other processes keep removing it"))
    }

    /// The path of the cgroup in the hierarchy.
    pub fn path(&self) -> &Path {
        self.group.path()
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // If this fails, the next `Temporary` removes what is left.
        let _ = Hierarchy::open().and_then(|hierarchy| Group::remove(&hierarchy, self.path()));
        if let Some(hierarchy) = &self.devices {
            let _ = Group::remove(hierarchy, self.path());
        }
    }
}

fn random() -> Result<String> {
    Ok(format!("{:016x}", u64::from_ne_bytes(operation::draw()?)))
}

/// Removes the cgroups of makers that were killed. A cgroup with processes stays.
fn sweep(hierarchy: &Hierarchy) {
    for_each_step(hierarchy, |top, name| {
        let open = || -> std::result::Result<OwnedFd, Errno> {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let found = openat(top.as_fd(), name, flags, Mode::empty())?;
            flock(&found, FlockOperation::NonBlockingLockExclusive)?;
            Ok(found)
        };
        // Hold the lock until the cgroup is removed: its maker may be about to lock it.
        if let Ok(_locked) = open() {
            let _ = unlinkat(top.as_fd(), name, AtFlags::REMOVEDIR);
        }
    });
}

/// Removes the device lists of cgroups that are gone. A list is made after its cgroup, and removed after it.
fn sweep_lists(lists: &Hierarchy, hierarchy: &Hierarchy) {
    for_each_step(lists, |top, name| {
        let path = Path::new(CgroupOperation::TOP).join(name);
        if Group::open(hierarchy, &path).is_ok_and(|own| own.is_none()) {
            let _ = unlinkat(top.as_fd(), name, AtFlags::REMOVEDIR);
        }
    });
}

fn for_each_step(hierarchy: &Hierarchy, act: impl Fn(&Group, &OsStr)) {
    let Ok(Some(top)) = Group::open(hierarchy, Path::new(CgroupOperation::TOP)) else { return };
    let Ok(entries) = Dir::read_from(top.as_fd()) else { return };
    for entry in entries.flatten() {
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name.as_bytes().starts_with(PREFIX.as_bytes()) {
            act(&top, name);
        }
    }
}

use std::{
    io::Read,
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
    CgroupOperation, Group, Hierarchy,
    error::{Result, at},
};

/// What the names of these cgroups begin with. No container's id begins so.
const PREFIX: &str = "_step-";

/// How often it is tried: another one that sweeps is seldom faster.
const ATTEMPTS: usize = 100;

/// A cgroup that goes with this value, for a process that no record tells of: a step of a build. If its maker is killed,
/// the next one removes what is left.
///
/// It is locked as long as its maker lives.
#[derive(Debug)]
pub struct Temporary(Group);

impl Temporary {
    /// Makes one.
    ///
    /// # Errors
    /// As [`Group::create`].
    pub fn new() -> Result<Self> {
        let hierarchy = Hierarchy::open()?;
        sweep(&hierarchy);
        // Another one that sweeps may take it for a left one before it is locked, or even opened.
        let made = |group: Result<Group>| -> Result<Option<Group>> {
            let Some(group) = unless_gone(group)? else { return Ok(None) };
            let locked = flock(group.as_fd(), FlockOperation::NonBlockingLockExclusive).is_ok();
            Ok((locked && Group::open(&hierarchy, group.path())?.is_some()).then_some(group))
        };
        for _ in 0..ATTEMPTS {
            let path = Path::new(CgroupOperation::TOP).join(format!("{PREFIX}{}", random()?));
            if let Some(group) = made(Group::create(&hierarchy, &path))? {
                return Ok(Self(group));
            }
        }
        Err(at("create", "cgroup for a step")("others remove it again and again"))
    }

    /// Where it is in the hierarchy.
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // What is left then, the next one removes.
        let _ = Hierarchy::open().and_then(|hierarchy| Group::remove(&hierarchy, self.path()));
    }
}

fn random() -> Result<String> {
    let mut bytes = [0; 8];
    let read = std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    read.map_err(at("read", "\"/dev/urandom\""))?;
    Ok(format!("{:016x}", u64::from_ne_bytes(bytes)))
}

/// Removes the cgroups of those that were killed. One with processes stays.
fn sweep(hierarchy: &Hierarchy) {
    let top = Path::new(CgroupOperation::TOP);
    let Ok(Some(top)) = Group::open(hierarchy, top) else { return };
    let Ok(entries) = Dir::read_from(top.as_fd()) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if !name.to_bytes().starts_with(PREFIX.as_bytes()) {
            continue;
        }
        let open = || -> std::result::Result<OwnedFd, Errno> {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let found = openat(top.as_fd(), name, flags, Mode::empty())?;
            flock(&found, FlockOperation::NonBlockingLockExclusive)?;
            Ok(found)
        };
        // The lock is held until it is removed: its maker may be about to take it.
        if let Ok(_locked) = open() {
            let name = std::ffi::OsStr::from_bytes(name.to_bytes());
            let _ = unlinkat(top.as_fd(), name, AtFlags::REMOVEDIR);
        }
    }
}

use std::{
    io::Read,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, Dir, FlockOperation, Mode, OFlags, flock, openat, unlinkat},
    io::Errno,
};

use crate::{
    CgroupOperation, Group, Hierarchy,
    error::{Result, at},
};

/// What the names of these cgroups begin with. A container's cgroup has a name of another form.
const PREFIX: &str = "step-";

/// Another one that sweeps is fast, and not always faster.
const ATTEMPTS: usize = 100;

/// A cgroup that goes with this value, for a process that no record tells of: a step of a build. If its maker is killed,
/// the next one removes what is left.
#[derive(Debug)]
pub struct Temporary {
    path: PathBuf,
    /// Locked as long as the maker lives.
    _group: Group,
}

impl Temporary {
    /// Makes one.
    ///
    /// # Errors
    /// As [`Group::create`].
    pub fn new() -> Result<Self> {
        let hierarchy = Hierarchy::open()?;
        sweep(&hierarchy);
        let mut attempts = 0;
        loop {
            attempts += 1;
            let path = Path::new(CgroupOperation::TOP).join(format!("{PREFIX}{}", random()?));
            // Another one that sweeps may take it for a left one before it is locked, or even opened.
            let group = match Group::create(&hierarchy, &path) {
                Err(error) if operation::is_gone(&error) && attempts < ATTEMPTS => continue,
                made => made?,
            };
            let locked = flock(group.as_fd(), FlockOperation::NonBlockingLockExclusive);
            if locked.is_ok() && Group::open(&hierarchy, &path)?.is_some() {
                return Ok(Self { path, _group: group });
            }
        }
    }

    /// Where it is in the hierarchy.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // What is left then, the next one removes.
        let _ = Hierarchy::open().and_then(|hierarchy| Group::remove(&hierarchy, &self.path));
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
        if open().is_ok() {
            let name = std::ffi::OsStr::from_bytes(name.to_bytes());
            let _ = unlinkat(top.as_fd(), name, AtFlags::REMOVEDIR);
        }
    }
}

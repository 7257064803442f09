use std::{
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use operation::Condition;
use rustix::{
    fs::{FileType, OFlags, StatVfsMountFlags},
    io::Errno,
    mount::MountAttrFlags,
};

use crate::{
    Detached, Error, FileSystem, Options, Result,
    resolve::{self, Leaf},
    table,
};

pub(super) fn bind(source: &Path, within: &Path, target: &Path, readonly: bool) -> Result<()> {
    let copy = Detached::copy(source, true)?;
    let options = Options::parse(if readonly {
        ["nodev", "ro", "rprivate"].as_slice()
    } else {
        &["nodev", "rprivate"]
    });
    let mount = || {
        copy.change(&options, true)?;
        let root = resolve::place(within)?;
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&copy)?.st_mode);
        let leaf = if kind == FileType::Directory { Leaf::Directory } else { Leaf::File };
        copy.attach(resolve::create_in(root, target, leaf)?)
    };
    mount().map_err(|errno| Error::new(format_args!("mount {source:?} on {target:?} in {within:?}"), errno))
}

pub(super) fn mount(kind: &str, source: &str, target: &Path, options: &[String]) -> Result<()> {
    let options = Options::parse(options);
    let place = resolve::place(target).map_err(Error::on("open", target))?;
    let file_system = FileSystem::open(kind)?;
    file_system.set("source", source)?;
    if options.attributes.contains(MountAttrFlags::MOUNT_ATTR_RDONLY) {
        // Read-only not only here: a file system on a read-only device mounts in no other way.
        file_system.set_data(["ro"])?;
    }
    file_system.set_data(options.data.iter().map(String::as_str))?;
    file_system.mount(options.attributes)?.attach(place).map_err(Error::on("mount on", target))
}

/// Makes the mount on `target` read-only, and leaves alone those below it.
pub(super) fn seal(target: &Path) -> Result<()> {
    let seal = || Detached::from(resolve::place(target)?).change(&Options::parse(["ro"]), false);
    seal().map_err(Error::on("make read-only", target))
}

pub(super) fn is_sealed(target: &Path) -> Result<bool> {
    match resolve::place(target).and_then(rustix::fs::fstatvfs) {
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(false),
        found => {
            let found = found.map_err(Error::on("look at", target))?;
            Ok(found.f_flag.contains(StatVfsMountFlags::RDONLY))
        }
    }
}

pub(super) fn image(image: &Path, target: &Path) -> Result<()> {
    let place = resolve::place(target).map_err(Error::on("open", target))?;
    crate::image(image)?.attach(place).map_err(Error::on("mount on", target))
}

/// Where a path of a container lies, as the host sees it; none if it is gone.
pub(super) fn find(within: &Path, target: &Path) -> Result<Option<PathBuf>> {
    let find = || {
        let root = resolve::place(within)?;
        resolve::path_of(resolve::open_in(&root, target, OFlags::PATH)?.as_fd())
    };
    match find() {
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        // Whatever leads outside by now is not what was mounted.
        Ok(path) if !path.starts_with(within) => Ok(None),
        result => {
            result.map(Some).map_err(|errno| Error::new(format_args!("find {target:?} in {within:?}"), errno))
        }
    }
}

/// Unmounts `target` if what is mounted there `is_ours`; leaves alone what somebody else mounted.
pub(super) fn undo(target: &Path, is_ours: impl Fn(&table::Entry) -> bool) -> Result<()> {
    match table::at(target)? {
        Some(entry) if is_ours(&entry) => match crate::unmount(target) {
            // Somebody else was quicker.
            Err(error) if matches!(error.errno(), Errno::INVAL | Errno::NOENT) => Ok(()),
            result => result,
        },
        _ => Ok(()),
    }
}

pub(super) fn check(target: &Path, is_ours: impl Fn(&table::Entry) -> bool) -> Result<Condition> {
    Ok(match table::at(target)? {
        None => Condition::Missing(format!("mount {target:?}")),
        Some(entry) if is_ours(&entry) => Condition::Present,
        Some(entry) => {
            Condition::Different(format!("mount {target:?} is {} of {:?}", entry.kind, entry.source))
        }
    })
}

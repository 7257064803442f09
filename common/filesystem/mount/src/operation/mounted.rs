use std::{
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use operation::{Condition, Place, is_gone};
use rustix::{
    fs::{FileType, OFlags, StatVfsMountFlags},
    io::Errno,
};

use crate::{
    Detached, Error, FileSystem, Options, Result,
    error::{mounting, on},
    resolve::{self, Leaf},
    table,
};
use userns::Namespace;

pub(super) fn bind(
    source: &Path,
    within: &Path,
    target: &Path,
    readonly: bool,
    owners: Option<&Namespace>,
) -> Result<()> {
    let copy = Detached::copy(source, true)?;
    if let Some(owners) = owners {
        map_owners(&copy, source, owners)?;
    }
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
    let object = format_args!("{source:?} on {target:?} in {within:?}");
    mount().map_err(|errno| Error::new("mount", object, errno).of(Place::Namespace))
}

pub(super) fn idmapped(source: &Path, target: &Path, owners: &Namespace) -> Result<()> {
    let place = resolve::place(target).map_err(on("open", target))?;
    let copy = Detached::copy(source, false)?;
    copy.change(&Options::parse(["nodev", "rprivate"]), false).map_err(mounting("mount on", target))?;
    map_owners(&copy, source, owners)?;
    copy.attach(place).map_err(mounting("mount on", target))
}

fn map_owners(copy: &Detached, source: &Path, owners: &Namespace) -> Result<()> {
    let namespace = owners.make()?;
    copy.map_owners(namespace.as_fd()).map_err(|errno| {
        let error = Error::new("map owners of", format_args!("{source:?}"), errno);
        match errno {
            Errno::INVAL => error
                .with_hint("its file system cannot do that in this kernel: ext4, xfs, btrfs and tmpfs can"),
            _ => error.of(Place::Namespace),
        }
    })
}

/// The mappings as an option of mount(8).
pub(super) fn idmap(owners: &Namespace) -> String {
    let lists = [("u", &owners.uid_mappings), ("g", &owners.gid_mappings)];
    let runs = lists.into_iter().flat_map(|(kind, runs)| {
        runs.iter().map(move |run| format!("{kind}:{}:{}:{}", run.inside, run.outside, run.size))
    });
    format!("X-mount.idmap={}", runs.collect::<Vec<_>>().join(" "))
}

/// Makes the mount on `target` read-only, but not the mounts below it.
pub(super) fn seal(target: &Path) -> Result<()> {
    let seal = || Detached::from(resolve::place(target)?).change(&Options::parse(["ro"]), false);
    seal().map_err(mounting("make read-only", target))
}

pub(super) fn is_sealed(target: &Path) -> Result<bool> {
    match resolve::place(target).and_then(rustix::fs::fstatvfs) {
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(false),
        found => {
            let found = found.map_err(on("look at", target))?;
            Ok(found.f_flag.contains(StatVfsMountFlags::RDONLY))
        }
    }
}

pub(super) fn image(image: &Path, target: &Path) -> Result<()> {
    let place = resolve::place(target).map_err(on("open", target))?;
    crate::image(image)?.attach(place).map_err(mounting("mount on", target))
}

/// The options of a tmpfs. `size` is in bytes.
pub(super) fn memory(size: u64) -> [String; 2] {
    ["mode=1777".to_owned(), format!("size={size}")]
}

pub(super) fn in_memory(source: &str, target: &Path, size: u64) -> Result<()> {
    let place = resolve::place(target).map_err(on("open", target))?;
    let file_system = FileSystem::open("tmpfs")?;
    file_system.set("source", source)?;
    file_system.set_data(memory(size).iter().map(String::as_str))?;
    let flags = Options::parse(["nosuid", "nodev", "noexec"]).attributes;
    file_system.mount(flags)?.attach(place).map_err(mounting("mount on", target))
}

pub(super) fn is_memory(entry: &table::Entry, source: &str) -> bool {
    entry.kind == "tmpfs" && entry.source == source
}

/// Returns the host's path of a path in a container; `None` if it does not exist.
pub(super) fn find(within: &Path, target: &Path) -> Result<Option<PathBuf>> {
    let find = || {
        let root = resolve::place(within)?;
        resolve::path_of(resolve::open_in(&root, target, OFlags::PATH)?.as_fd())
    };
    match find() {
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        // A path that now leads outside is not the one that was mounted.
        Ok(path) if !path.starts_with(within) => Ok(None),
        result => result.map(Some).map_err(Error::on("find", format_args!("{target:?} in {within:?}"))),
    }
}

/// Unmounts `target` if `is_ours` accepts the mount there. Other mounts stay.
pub(crate) fn undo(target: &Path, is_ours: impl Fn(&table::Entry) -> bool) -> Result<()> {
    match table::at(target)? {
        Some(entry) if is_ours(&entry) => match crate::unmount(target) {
            // Another process has just unmounted it.
            Err(error) if is_gone(&error) || error.errno() == Some(nix::errno::Errno::EINVAL) => Ok(()),
            result => result,
        },
        _ => Ok(()),
    }
}

pub(crate) fn check(target: &Path, is_ours: impl Fn(&table::Entry) -> bool) -> Result<Condition> {
    Ok(match table::at(target)? {
        None => Condition::Missing(format!("mount {target:?}")),
        Some(entry) if is_ours(&entry) => Condition::Present,
        Some(entry) => {
            Condition::Different(format!("mount {target:?} is {} of {:?}", entry.kind, entry.source))
        }
    })
}

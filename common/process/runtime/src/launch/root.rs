//! The container's root file system, with all its mounts.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use mount::{
    Detached, FileSystem, Options,
    resolve::{self, Leaf},
};
use oci_spec::runtime::{Mount, Process, Spec};
use rustix::{
    fs::{FileType, Mode, OFlags},
    io::Errno,
    mount::{MountAttrFlags, MountPropagationFlags, UnmountFlags},
};

use super::{channel::Channel, devices};
use crate::{Error, cgroup, error::Result};

/// Makes the root directory of the specification the process's own. Returns its terminal, if there is a channel for the
/// other side.
pub(super) fn make(spec: &Spec, terminal: Option<(&Process, &Channel)>) -> Result<Option<OwnedFd>> {
    let Some(wanted) = spec.root() else { return Err(Error::new("no root in the specification")) };
    let linux = spec.linux().as_ref();
    let propagation = linux.and_then(|linux| linux.rootfs_propagation().as_deref()).unwrap_or("rslave");
    let kind = Options::parse([propagation]).propagation;
    let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    mount::propagate(Path::new("/"), kind.unwrap_or(slave))?;

    let root = attach_root(wanted.path(), devices::is_confined(spec))?;
    rustix::process::umask(Mode::empty());
    for mount in spec.mounts().iter().flatten() {
        add(root.as_fd(), mount)?;
    }
    devices::populate(root.as_fd(), spec)?;
    let terminal = match terminal {
        Some((process, channel)) => {
            let terminal = devices::open_terminal(root.as_fd(), process, channel)?;
            devices::mount_console(root.as_fd(), terminal.as_fd())?;
            Some(terminal)
        }
        None => None,
    };
    devices::confine(root.as_fd(), spec)?;
    if let Some(linux) = linux {
        for path in linux.readonly_paths().iter().flatten() {
            make_readonly(root.as_fd(), Path::new(path))?;
        }
        for path in linux.masked_paths().iter().flatten() {
            mask(root.as_fd(), Path::new(path))?;
        }
    }
    if wanted.readonly().unwrap_or_default() {
        root.change(&Options::parse(["ro"]), false).map_err(Error::at("make", "\"/\" read-only"))?;
    }
    pivot(root)?;
    Ok(terminal)
}

/// pivot_root(2) needs a mount: a copy of the directory, on top of it. The copy also keeps changes here from the host's
/// mounts.
fn attach_root(path: &Path, nodev: bool) -> Result<Detached> {
    let attach = || {
        let place = resolve::place(path)?;
        let root = Detached::copy_of(&place, true)?;
        let options = if nodev { ["rprivate", "nodev"].as_slice() } else { &["rprivate"] };
        root.change(&Options::parse(options), true)?;
        root.attach(&place)?;
        Ok(root)
    };
    attach().map_err(Error::at::<Errno>("mount", format_args!("root file system {path:?}")))
}

fn pivot(root: Detached) -> Result<()> {
    let pivot = || {
        rustix::process::fchdir(root.as_fd())?;
        // The old root ends up on top of the new one, where it is unmounted (pivot_root(2), "pivot_root(".", ".")").
        rustix::process::pivot_root(".", ".")?;
        rustix::mount::unmount(".", UnmountFlags::DETACH)?;
        rustix::process::chdir("/")
    };
    pivot().map_err(Error::at::<Errno>("pivot_root", ""))
}

/// One of the specification's mounts.
fn add(root: BorrowedFd<'_>, mount: &Mount) -> Result<()> {
    if mount.typ().as_deref() == Some("cgroup") {
        return add_cgroup(root, mount);
    }
    attach(root, mount).map(drop)
}

/// cgroup v1 is many mounts in a tmpfs, which becomes read-only after they are made.
fn add_cgroup(root: BorrowedFd<'_>, mount: &Mount) -> Result<()> {
    let cgroup::Expanded { mounts, links } = cgroup::expand(mount)?;
    let Some((first, below)) = mounts.split_first() else { return Ok(()) };
    let mut first = first.clone();
    let options: Vec<String> = first.options().clone().unwrap_or_default();
    let readonly = options.iter().any(|option| option == "ro");
    if !below.is_empty() {
        first.set_options(Some(options.into_iter().filter(|option| option != "ro").collect()));
    }
    let top = attach(root, &first)?;
    for mount in below {
        // Only this process can change the directory, so it is safe.
        let target = mount.destination();
        let name = target.file_name().unwrap_or_default();
        let (detached, _) = detached(mount)?;
        rustix::fs::mkdirat(&top, name, Mode::from_raw_mode(0o755))
            .and_then(|()| detached.attach_in(&top, name))
            .map_err(Error::at("mount", format_args!("cgroup on {target:?}")))?;
    }
    for (name, target) in links {
        rustix::fs::symlinkat(&target, &top, &name)
            .map_err(Error::at("create", format_args!("link {name:?} in {:?}", mount.destination())))?;
    }
    if readonly && !below.is_empty() {
        let object = format!("{:?} read-only", mount.destination());
        top.change(&Options::parse(["ro"]), false).map_err(Error::at("make", object))?;
    }
    Ok(())
}

/// The source and the options of a mount.
fn detached(mount: &Mount) -> Result<(Detached, Options)> {
    let target = mount.destination();
    let kind = kind_of(mount);
    let mut options = Options::parse(mount.options().iter().flatten());
    if kind == "bind" {
        options.bind.get_or_insert(false);
    }
    let source = mount.source().as_deref();
    let detached = match options.bind {
        Some(recursive) => {
            let detached = Detached::copy(source.unwrap_or(Path::new("")), recursive)?;
            detached.change(&options, recursive).map_err(Error::at("mount", format_args!("{target:?}")))?;
            detached
        }
        None => {
            let file_system = FileSystem::open(kind)?;
            file_system.set("source", source.unwrap_or(Path::new(kind)))?;
            file_system.set_data(options.data.iter().map(String::as_str))?;
            // Device nodes are made in it first; later it is closed to others (see `devices::confine`).
            let later = if target == Path::new("/dev") {
                MountAttrFlags::MOUNT_ATTR_NODEV
            } else {
                MountAttrFlags::empty()
            };
            file_system.mount(options.attributes - later)?
        }
    };
    Ok((detached, options))
}

fn kind_of(mount: &Mount) -> &str {
    mount.typ().as_deref().unwrap_or("bind")
}

fn attach(root: BorrowedFd<'_>, mount: &Mount) -> Result<Detached> {
    let (target, kind) = (mount.destination(), kind_of(mount));
    let (detached, options) = detached(mount)?;
    let place = || {
        let leaf = match FileType::from_raw_mode(rustix::fs::fstat(&detached)?.st_mode) {
            FileType::Directory => Leaf::Directory,
            _ => Leaf::File,
        };
        detached.attach(resolve::create_in(root, target, leaf)?)
    };
    place().map_err(|errno| refused(kind, target, errno))?;
    if options.bind.is_none() && options.propagation.is_some() {
        let spread = Options { propagation: options.propagation, ..Options::default() };
        detached
            .change(&spread, options.is_recursive())
            .map_err(Error::at("set", format_args!("propagation of {target:?}")))?;
    }
    Ok(detached)
}

/// Adds a hint when a read-only root file system has no mount point for a volume.
fn refused(kind: &str, target: &Path, errno: Errno) -> Error {
    let error = Error::system("mount", format_args!("{kind} on {target:?}"), errno);
    match (kind, errno) {
        ("bind", Errno::ROFS) => error.with_hint(format!(
            "the root file system is read-only and has no {target:?}: `union-mount -v` makes a place for a volume, and mounts it"
        )),
        _ => error,
    }
}

/// A missing path needs no mask.
fn open_if_there(root: BorrowedFd<'_>, path: &Path) -> Result<Option<OwnedFd>> {
    match resolve::open_in(root, path, OFlags::PATH) {
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        result => result.map(Some).map_err(Error::at("open", format_args!("{path:?}"))),
    }
}

fn make_readonly(root: BorrowedFd<'_>, path: &Path) -> Result<()> {
    let Some(place) = open_if_there(root, path)? else { return Ok(()) };
    let cover = || {
        let copy = Detached::copy_of(&place, true)?;
        copy.change(&Options::parse(["ro"]), true)?;
        copy.attach(&place)
    };
    cover().map_err(Error::at("make", format_args!("{path:?} read-only")))
}

/// A directory looks empty, a file looks like `/dev/null`.
fn mask(root: BorrowedFd<'_>, path: &Path) -> Result<()> {
    let Some(place) = open_if_there(root, path)? else { return Ok(()) };
    let object = || format!("{path:?}");
    let kind = rustix::fs::fstat(&place).map_err(Error::at("mask", object()))?.st_mode;
    if FileType::from_raw_mode(kind) == FileType::Directory {
        let empty = FileSystem::open("tmpfs")?;
        empty.set("source", "tmpfs")?;
        let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
            | MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        return empty.mount(attributes)?.attach(place).map_err(Error::at("mask", object()));
    }
    let cover = || {
        let null = resolve::open_in(root, Path::new("/dev/null"), OFlags::PATH)?;
        Detached::copy_of(null, false)?.attach(&place)
    };
    cover().map_err(Error::at("mask", object()))
}

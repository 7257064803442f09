//! The root directory at which paths begin: the host's, or a container's.

use std::{
    ffi::OsString,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStringExt,
    },
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use document::{Id, members::Rootfs};
use life::Container;
use mount::{Detached, Options, resolve};
use operation::Scope;
use runtime::spec::IDMAP;
use rustix::{
    fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, openat, readlinkat, statat},
    io::Errno,
    mount::MountPropagationFlags,
};
use toolkit::prelude::*;
use userns::Namespace;

use super::ids::Ids;

/// A root directory, and the ids of the owners of its files.
#[derive(Debug)]
pub(crate) struct Root {
    /// None for the host's root directory, where symbolic links in paths are followed as usual.
    inside: Option<OwnedFd>,
    pub(crate) ids: Ids,
}

/// The maximum number of symbolic links in one path, as in the kernel.
const MOST_LINKS: usize = 40;

fn open_root(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(CWD, path, flags, Mode::empty()).with_context(|| format!("open {path:?}"))
}

impl Root {
    /// The host's root directory.
    pub(crate) fn host() -> Result<Self> {
        Ok(Self { inside: None, ids: Ids::default() })
    }

    /// The root directory that a running container sees. For one that does not run, its root file system with
    /// its volumes.
    pub(crate) fn of(scope: &Scope, id: &Id) -> Result<Self> {
        let container = Container::read(scope, id)?;
        if container.is_running()? {
            let inside = open_root(format!("/proc/{}/root", container.identity().pid).as_ref())?;
            // The process still runs, so the pid was not reused before its root directory was opened.
            if container.is_running()? {
                let ids = Ids::new(runtime::spec::userns(&container.operation.spec));
                return Ok(Self { inside: Some(inside), ids });
            }
        }
        leave_mounts().context("make a mount namespace")?;
        Self::file_system(scope, id)?.with_volumes(&container)
    }

    /// Only the root file system, without volumes.
    pub(crate) fn file_system(scope: &Scope, id: &Id) -> Result<Self> {
        let container = Container::read(scope, id)?;
        let spec = &container.operation.spec;
        let path = spec.root().as_ref().map(|root| root.path().clone()).unwrap_or_default();
        if !is_mounted(&container, &path)? {
            let error = anyhow!("the files of container \"{id}\" are not mounted");
            return Err(hint(error, "container-start makes it again after a restart of the machine"));
        }
        // On the host, files behind an idmapped mount have the container's own ids, so no translation is
        // needed.
        let ids = runtime::spec::userns(spec).filter(|_| !runtime::spec::maps_root_owners(spec));
        Ok(Self { inside: Some(open_root(&path)?), ids: Ids::new(ids) })
    }

    /// Mounts the container's volumes on its root file system, with the permissions and owners that the
    /// container's process sees. No other process sees these mounts.
    fn with_volumes(self, container: &Container) -> Result<Self> {
        let Some(place) = self.inside else { return Ok(self) };
        let spec = &container.operation.spec;
        let owners = runtime::spec::userns(spec);
        let maps_root = runtime::spec::maps_root_owners(spec);
        let volumes = volumes(container);
        let is_mapped = maps_root || volumes.iter().any(Volume::is_mapped);
        let namespace = owners.as_ref().filter(|_| is_mapped).map(Namespace::make).transpose()?;
        let map = |mount: &Detached, target: &Path| match &namespace {
            Some(namespace) => mount.map_owners(namespace.as_fd()).map_err(on("map owners of", target)),
            None => Err(on("map owners of", target)("the container has no user namespace of its own")),
        };
        let top = Path::new("/");
        let root = Detached::copy_of(&place, true).map_err(on("copy mount of", top))?;
        if maps_root {
            map(&root, top)?;
        }
        root.attach(&place).map_err(on("mount", top))?;
        for volume in &volumes {
            let Volume { source, target, options } = volume;
            let place = match resolve::open_in(&root, target, OFlags::PATH) {
                Err(Errno::NOENT) => continue,
                place => place.map_err(on("open", target))?,
            };
            let recursive = options.bind.unwrap_or_default();
            let copy = match Detached::copy(source, recursive) {
                Err(error) if operation::is_gone(&error) => continue,
                copy => copy?,
            };
            if volume.is_mapped() {
                map(&copy, target)?;
            }
            copy.change(options, recursive).map_err(on("mount", target))?;
            copy.attach(place).map_err(on("mount", target))?;
        }
        if spec.root().as_ref().and_then(|root| root.readonly()).unwrap_or_default() {
            root.change(&Options::parse(["ro"]), false).map_err(on("make read-only", top))?;
        }
        Ok(Self { inside: Some(root.into()), ids: Ids::new(owners) })
    }

    /// Opens a path. The flags are those of open(2).
    pub(crate) fn open(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        match &self.inside {
            Some(root) => resolve::open_in(root, path, flags),
            None => openat(CWD, path, flags | OFlags::CLOEXEC, Mode::empty()),
        }
    }

    /// Follows symbolic links and returns the directory and name where a path finally leads, whether a file
    /// exists there or not.
    pub(crate) fn last(&self, path: &Path) -> Result<(PathBuf, PathBuf, OwnedFd), Errno> {
        let mut path = path.to_owned();
        for _ in 0..MOST_LINKS {
            let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
                return Err(Errno::ISDIR);
            };
            let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
            let directory = self.open(above, OFlags::PATH | OFlags::DIRECTORY)?;
            match statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(found) if kind(&found) == FileType::Symlink => {
                    let target = readlinkat(&directory, name, Vec::new())?.into_bytes();
                    let target = PathBuf::from(OsString::from_vec(target));
                    path = above.join(target);
                }
                Ok(_) | Err(Errno::NOENT) => return Ok((above.to_owned(), name.into(), directory)),
                Err(errno) => return Err(errno),
            }
        }
        Err(Errno::LOOP)
    }
}

/// The type of the file.
pub(crate) fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Whether the root file system of a container is mounted. A directory given with `--rootfs` always counts as
/// mounted.
fn is_mounted(container: &Container, path: &Path) -> Result<bool> {
    let Some(rootfs) = container.document.get::<Rootfs>()? else { return Ok(true) };
    if rootfs.path != path && rootfs.path.canonicalize().ok().as_deref() != Some(path) {
        return Ok(true);
    }
    Ok(mount::table::read()?.iter().any(|entry| entry.target == path))
}

/// A bind mount: a directory or file of the host at a path in the container.
struct Volume<'a> {
    source: &'a Path,
    target: &'a Path,
    options: Options,
}

impl Volume<'_> {
    /// Whether the volume is mounted with the owners of the container's user namespace (`idmap`).
    fn is_mapped(&self) -> bool {
        self.options.data.iter().any(|option| option == IDMAP)
    }
}

fn volumes(container: &Container) -> Vec<Volume<'_>> {
    let all = container.operation.spec.mounts().iter().flatten();
    // Mounts below these directories belong to the running container. Docker does not show them either.
    let is_shown = |target: &Path| !["/dev", "/proc", "/sys"].iter().any(|top| target.starts_with(top));
    all.filter(|mount| is_shown(mount.destination()))
        .filter_map(|mount| {
            let mut options = Options::parse(mount.options().iter().flatten());
            if mount.typ().as_deref().unwrap_or("bind") == "bind" {
                options.bind.get_or_insert(false);
            }
            options.bind?;
            Some(Volume { source: mount.source().as_deref()?, target: mount.destination(), options })
        })
        .collect()
}

/// For `map_err`: the error of `verb` on a path in the container.
fn on<E: Into<operation::Cause>>(verb: &'static str, path: &Path) -> impl FnOnce(E) -> anyhow::Error {
    move |cause| operation::Error::new(verb, format_args!("{path:?}"), cause).into()
}

/// Moves this process into its own mount namespace, so that no other process sees its mounts.
fn leave_mounts() -> Result<()> {
    // Only once: mounts of the earlier namespace would be lost.
    static LEFT: AtomicBool = AtomicBool::new(false);
    if LEFT.swap(true, Ordering::Relaxed) {
        return Ok(());
    }
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)?;
    Ok(mount::propagate(Path::new("/"), MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?)
}

/// The path of a file in a container, as seen from the host.
pub(crate) fn shown(scope: &Scope, id: &Id, path: &Path) -> Result<String> {
    let container = Container::read(scope, id)?;
    let below = path.strip_prefix("/").unwrap_or(path);
    let root = match container.is_running()? {
        true => PathBuf::from(format!("/proc/{}/root", container.identity().pid)),
        false => container.operation.spec.root().as_ref().map(|root| root.path().clone()).unwrap_or_default(),
    };
    Ok(root.join(below).to_string_lossy().into_owned())
}

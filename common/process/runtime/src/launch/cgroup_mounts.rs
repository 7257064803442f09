//! `/sys/fs/cgroup` of a container of OCI runtime-spec: the container's part of what the host has there. On a
//! host with version 1 it has a directory for each hierarchy, and one for version 2 if the host also has
//! that.

use std::{
    fs,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use mount::{
    Detached, FileSystem, Options,
    resolve::{self, Leaf},
};
use rustix::{
    fs::{Mode, OFlags, mkdirat, openat, symlinkat},
    io::Errno,
    mount::MountAttrFlags,
};

use super::kernel;
use crate::{Error, error::Result};

/// Where hosts mount cgroups.
const PLACE: &str = "/sys/fs/cgroup";
const OWN: &str = "/proc/self/cgroup";
const UNIFIED: &str = "unified";

/// A hierarchy, from a line of `/proc/self/cgroup` (cgroups(7)).
struct Hierarchy {
    /// Its controllers, or `name=NAME`; empty for version 2.
    names: Vec<String>,
    /// The process's cgroup in it.
    path: String,
}

impl Hierarchy {
    /// The name of its directory.
    fn directory(&self) -> String {
        match self.names.as_slice() {
            [] => UNIFIED.to_owned(),
            names => names.join(",").trim_start_matches("name=").to_owned(),
        }
    }

    /// An unattached mount of the hierarchy, as the caller's cgroup namespace shows it.
    fn mount(&self, attributes: MountAttrFlags) -> Result<Detached> {
        if self.names.is_empty() {
            return Ok(FileSystem::open("cgroup2")?.mount(attributes)?);
        }
        let file_system = FileSystem::open("cgroup")?;
        file_system.set("source", "cgroup")?;
        let is_named = self.names.iter().any(|name| name.starts_with("name="));
        file_system
            .set_data(is_named.then_some("none").into_iter().chain(self.names.iter().map(String::as_str)))?;
        Ok(file_system.mount(attributes)?)
    }

    /// A copy of the host's mount, from the container's own cgroup on.
    fn of_host(&self, place: &Path) -> Result<Detached> {
        let own = place.join(self.path.trim_start_matches('/'));
        Ok(Detached::copy(&own, false)?)
    }
}

/// Mounts the hierarchies of the host. `own` says that the container has its own cgroup namespace, and is the
/// first in it.
pub(super) fn add(root: BorrowedFd<'_>, target: &Path, options: Options, own: bool) -> Result<()> {
    let hierarchies = hierarchies()?;
    let place = resolve::create_in(root, target, Leaf::Directory)
        .map_err(Error::at("mount", format_args!("cgroup on {target:?}")))?;
    let failed = || Error::at::<Errno>("mount", format!("cgroup on {target:?}"));
    let path = kernel::path_in(root, place.as_fd()).map_err(failed())?;
    kernel::allow("cgroup", None, target, &path)
        .map_err(Error::at("mount", format_args!("cgroup on {target:?}")))?;
    let has_old = hierarchies.iter().any(|hierarchy| !hierarchy.names.is_empty());
    if !has_old || Path::new(PLACE).join("cgroup.controllers").exists() {
        let unified = Hierarchy { names: Vec::new(), path: own_path(&hierarchies) };
        let mounted = one(&unified, Path::new(PLACE), &options, own)?;
        return mounted.attach(place).map_err(failed());
    }
    let top = FileSystem::open("tmpfs")?;
    top.set("source", "tmpfs")?;
    top.set("mode", "755")?;
    let readonly = MountAttrFlags::MOUNT_ATTR_RDONLY;
    let top = top.mount(options.attributes - readonly)?;
    top.attach(place).map_err(failed())?;
    for hierarchy in &hierarchies {
        let name = hierarchy.directory();
        let of_host = Path::new(PLACE).join(&name);
        if hierarchy.names.is_empty() && !of_host.exists() {
            continue;
        }
        let inside = directory(&top, &name).map_err(failed())?;
        one(hierarchy, &of_host, &options, own)?.attach(inside).map_err(failed())?;
        if hierarchy.names.len() > 1 {
            for controller in &hierarchy.names {
                symlinkat(&name, &top, controller).map_err(failed())?;
            }
        }
    }
    if options.attributes.contains(readonly) {
        top.change(&Options::parse(["ro"]), false).map_err(failed())?;
    }
    Ok(())
}

fn one(hierarchy: &Hierarchy, of_host: &Path, options: &Options, own: bool) -> Result<Detached> {
    if own {
        return hierarchy.mount(options.attributes);
    }
    let mounted = hierarchy.of_host(of_host)?;
    mounted.change(options, false).map_err(Error::at("mount", "cgroup"))?;
    Ok(mounted)
}

fn directory(top: &Detached, name: &str) -> std::result::Result<OwnedFd, Errno> {
    mkdirat(top.as_fd(), name, Mode::from_raw_mode(0o755))?;
    openat(top.as_fd(), name, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

fn own_path(hierarchies: &[Hierarchy]) -> String {
    let unified = hierarchies.iter().find(|hierarchy| hierarchy.names.is_empty());
    unified.map_or_else(|| "/".to_owned(), |hierarchy| hierarchy.path.clone())
}

fn hierarchies() -> Result<Vec<Hierarchy>> {
    let text = fs::read_to_string(OWN).map_err(Error::at("read", format_args!("{OWN:?}")))?;
    Ok(text.lines().filter_map(parse).collect())
}

fn parse(line: &str) -> Option<Hierarchy> {
    let (names, path) = line.split_once(':')?.1.split_once(':')?;
    let names = names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
    Some(Hierarchy { names, path: path.to_owned() })
}

//! `/sys/fs/cgroup` of a container: the host's hierarchies, seen from the container's cgroup namespace.

use std::{ffi::OsString, fs, path::Path};

use mount::table;
use oci_spec::runtime::{Mount, MountBuilder};

use crate::{Error, error::Result};

const CGROUP: &str = "/sys/fs/cgroup";
/// linux/magic.h
const CGROUP2_SUPER_MAGIC: rustix::fs::FsWord = 0x6367_7270;

/// The meaning of a mount of type `cgroup` on this host.
#[derive(Debug, Default)]
pub(crate) struct Expanded {
    /// One for cgroup v2; a tmpfs and one for each hierarchy for v1; none if the host has none.
    pub(crate) mounts: Vec<Mount>,
    /// Names of controllers that share a hierarchy: link and target.
    pub(crate) links: Vec<(OsString, OsString)>,
}

pub(crate) fn expand(mount: &Mount) -> Result<Expanded> {
    let top = Path::new(CGROUP);
    // Most hosts have this, and then the mount table need not be read.
    if rustix::fs::statfs(top).is_ok_and(|found| found.f_type == CGROUP2_SUPER_MAGIC) {
        let mounts = vec![plain(mount, "cgroup2", mount.destination(), &[])?];
        return Ok(Expanded { mounts, links: vec![] });
    }
    let table = table::read()?;
    let hierarchies: Vec<_> = table.iter().filter(|entry| entry.kind.starts_with("cgroup")).collect();
    let mut mounts = Vec::new();
    for entry in hierarchies {
        // One directory for each, directly below.
        let Some(name) = entry.target.file_name().filter(|_| entry.target.parent() == Some(top)) else {
            continue;
        };
        // Hierarchies can be mounted on each other, if the host's own namespaces were made that way: take one of each.
        let target = mount.destination().join(name);
        if mounts.iter().any(|mount: &Mount| *mount.destination() == target) {
            continue;
        }
        let controllers: Vec<&str> = match entry.kind.as_str() {
            "cgroup" => entry.options.split(',').filter(|option| is_controller(option)).collect(),
            _ => vec![],
        };
        mounts.push(plain(mount, &entry.kind, &target, &controllers)?);
    }
    if mounts.is_empty() {
        return Ok(Expanded::default());
    }
    mounts.insert(0, plain(mount, "tmpfs", mount.destination(), &["mode=755"])?);
    Ok(Expanded { mounts, links: links(top) })
}

/// Whether the option is a controller, and not another option in the mount table.
fn is_controller(option: &str) -> bool {
    !matches!(
        option,
        "rw" | "ro" | "xattr" | "clone_children" | "noprefix" | "cpuset_v2_mode" | "favordynmods"
    ) && !option.starts_with("release_agent=")
}

fn plain(mount: &Mount, kind: &str, target: &Path, data: &[&str]) -> Result<Mount> {
    let mut options = mount.options().clone().unwrap_or_default();
    options.extend(data.iter().map(|&option| option.to_owned()));
    MountBuilder::default()
        .destination(target)
        .typ(kind)
        .source(kind)
        .options(options)
        .build()
        .map_err(|error| Error::new(format_args!("mount {kind} on {target:?}: {error}")))
}

fn links(top: &Path) -> Vec<(OsString, OsString)> {
    let Ok(entries) = fs::read_dir(top) else { return Vec::new() };
    let mut links: Vec<_> = entries
        .filter_map(|entry| {
            let entry = entry.ok().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_symlink()))?;
            let target = fs::read_link(entry.path()).ok()?;
            // A link to a name in the same directory. Links to other places mean nothing in the container.
            (target.components().count() == 1).then(|| (entry.file_name(), target.into_os_string()))
        })
        .collect();
    links.sort();
    links
}

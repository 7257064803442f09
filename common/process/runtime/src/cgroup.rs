//! `/sys/fs/cgroup` as a container sees it: as the host has it, from its own cgroup namespace.

use std::{ffi::OsString, fs, path::Path};

use mount::table;
use oci_spec::runtime::{Mount, MountBuilder};

use crate::{Error, error::Result};

const CGROUP: &str = "/sys/fs/cgroup";
/// linux/magic.h
const CGROUP2_SUPER_MAGIC: rustix::fs::FsWord = 0x6367_7270;

/// What a mount of the type `cgroup` means on this host.
#[derive(Debug, Default)]
pub(crate) struct Expanded {
    /// One for cgroup v2; a tmpfs and one for each hierarchy for v1; none where the host has none.
    pub(crate) mounts: Vec<Mount>,
    /// Names of controllers that share a hierarchy: link and target.
    pub(crate) links: Vec<(OsString, OsString)>,
}

pub(crate) fn expand(mount: &Mount) -> Result<Expanded> {
    let top = Path::new(CGROUP);
    // What most hosts have: no need to read through all their mounts.
    if rustix::fs::statfs(top).is_ok_and(|found| found.f_type == CGROUP2_SUPER_MAGIC) {
        let mounts = vec![plain(mount, "cgroup2", mount.destination(), &[])?];
        return Ok(Expanded { mounts, links: vec![] });
    }
    let table = table::read()?;
    let hierarchies: Vec<_> = table.iter().filter(|entry| entry.kind.starts_with("cgroup")).collect();
    let mut mounts = Vec::new();
    for entry in hierarchies {
        // One directory for each, right below.
        let Some(name) = entry.target.file_name().filter(|_| entry.target.parent() == Some(top)) else {
            continue;
        };
        // Mounted over one another, by whoever made the host's own namespaces: one of each.
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

/// Not what the mount table says beside them.
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
            // A name beside it; what leads elsewhere means nothing in the container.
            (target.components().count() == 1).then(|| (entry.file_name(), target.into_os_string()))
        })
        .collect();
    links.sort();
    links
}

//! The namespaces of a container that runs.
//!
//! Its first process may have gone into others since it was started, which only look like the container's. So the process
//! that waits for it holds the first ones, as open files, and whoever joins opens them there.

use std::{
    fs::{self, File},
    os::{
        fd::{BorrowedFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
};

use oci_spec::runtime::LinuxNamespaceType as Kind;

use crate::{Error, Identity, error::Result};

/// Each kind and its name in `/proc/pid/ns`, in the order in which they are entered: the user namespace gives the rights
/// for the others, and with the mount namespace the host's `/proc` is gone.
const KINDS: [(Kind, &str); 7] = [
    (Kind::User, "user"),
    (Kind::Cgroup, "cgroup"),
    (Kind::Uts, "uts"),
    (Kind::Ipc, "ipc"),
    (Kind::Network, "net"),
    (Kind::Pid, "pid"),
    (Kind::Mount, "mnt"),
];

/// How many there are at most.
pub(super) const MOST: usize = KINDS.len();

/// The caller's own, to be held by its parent. `user`: the user namespace that it has still to enter.
pub(super) fn own(user: Option<BorrowedFd<'_>>) -> Result<Vec<OwnedFd>> {
    let one = |(kind, name): &(Kind, &str)| match (kind, user) {
        (Kind::User, Some(user)) => user.try_clone_to_owned().map_err(Error::at("duplicate", "descriptor")),
        _ => open(&Path::new("/proc/self/ns").join(name)),
    };
    KINDS.iter().map(one).collect()
}

/// Those that the container of a process was started with. If nobody holds them any more, those of the process.
pub(super) fn of(first: Identity) -> Result<Vec<(Kind, OwnedFd)>> {
    let paths = match first.parent()? {
        Some(holder) => held_by(holder, first.pid),
        None => None,
    };
    let own = PathBuf::from(format!("/proc/{}/ns", first.pid));
    let paths = paths.unwrap_or_else(|| KINDS.map(|(_, name)| own.join(name)).to_vec());
    let mut list = Vec::new();
    for ((kind, _), path) in KINDS.iter().zip(&paths) {
        let opened = open(path)?;
        if *kind != Kind::User || !is_ours(&opened)? {
            list.push((*kind, opened));
        }
    }
    // Only now is it sure that the pid was this process's all the time.
    match first.is_alive()? {
        true => Ok(list),
        false => Err(Error::system(
            "enter",
            format_args!("the namespaces of process {}", first.pid),
            "it has ended",
        )),
    }
}

/// The descriptors of a process that hold the namespaces of the container whose first process is `first`. That process can
/// change all of its namespaces except for the pid namespace, which so tells whether they are the container's.
fn held_by(holder: i32, first: i32) -> Option<Vec<PathBuf>> {
    let pids = fs::read_link(format!("/proc/{first}/ns/pid")).ok()?;
    let entries = fs::read_dir(format!("/proc/{holder}/fd")).ok()?;
    let links: Vec<(PathBuf, PathBuf)> = entries
        .flatten()
        .filter_map(|entry| Some((fs::read_link(entry.path()).ok()?, entry.path())))
        .collect();
    links.iter().find(|(link, _)| *link == pids)?;
    let of = |name: &str| {
        let start = format!("{name}:[");
        links
            .iter()
            .find(|(link, _)| link.to_string_lossy().starts_with(&start))
            .map(|(_, path)| path.clone())
    };
    KINDS.iter().map(|(_, name)| of(name)).collect()
}

fn open(path: &Path) -> Result<OwnedFd> {
    File::open(path).map(OwnedFd::from).map_err(Error::at("open", format_args!("namespace {path:?}")))
}

/// Whether it is the user namespace that the caller is in.
fn is_ours(namespace: &OwnedFd) -> Result<bool> {
    let own = fs::metadata("/proc/self/ns/user").map_err(Error::at("read", "\"/proc/self/ns/user\""))?;
    let found = rustix::fs::fstat(namespace).map_err(Error::at("read", "user namespace"))?;
    Ok((found.st_dev, found.st_ino) == (own.dev(), own.ino()))
}

//! The namespaces of a running container.
//!
//! After its start, the first process may enter other namespaces, which only look like the container's. So
//! its waiting parent holds the first ones, as open files with numbers in a row. A process that joins the
//! container opens them there.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::{
        fd::{AsRawFd, BorrowedFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
};

use oci_spec::runtime::LinuxNamespaceType as Kind;
use rustix::io::fcntl_dupfd_cloexec;

use crate::{Error, Identity, error::Result};

/// Each kind and its name in `/proc/pid/ns`, in the order in which they are entered. The user namespace comes
/// first, because it gives the rights for the others. The mount namespace comes last, because the host's
/// `/proc` is gone with it.
const KINDS: [(Kind, &str); 7] = [
    (Kind::User, "user"),
    (Kind::Cgroup, "cgroup"),
    (Kind::Uts, "uts"),
    (Kind::Ipc, "ipc"),
    (Kind::Network, "net"),
    (Kind::Pid, "pid"),
    (Kind::Mount, "mnt"),
];

/// The highest number of namespaces.
pub(super) const MOST: usize = KINDS.len();

/// The caller's own namespaces, for its parent to hold. `user` is the user namespace that the caller will
/// enter later.
pub(super) fn own(user: Option<BorrowedFd<'_>>) -> Result<Vec<OwnedFd>> {
    let one = |(kind, name): &(Kind, &str)| match (kind, user) {
        (Kind::User, Some(user)) => user.try_clone_to_owned().map_err(Error::at("duplicate", "descriptor")),
        _ => open(&Path::new("/proc/self/ns").join(name)),
    };
    KINDS.iter().map(one).collect()
}

/// The namespaces that the process's container was started with. If nobody holds them any more, the
/// namespaces of the process.
pub(super) fn of(first: Identity) -> Result<Vec<(Kind, OwnedFd)>> {
    let paths = match first.parent()? {
        Some(holder) => held_by(holder, first.pid),
        None => None,
    };
    let own = PathBuf::from(format!("/proc/{}/ns", first.pid));
    let paths = paths.unwrap_or_else(|| KINDS.map(|(_, name)| own.join(name)).to_vec());
    let mut list = Vec::new();
    for ((kind, name), path) in KINDS.iter().zip(&paths) {
        let opened = open(path)?;
        // One that the container shares with the caller cannot be entered from a user namespace of the container. Only
        // entering the mount namespace leads to its root directory.
        if *kind == Kind::Mount || !is_own(&opened, name) {
            list.push((*kind, opened));
        }
    }
    // Checked now: if the process is alive, the pid was its own all the time.
    match first.is_alive()? {
        true => Ok(list),
        false => Err(Error::system(
            "enter",
            format_args!("the namespaces of process {}", first.pid),
            "it has ended",
        )),
    }
}

/// The descriptors of the process `holder` that hold the namespaces of the container whose first process is
/// `first`. The first process can change all of its namespaces except for the pid namespace, so the pid
/// namespace identifies the container. If several containers share it, the namespaces most like the first
/// process's own are taken.
fn held_by(holder: i32, first: i32) -> Option<Vec<PathBuf>> {
    let present = KINDS.map(|(_, name)| fs::read_link(format!("/proc/{first}/ns/{name}")).ok());
    let directory = PathBuf::from(format!("/proc/{holder}/fd"));
    let entries = fs::read_dir(&directory).ok()?;
    let links: BTreeMap<usize, PathBuf> = entries
        .flatten()
        .filter_map(|entry| {
            Some((entry.file_name().to_str()?.parse().ok()?, fs::read_link(entry.path()).ok()?))
        })
        .collect();
    let is_of_kind = |(at, (_, name)): (usize, &(Kind, &str))| {
        links.get(&at).is_some_and(|link| link.to_string_lossy().starts_with(&format!("{name}:[")))
    };
    let same = |row: &usize| (*row..).zip(&present).filter(|(at, own)| links.get(at) == own.as_ref()).count();
    let pids = KINDS.iter().position(|(kind, _)| *kind == Kind::Pid)?;
    let rows = links.keys().copied().filter(|row| {
        present[pids].is_some()
            && links.get(&(row + pids)) == present[pids].as_ref()
            && (*row..).zip(&KINDS).all(is_of_kind)
    });
    let row = rows.max_by_key(same)?;
    Some((row..).take(MOST).map(|at| directory.join(at.to_string())).collect())
}

/// Copies the descriptors to numbers in a row. This tells the namespaces of one container from others that
/// the process also holds.
pub(super) fn in_a_row(held: &[OwnedFd]) -> Result<Vec<OwnedFd>> {
    let mut least = 3;
    loop {
        let mut row: Vec<OwnedFd> = Vec::with_capacity(held.len());
        for (namespace, wanted) in held.iter().zip(least..) {
            let copy =
                fcntl_dupfd_cloexec(namespace, wanted).map_err(Error::at("duplicate", "descriptor"))?;
            let number = copy.as_raw_fd();
            if number != wanted {
                // The descriptor in the way may be gone at the next attempt. Each attempt begins where the
                // last one was stopped, so the loop ends.
                least = number;
                break;
            }
            row.push(copy);
        }
        if row.len() == held.len() {
            return Ok(row);
        }
    }
}

fn open(path: &Path) -> Result<OwnedFd> {
    File::open(path).map(OwnedFd::from).map_err(Error::at("open", format_args!("namespace {path:?}")))
}

/// The time namespace of a process, if it is not the caller's.
pub(super) fn time_of(first: Identity) -> Result<Option<OwnedFd>> {
    let path = PathBuf::from(format!("/proc/{}/ns/time", first.pid));
    // A kernel without time namespaces has no such file.
    let opened = operation::unless_gone(File::open(&path))
        .map_err(Error::at("open", format_args!("namespace {path:?}")))?;
    Ok(opened.map(OwnedFd::from).filter(|opened| !is_own(opened, "time")))
}

/// Whether the caller is in this namespace, whose name in `/proc/self/ns` is `name`.
pub(super) fn is_own(namespace: &OwnedFd, name: &str) -> bool {
    let found = rustix::fs::fstat(namespace).map(|found| (found.st_dev, found.st_ino));
    found.is_ok_and(|found| own_identity(name) == Some(found))
}

/// Whether the caller is in the namespace of this kind at `path`, whatever the path is. False if there is no
/// namespace at `path`.
pub fn is_own_namespace(kind: Kind, path: &Path) -> bool {
    let name = KINDS.iter().find(|(known, _)| *known == kind).map(|(_, name)| *name);
    let found = fs::metadata(path).map(|found| (found.dev(), found.ino()));
    found.is_ok_and(|found| name.and_then(own_identity) == Some(found))
}

/// The device and inode number of the caller's own namespace of this name.
fn own_identity(name: &str) -> Option<(u64, u64)> {
    fs::metadata(Path::new("/proc/self/ns").join(name)).ok().map(|own| (own.dev(), own.ino()))
}

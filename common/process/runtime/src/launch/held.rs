//! The namespaces of a container that runs.
//!
//! Its first process may have gone into others since it was started, which only look like the container's. So the process
//! that waits for it holds the first ones, as open files with numbers in a row, and whoever joins opens them there.

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
/// change all of its namespaces except for the pid namespace, which so tells whether they are the container's. Where several
/// containers share that one, those that are most like the process's own are taken.
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

/// The same descriptors with numbers in a row: so whoever joins tells those of one container from those of others that the
/// process holds as well.
pub(super) fn in_a_row(held: &[OwnedFd]) -> Result<Vec<OwnedFd>> {
    let mut least = 3;
    loop {
        let mut row: Vec<OwnedFd> = Vec::with_capacity(held.len());
        for (namespace, wanted) in held.iter().zip(least..) {
            let copy =
                fcntl_dupfd_cloexec(namespace, wanted).map_err(Error::at("duplicate", "descriptor"))?;
            let number = copy.as_raw_fd();
            if number != wanted {
                // What is in the way may be gone by the next attempt: each begins where this one was stopped, so it ends.
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

/// Whether it is the user namespace that the caller is in.
fn is_ours(namespace: &OwnedFd) -> Result<bool> {
    let own = fs::metadata("/proc/self/ns/user").map_err(Error::at("read", "\"/proc/self/ns/user\""))?;
    let found = rustix::fs::fstat(namespace).map_err(Error::at("read", "user namespace"))?;
    Ok((found.st_dev, found.st_ino) == (own.dev(), own.ino()))
}

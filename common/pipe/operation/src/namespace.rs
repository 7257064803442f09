//! In which namespaces something was made, to tell "gone" from "not to be seen from here".

use std::{fs, io, os::unix::fs::MetadataExt, path::PathBuf};

use crate::{Cause, Error};

/// The inode of the machine's first pid namespace, from which all processes can be seen (the kernel's
/// `PROC_PID_INIT_INO`).
const FIRST_PIDS: u64 = 0xEFFF_FFFC;

/// The environment variable by which a user says that a namespace which cannot be seen has ended: its value is `ended`.
const ORIGIN: &str = "STAVE_ORIGIN";

/// Where `ip netns` names network namespaces (ip-netns(8)).
const NAMED: &str = "/run/netns";

/// A kind of namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Namespace {
    /// What links, addresses, routes and rules belong to.
    Network,
    /// What a pid belongs to.
    Pids,
}

/// Where a namespace is that is not this process's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whereabouts {
    /// It can be entered by this file.
    At(PathBuf),
    /// It may exist: this process sees only a part of the machine's processes, and not those that were in it.
    Hidden,
    /// No process and no name of `ip netns` is left of it, so what was in it is gone.
    Gone,
}

impl Namespace {
    /// The file's name in `/proc/PID/ns`.
    fn file(self) -> &'static str {
        match self {
            Self::Network => "net",
            Self::Pids => "pid",
        }
    }

    /// The inode of this process's own namespace.
    ///
    /// # Errors
    /// When `/proc` is not mounted.
    pub fn own(self) -> Result<u64, Error> {
        self.inode("self").map_err(Error::on("look at", format_args!("\"/proc/self/ns/{}\"", self.file())))
    }

    /// The inode of a process's namespace.
    ///
    /// # Errors
    /// When the process has ended, or does not show its namespaces.
    pub fn of(self, pid: i32) -> io::Result<u64> {
        self.inode(pid)
    }

    fn inode(self, process: impl std::fmt::Display) -> io::Result<u64> {
        Ok(fs::metadata(format!("/proc/{process}/ns/{}", self.file()))?.ino())
    }

    /// The files by which namespaces of this kind can be entered: those that `ip netns` names, and those of processes.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn files(self) -> io::Result<impl Iterator<Item = PathBuf>> {
        let is_process = |path: &PathBuf| {
            path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.parse::<u32>().is_ok())
        };
        let processes = entries("/proc")?.into_iter().filter(is_process);
        let named = match self {
            Self::Network => entries(NAMED).unwrap_or_default(),
            Self::Pids => Vec::new(),
        };
        Ok(named.into_iter().chain(processes.map(move |path| path.join("ns").join(self.file()))))
    }

    /// Where the namespace with this inode is. `pids` is the pid namespace of whoever was in it.
    ///
    /// # Errors
    /// When `/proc` is not mounted, or cannot be read.
    pub fn find(self, inode: u64, pids: u64) -> Result<Whereabouts, Error> {
        let is_it = |path: &PathBuf| fs::metadata(path).is_ok_and(|found| found.ino() == inode);
        Ok(match self.files().map_err(Error::on("list", "/proc"))?.find(is_it) {
            Some(path) => Whereabouts::At(path),
            None if is_said_to_have_ended() || sees_all_of(pids)? => Whereabouts::Gone,
            None => Whereabouts::Hidden,
        })
    }

    /// Refuses to go on where `what` was made in another namespace than this process's own, if that may still
    /// exist. Returns whether it is this one: otherwise, `what` is gone with its namespace.
    ///
    /// # Errors
    /// The refusal, with the command that enters the namespace as its hint.
    pub fn is_here(self, what: impl std::fmt::Display, inode: u64, pids: u64) -> Result<bool, Error> {
        if self.own()? == inode {
            return Ok(true);
        }
        let (kind, flag) = match self {
            Self::Network => ("network", "net"),
            Self::Pids => ("pid", "pid"),
        };
        let refused = |hint: String| {
            let cause = Cause::from(format!("it was started in another {kind} namespace than this process"));
            Error::new("", what, cause).with_hint(hint)
        };
        match self.find(inode, pids)? {
            Whereabouts::At(path) => {
                Err(refused(format!("`nsenter --{flag}={} COMMAND` runs a command there", path.display())))
            }
            Whereabouts::Hidden => Err(refused(format!(
                "run the command there, or on the host; if that namespace has ended, set {ORIGIN}=ended"
            ))),
            Whereabouts::Gone => Ok(false),
        }
    }
}

/// Whether this process would see every process of the pid namespace `pids`, if there were one: it is its own, one below
/// it, or this is the machine's first.
fn sees_all_of(pids: u64) -> Result<bool, Error> {
    let own = Namespace::Pids.own()?;
    if own == FIRST_PIDS || own == pids {
        return Ok(true);
    }
    let mut files = Namespace::Pids.files().map_err(Error::on("list", "/proc"))?;
    Ok(files.any(|path| fs::metadata(path).is_ok_and(|found| found.ino() == pids)))
}

fn is_said_to_have_ended() -> bool {
    std::env::var_os(ORIGIN).is_some_and(|said| said == "ended")
}

fn entries(directory: &str) -> io::Result<Vec<PathBuf>> {
    fs::read_dir(directory)?.map(|entry| entry.map(|entry| entry.path())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_here_elsewhere_or_gone() {
        for kind in [Namespace::Network, Namespace::Pids] {
            let (own, pids) = (kind.own().unwrap(), Namespace::Pids.own().unwrap());
            assert!(kind.is_here("it", own, pids).unwrap());
            assert!(matches!(kind.find(own, pids).unwrap(), Whereabouts::At(_)));
            assert!(!kind.is_here("it", 1, pids).unwrap(), "no namespace has this number");
            // Who was in a pid namespace that cannot be seen may be anywhere.
            let unseen = if pids == FIRST_PIDS { Whereabouts::Gone } else { Whereabouts::Hidden };
            assert_eq!(kind.find(1, 2).unwrap(), unseen);
        }
    }
}

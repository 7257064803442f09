//! Who is at the other end of a Unix socket.

use std::{
    ffi::CStr,
    fs,
    io::Write,
    os::fd::{AsFd, OwnedFd},
};

use nix::sys::socket::{GetSockOpt, getsockopt, sockopt};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{CWD, Mode, OFlags, openat, stat},
    io::{Errno, retry_on_intr},
    process::{Pid, PidfdFlags, pidfd_open},
};

/// How a line of `/proc/PID/cgroup` goes on for a process of a container or a RUN step (cgroups(7)).
const CONTAINERS: &[u8] = b":/stave/";

/// For poll(2): does not wait.
const NOW: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// The length of the longest path below `/proc` that is read here.
const LONGEST: usize = 32;

/// Whether the process at the other end of this Unix socket may be believed: it has the user `owner`, it is no process
/// of a container, and it has not ended.
///
/// Abstract addresses belong to a network namespace. So a container on the host's network can connect to the
/// sockets of Stave's own processes, and can listen in their place (CVE-2020-15257). The peer is the process that
/// called listen(2) or connect(2) (unix(7), "SO_PEERCRED"): one that is to be found after its parent has ended calls
/// listen(2) itself. Allocates no memory. A process that cannot be looked at is not believed: this is for who
/// lets somebody in.
pub fn is_believed(socket: impl AsFd, owner: u32) -> bool {
    believed(socket, owner).unwrap_or(false)
}

/// As [`is_believed`], for who looks for a process of ours: "not known" is not "not there".
///
/// # Errors
/// When the process cannot be looked at.
pub fn believed(socket: impl AsFd, owner: u32) -> Result<bool, Errno> {
    let peer = ask(&socket, sockopt::PeerCredentials)?;
    // The pid is 0 for a process that this one's pid namespace does not have.
    let Some(pid) = Pid::from_raw(peer.pid()).filter(|_| peer.uid() == owner) else { return Ok(false) };
    let process = match ask(&socket, sockopt::PeerPidfd) {
        // Kernels before 6.5 do not have the option. There, another process may have got the pid since.
        Err(Errno::NOPROTOOPT) => pidfd_open(pid, PidfdFlags::empty()),
        process => process,
    };
    match process {
        // It has ended.
        Err(Errno::SRCH | Errno::NODATA | Errno::INVAL) => Ok(false),
        Err(errno) => Err(errno),
        // While the process lives, no other one has its pid.
        Ok(process) => Ok(!is_of_a_container(peer.pid()) && is_alive(&process)?),
    }
}

fn ask<O: GetSockOpt>(socket: impl AsFd, option: O) -> Result<O::Val, Errno> {
    getsockopt(&socket, option).map_err(|errno| Errno::from_raw_os_error(errno as i32))
}

/// The processes that have the socket which listens at this abstract address of the thread's network namespace, with
/// their users. Without root, only this user's.
pub(crate) fn holders(name: &[u8]) -> Vec<(i32, u32)> {
    let name = format!("@{}", String::from_utf8_lossy(name));
    let table = fs::read("/proc/thread-self/net/unix").unwrap_or_default();
    let table = String::from_utf8_lossy(&table);
    // proc(5): Num, RefCount, Protocol, Flags (00010000: it listens), Type, St, Inode, Path.
    let inodes = table.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        (words.get(3) == Some(&"00010000") && words.get(7) == Some(&&*name)).then(|| words[6].to_owned())
    });
    let links: Vec<String> = inodes.map(|inode| format!("socket:[{inode}]")).collect();
    let is_it = |entry: fs::DirEntry| {
        fs::read_link(entry.path()).is_ok_and(|link| links.iter().any(|socket| link.as_os_str() == &**socket))
    };
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let with_user = |process: fs::DirEntry| {
        let pid = process.file_name().to_str()?.parse().ok()?;
        let mut descriptors = fs::read_dir(process.path().join("fd")).ok()?.flatten();
        descriptors.any(is_it).then_some((pid, user(pid)?))
    };
    processes.filter_map(with_user).collect()
}

/// The effective user of a process. The owner of its directory in `/proc` can be another one (proc(5)).
fn user(pid: i32) -> Option<u32> {
    let mut text = [0; 4096];
    let mut words = line_of_status(&pid, b"Uid:", &mut text)?;
    std::str::from_utf8(words.nth(1)?).ok()?.parse().ok()
}

/// Whether a process is in a container's cgroup, or in other user and pid namespaces than this one. What `/proc` does
/// not tell counts for nothing: it may be mounted with `hidepid`, and a process of another user does not show its
/// namespaces. How many pids it has, everybody sees (proc_pid_status(5), "NSpid").
pub(crate) fn is_of_a_container(pid: i32) -> bool {
    let is_inside = || {
        let mut text = [0; 4096];
        Some(
            read(format_args!("{pid}/cgroup"), &mut text)?
                .windows(CONTAINERS.len())
                .any(|part| part == CONTAINERS),
        )
    };
    let pids = |of: &dyn std::fmt::Display| Some(line_of_status(of, b"NSpid:", &mut [0; 4096])?.count());
    let is_deeper = pids(&pid).zip(pids(&"self")).is_some_and(|(its, own)| its != own);
    let namespace = |of: &dyn std::fmt::Display, kind: &str| {
        let mut place = [0; LONGEST];
        let found = stat(path(&mut place, format_args!("{of}/ns/{kind}"))?).ok()?;
        Some((found.st_dev, found.st_ino))
    };
    let is_elsewhere =
        |kind: &str| namespace(&pid, kind).zip(namespace(&"self", kind)).is_some_and(|(its, own)| its != own);
    is_inside().unwrap_or_default() || is_deeper || is_elsewhere("user") || is_elsewhere("pid")
}

/// The words of a line of `/proc/PID/status` (proc_pid_status(5)).
fn line_of_status<'a>(
    of: &dyn std::fmt::Display,
    name: &[u8],
    text: &'a mut [u8; 4096],
) -> Option<impl Iterator<Item = &'a [u8]>> {
    let mut lines = read(format_args!("{of}/status"), text)?.split(|letter| *letter == b'\n');
    let line = lines.find_map(|line| line.strip_prefix(name))?;
    Some(line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()))
}

/// The beginning of a file below `/proc`.
fn read<'a>(below: std::fmt::Arguments<'_>, text: &'a mut [u8; 4096]) -> Option<&'a [u8]> {
    let mut place = [0; LONGEST];
    let file = openat(CWD, path(&mut place, below)?, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut length = 0;
    while let Ok(read @ 1..) = rustix::io::read(&file, &mut text[length..]) {
        length += read;
    }
    Some(&text[..length])
}

/// A path below `/proc`.
fn path<'a>(place: &'a mut [u8; LONGEST], below: std::fmt::Arguments<'_>) -> Option<&'a CStr> {
    write!(&mut place[..LONGEST - 1], "/proc/{below}").ok()?;
    CStr::from_bytes_until_nul(place).ok()
}

fn is_alive(process: &OwnedFd) -> Result<bool, Errno> {
    let mut polled = [PollFd::new(process, PollFlags::IN)];
    retry_on_intr(|| poll(&mut polled, Some(&NOW))).map(|ready| ready == 0)
}

/// Whether the other side of a connection is gone.
///
/// # Errors
/// When the connection cannot be looked at.
pub fn has_hung_up(socket: impl AsFd) -> Result<bool, Errno> {
    let mut polled = [PollFd::new(&socket, PollFlags::empty())];
    retry_on_intr(|| poll(&mut polled, Some(&NOW)))?;
    Ok(polled[0].revents().contains(PollFlags::HUP))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{
        os::unix::net::{UnixListener, UnixStream},
        process::Command,
    };

    use super::*;

    #[test]
    fn another_user_and_a_process_that_has_ended_are_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let own = nix::unistd::geteuid().as_raw();
        let to = UnixStream::connect(&path).unwrap();
        let (from, _) = listener.accept().unwrap();
        assert!(is_believed(&to, own) && is_believed(&from, own));
        assert!(!is_believed(&to, own + 1));
        // A socket that a process has handed on.
        let script =
            "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.sendall(b'x')";
        let ran = Command::new("python3").arg("-c").arg(script).arg(&path).status().unwrap();
        assert!(ran.success());
        assert!(!is_believed(&listener.accept().unwrap().0, own));
    }

    #[test]
    fn namespaces_and_paths() {
        assert!(!is_of_a_container(std::process::id().cast_signed()));
        let mut place = [0; LONGEST];
        assert_eq!(path(&mut place, format_args!("{}/ns/user", i32::MAX)), Some(c"/proc/2147483647/ns/user"));
    }
}

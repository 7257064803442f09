//! Finds processes that use a file system: by root, working directory, program, an open file or a mapped
//! file.
//!
//! Processes in the caller's mount namespace keep the mount busy: the kernel then refuses to unmount it.
//! Processes in other mount namespaces have copies of the mount, and the kernel does not report them. They
//! are searched for in `/proc`.

use std::{
    collections::HashMap,
    fmt, fs,
    io::ErrorKind,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags, StatxFlags, openat, readlinkat, statx},
    io::Errno,
};

use crate::{Error, Result, error::on, table};

/// A process that uses a file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Its pid.
    pub pid: u32,
    /// The name of its program (`/proc/PID/comm`).
    pub name: String,
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} ({})", self.pid, self.name)
    }
}

/// Links of a process in `/proc` that show a file in use.
const PLACES: [&str; 3] = ["root", "cwd", "exe"];

/// Directories with more of these links.
const LISTS: [&str; 2] = ["fd", "map_files"];

/// Finds a process in another mount namespace that uses the file system mounted at `target`. A process that
/// only has a copy of the mount does not count.
///
/// # Errors
/// When `target` or the list of processes cannot be read.
pub fn elsewhere(target: &Path) -> Result<Option<User>> {
    let Some(device) = device_of(target)? else { return Ok(None) };
    let own = namespace("thread-self").map_err(on("look at", Path::new("/proc/thread-self/ns/mnt")))?;
    // For each mount namespace: the ids of its mounts of this file system.
    let mut seen: HashMap<Vec<u8>, Vec<u64>> = HashMap::new();
    for pid in pids()? {
        // The first thread may have ended before the others, and each thread can have its own mount
        // namespace.
        for thread in threads(pid) {
            // Fails for a thread that has ended, and for one that the caller may not examine.
            let Ok(namespace) = namespace(&thread.to_string()) else { continue };
            if namespace == own {
                continue;
            }
            if !seen.contains_key(&namespace) {
                let entries = match table::read_from(Path::new(&format!("/proc/{thread}/mountinfo"))) {
                    Ok(entries) => entries,
                    // The thread has ended. Another thread in its namespace has the same mounts.
                    Err(error) if is_over(&error) => continue,
                    Err(error) => return Err(error),
                };
                let ids =
                    entries.iter().filter(|entry| entry.device == device).map(|entry| entry.id).collect();
                seen.insert(namespace.clone(), ids);
            }
            if let Some(ids) = seen.get(&namespace).filter(|ids| !ids.is_empty())
                && open(&thread.to_string()).is_ok_and(|process| uses(&process, ids))
            {
                return Ok(Some(User::of(pid)));
            }
        }
    }
    Ok(None)
}

/// Finds a process in the caller's mount namespace that uses the mount at `target`.
///
/// # Errors
/// As [`elsewhere`].
pub fn here(target: &Path) -> Result<Option<User>> {
    let Some(entry) = table::at(target)? else { return Ok(None) };
    let ids = [entry.id];
    let found = pids()?.into_iter().find(|pid| {
        *pid != std::process::id()
            && threads(*pid)
                .into_iter()
                .any(|thread| open(&thread.to_string()).is_ok_and(|process| uses(&process, &ids)))
    });
    Ok(found.map(User::of))
}

impl User {
    fn of(pid: u32) -> Self {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        Self { pid, name: name.trim_end().to_owned() }
    }
}

fn device_of(target: &Path) -> Result<Option<(u32, u32)>> {
    match statx(CWD, target, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT, StatxFlags::TYPE) {
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        found => {
            let found = found.map_err(on("look at", target))?;
            Ok(Some((found.stx_dev_major, found.stx_dev_minor)))
        }
    }
}

fn pids() -> Result<Vec<u32>> {
    let listing = || Error::on("list", "\"/proc\"");
    let mut pids = Vec::new();
    for entry in fs::read_dir("/proc").map_err(listing())? {
        pids.extend(entry.map_err(listing())?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    Ok(pids)
}

/// Returns the threads of a process, or the first one if they cannot be read. Each has a directory in
/// `/proc`, which `/proc` does not list.
fn threads(pid: u32) -> Vec<u32> {
    let list = format!("/proc/{pid}/task");
    // A directory has two links, and one for each directory in it. Most processes have one thread, and to list
    // it takes four system calls more.
    let links = statx(CWD, &list, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::NLINK);
    if links.is_ok_and(|found| found.stx_nlink == 3) {
        return vec![pid];
    }
    let entries = fs::read_dir(list).into_iter().flatten().flatten();
    let threads: Vec<u32> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    if threads.is_empty() { vec![pid] } else { threads }
}

/// Opens the directory of a process or a thread.
fn open(name: &str) -> Result<OwnedFd> {
    let path = Path::new("/proc").join(name);
    openat(CWD, &path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(on("open", &path))
}

/// The mount namespace of a process or a thread.
fn namespace(name: &str) -> std::result::Result<Vec<u8>, Errno> {
    readlinkat(CWD, format!("/proc/{name}/ns/mnt"), Vec::new()).map(|name| name.into_bytes())
}

/// Whether the process uses one of these mounts. A process that has ended uses none.
fn uses(process: &OwnedFd, ids: &[u64]) -> bool {
    let is_in = |directory: &OwnedFd, name: &Path| {
        statx(directory.as_fd(), name, AtFlags::NO_AUTOMOUNT, StatxFlags::MNT_ID)
            .is_ok_and(|found| ids.contains(&found.stx_mnt_id))
    };
    if PLACES.iter().any(|place| is_in(process, Path::new(place))) {
        return true;
    }
    LISTS.iter().any(|list| {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let Ok(list) = openat(process, *list, flags, Mode::empty()) else { return false };
        let Ok(entries) = rustix::fs::Dir::read_from(&list) else { return false };
        entries.flatten().any(|entry| {
            let name = Path::new(std::ffi::OsStr::new(entry.file_name().to_str().unwrap_or(".")));
            !entry.file_name().to_bytes().starts_with(b".") && is_in(&list, name)
        })
    })
}

/// Whether the error means that a process has ended. For a zombie, the kernel returns "Invalid argument".
fn is_over(error: &Error) -> bool {
    use nix::errno::Errno::{EACCES, EINVAL, EPERM};
    operation::is_gone(error)
        || matches!(error.errno(), Some(EACCES | EINVAL | EPERM))
        || matches!(error.cause(), operation::Cause::Source(source)
            if source.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == ErrorKind::NotFound))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command, Stdio};

    /// A process that has run the script, here or in another mount namespace, and stays.
    fn run(target: &Path, script: &str, elsewhere: bool) -> Child {
        let mut command = Command::new(if elsewhere { "unshare" } else { "env" });
        let script = format!("{script}; echo ready; cat");
        command.args(elsewhere.then_some("--mount")).args(["sh", "-c", &script]).env("TARGET", target);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = [0; 6];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut line).unwrap();
        child
    }

    #[test]
    fn all_threads_are_listed_and_one_that_is_alone() {
        use nix::unistd::gettid;
        let mut alone = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        assert_eq!(threads(alone.id()), [alone.id()]);
        std::thread::spawn(|| {
            let own = u32::try_from(gettid().as_raw()).unwrap();
            assert!(threads(std::process::id()).contains(&own));
        })
        .join()
        .unwrap();
        drop(alone.stdin.take());
        alone.wait().unwrap();
    }

    #[test]
    fn one_that_works_in_it_is_found_and_one_that_only_sees_it_is_not() {
        crate::apart(|| {
            let dir = tempfile::tempdir().unwrap();
            let target = dir.path().join("mounted");
            fs::create_dir(&target).unwrap();
            let tmpfs = crate::FileSystem::open("tmpfs").unwrap();
            let mount = tmpfs.mount(rustix::mount::MountAttrFlags::empty()).unwrap();
            mount.attach(crate::resolve::place(&target).unwrap()).unwrap();
            drop(mount);
            let run = |script: &str, elsewhere: bool| run(&target, script, elsewhere);
            let end = |mut child: Child| {
                drop(child.stdin.take());
                child.wait().unwrap();
            };
            let sees = run("true", true);
            assert_eq!((elsewhere(&target).unwrap(), here(&target).unwrap()), (None, None));
            for script in ["cd $TARGET", "exec 3> $TARGET/file"] {
                let user = run(script, true);
                let found = elsewhere(&target).unwrap();
                assert_eq!(
                    found.map(|user| (user.pid, user.name)),
                    Some((user.id(), "sh".to_owned())),
                    "{script}"
                );
                assert_eq!(here(&target).unwrap(), None);
                end(user);
                let user = run(script, false);
                assert_eq!(here(&target).unwrap().map(|user| user.pid), Some(user.id()));
                assert_eq!(elsewhere(&target).unwrap(), None);
                end(user);
            }
            // The first thread ends, and another one continues.
            let python = "cd $TARGET; exec python3 -c '
import ctypes, os, threading
def stay():
    while open(\"/proc/self/stat\").read().split()[2] != \"Z\": pass
    os.write(1, b\"ready\\n\"); os.read(0, 1); os._exit(0)
threading.Thread(target=stay).start()
ctypes.CDLL(None).syscall({\"x86_64\": 60}.get(os.uname().machine, 93), 0)'";
            let user = run(python, true);
            assert_eq!(elsewhere(&target).unwrap().map(|user| user.pid), Some(user.id()));
            end(user);
            let user = run(python, false);
            assert_eq!(here(&target).unwrap().map(|user| user.pid), Some(user.id()));
            end(user);
            end(sees);
            crate::unmount(&target).unwrap();
        });
    }
}

use std::{
    io::{Read, Write},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Component, Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use rustix::{
    fs::{AtFlags, Dir, Mode, OFlags, ResolveFlags, mkdirat, openat2, unlinkat},
    io::Errno,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};

use operation::{is_gone, unless_gone};

use crate::{
    Hierarchy,
    error::{Result, at},
};

/// How long the processes of a cgroup that is removed may take to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// A cgroup: a directory that is open.
#[derive(Debug)]
pub struct Group {
    directory: OwnedFd,
    path: PathBuf,
}

impl Group {
    /// Makes the cgroup at `path` (absolute, in the hierarchy), and those above it. The last one must not be there yet.
    ///
    /// # Errors
    /// EEXIST for one that is there; EACCES for a user who may not make any.
    pub fn create(hierarchy: &Hierarchy, path: &Path) -> Result<Self> {
        let object = || format!("cgroup {path:?}");
        let names = names(path).map_err(at("create", object()))?;
        let mut above = Self::at(hierarchy, Path::new("/"))?;
        for (index, name) in names.iter().enumerate() {
            match mkdirat(&above, *name, Mode::from_raw_mode(0o755)) {
                Err(Errno::EXIST) if index + 1 < names.len() => {}
                made => made.map_err(at("create", object()))?,
            }
            let directory = open_below(&above, Path::new(name)).map_err(at("create", object()))?;
            let made = Self { directory, path: above.path.join(name) };
            made.inherit(&above)?;
            above = made;
        }
        Ok(above)
    }

    /// The cgroup at `path`, which is there; `/` is the top of the hierarchy.
    pub(crate) fn at(hierarchy: &Hierarchy, path: &Path) -> Result<Self> {
        let directory =
            open_below(hierarchy, relative(path)).map_err(at("open", format_args!("cgroup {path:?}")))?;
        Ok(Self { directory, path: path.to_owned() })
    }

    /// A new cgroup of the controller cpuset of version 1 has no processors and no memory, and takes no process before it has
    /// some: those of the one above.
    fn inherit(&self, above: &Self) -> Result<()> {
        // Version 2 has the files too, and gives by itself what is above.
        if self.is_unified()? {
            return Ok(());
        }
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if unless_gone(self.read(file))?.is_some_and(|own| own.trim().is_empty()) {
                self.write(file, above.read(file)?.trim())?;
            }
        }
        Ok(())
    }

    /// Whether it is of version 2.
    fn is_unified(&self) -> Result<bool> {
        const FILE: &str = "cgroup.controllers";
        let found = openat2(&self.directory, FILE, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), BENEATH);
        let found =
            unless_gone(found).map_err(at("look for", format_args!("{FILE} of cgroup {:?}", self.path)));
        Ok(found?.is_some())
    }

    /// Opens the cgroup; none if it is not there.
    ///
    /// # Errors
    /// When that cannot be told.
    pub fn open(hierarchy: &Hierarchy, path: &Path) -> Result<Option<Self>> {
        let object = || format!("cgroup {path:?}");
        let names = names(path).map_err(at("open", object()))?;
        match open_below(hierarchy, &names.iter().collect::<PathBuf>()) {
            Err(errno) if is_gone(&errno) => Ok(None),
            opened => {
                let directory = opened.map_err(at("open", object()))?;
                Ok(Some(Self { directory, path: path.to_owned() }))
            }
        }
    }

    /// Where it is in the hierarchy.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Moves a process into it, with all its threads; 0 is the caller.
    ///
    /// # Errors
    /// EACCES, EBUSY, ESRCH: cgroups(7).
    pub fn admit(&self, pid: i32) -> Result<()> {
        self.write("cgroup.procs", &pid.to_string())
    }

    /// Whether a process lives in it, or in a cgroup below it.
    ///
    /// # Errors
    /// When that cannot be told.
    pub fn is_populated(&self) -> Result<bool> {
        if self.is_unified()? {
            return Ok(self.read("cgroup.events")?.lines().any(|line| line == "populated 1"));
        }
        // Version 1 does not tell. Only the processes of the cgroup itself are looked at: no other is made below it.
        Ok(!self.read("cgroup.procs")?.trim().is_empty())
    }

    /// Ends every process in it and below it with SIGKILL. Returns at once.
    ///
    /// # Errors
    /// EOPNOTSUPP in a threaded cgroup.
    pub fn kill(&self) -> Result<()> {
        if self.is_unified()? {
            match self.write("cgroup.kill", "1") {
                // A kernel before 5.14. One by one, a process can have forked meanwhile.
                Err(error) if error.errno() == Some(nix::errno::Errno::ENOENT) => {}
                written => return written,
            }
        }
        for pid in self.read("cgroup.procs")?.lines().filter_map(|line| line.parse().ok()) {
            self.kill_one(pid)?;
        }
        Ok(())
    }

    /// Ends every process in it and below it, and waits for their end.
    ///
    /// # Errors
    /// ETIMEDOUT where a process has not ended after ten seconds.
    pub fn end(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while self.is_populated()? {
            if Instant::now() > deadline {
                return Err(at("end", format_args!("the processes of cgroup {:?}", self.path))(
                    Errno::TIMEDOUT,
                ));
            }
            self.kill()?;
            sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Ends a process that is still in the cgroup once its pid cannot be given to another.
    fn kill_one(&self, pid: i32) -> Result<()> {
        let object = || format!("process {pid}");
        let Some(known) = Pid::from_raw(pid) else { return Ok(()) };
        let held = unless_gone(pidfd_open(known, PidfdFlags::empty())).map_err(at("open", object()))?;
        let Some(held) = held else { return Ok(()) };
        if !self.read("cgroup.procs")?.lines().any(|line| line == pid.to_string()) {
            return Ok(());
        }
        let sent = unless_gone(pidfd_send_signal(held, Signal::KILL));
        sent.map(drop).map_err(at("kill", object()))
    }

    /// Ends every process in it, and removes it and all cgroups below it. One that is gone is fine.
    ///
    /// # Errors
    /// EBUSY where a process has not ended after ten seconds.
    pub fn remove(hierarchy: &Hierarchy, path: &Path) -> Result<()> {
        let Some(group) = Self::open(hierarchy, path)? else { return Ok(()) };
        // If one has not ended in time, the kernel says so below.
        match group.end() {
            Err(error) if error.errno() == Some(nix::errno::Errno::ETIMEDOUT) => {}
            ended => ended?,
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            match group.remove_emptied(hierarchy) {
                // The kernel lets go of a process's cgroup a moment after its end was told.
                Err(Errno::BUSY) if Instant::now() < deadline => sleep(Duration::from_millis(1)),
                Err(errno) if is_gone(&errno) => return Ok(()),
                result => return result.map_err(at("remove", format_args!("cgroup {path:?}"))),
            }
        }
    }

    fn remove_emptied(&self, hierarchy: &Hierarchy) -> std::result::Result<(), Errno> {
        remove_below(self.directory.as_fd())?;
        let names = names(&self.path)?;
        let Some((last, above)) = names.split_last() else { return Err(Errno::INVAL) };
        let above = open_below(hierarchy, &above.iter().collect::<PathBuf>())?;
        unlinkat(&above, *last, AtFlags::REMOVEDIR)
    }

    pub(crate) fn read(&self, file: &str) -> Result<String> {
        let read = || -> std::result::Result<String, Errno> {
            let file =
                openat2(&self.directory, file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty(), BENEATH)?;
            let mut text = String::new();
            let read = std::fs::File::from(file).read_to_string(&mut text);
            read.map(|_| text).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
        };
        read().map_err(at("read", format_args!("{file} of cgroup {:?}", self.path)))
    }

    pub(crate) fn write(&self, file: &str, text: &str) -> Result<()> {
        let write = || -> std::result::Result<(), Errno> {
            let file =
                openat2(&self.directory, file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty(), BENEATH)?;
            let written = std::fs::File::from(file).write_all(text.as_bytes());
            written.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
        };
        write().map_err(at("write", format_args!("{text:?} to {file} of cgroup {:?}", self.path)))
    }
}

impl AsFd for Group {
    /// The directory: what CLONE_INTO_CGROUP takes.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

const BENEATH: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS);

/// A path in the hierarchy as one below its top.
pub(crate) fn relative(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

fn open_below(directory: impl AsFd, path: &Path) -> std::result::Result<OwnedFd, Errno> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat2(directory, path, flags, Mode::empty(), BENEATH)
}

/// The names in an absolute path without `.` and `..`; EINVAL for another path, and for that of the hierarchy itself.
fn names(path: &Path) -> std::result::Result<Vec<&std::ffi::OsStr>, Errno> {
    let mut parts = path.components();
    if parts.next() != Some(Component::RootDir) {
        return Err(Errno::INVAL);
    }
    let names = parts.map(|part| match part {
        Component::Normal(name) => Ok(name),
        _ => Err(Errno::INVAL),
    });
    let names = names.collect::<std::result::Result<Vec<_>, _>>()?;
    if names.is_empty() { Err(Errno::INVAL) } else { Ok(names) }
}

/// Removes the cgroups below one, deepest first.
fn remove_below(directory: BorrowedFd<'_>) -> std::result::Result<(), Errno> {
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if !entry.file_type().is_dir() || [c".", c".."].contains(&name) {
            continue;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let below = openat2(directory, name, flags, Mode::empty(), BENEATH);
        match below
            .and_then(|below| remove_below(below.as_fd()))
            .and_then(|()| unlinkat(directory, name, AtFlags::REMOVEDIR))
        {
            Err(errno) if is_gone(&errno) => {}
            removed => removed?,
        }
    }
    Ok(())
}

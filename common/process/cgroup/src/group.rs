use std::{
    ffi::OsStr,
    io::{Read, Write},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Component, Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use rustix::{
    fs::{AtFlags, Dir, DirEntry, Mode, OFlags, ResolveFlags, mkdirat, openat2, unlinkat},
    io::Errno,
};

use operation::{is_gone, unless_gone};

use crate::{
    Hierarchy,
    error::{Result, at},
};

/// How long the processes of a cgroup may take to end when it is removed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A cgroup: its open directory.
#[derive(Debug)]
pub struct Group {
    directory: OwnedFd,
    path: PathBuf,
}

impl Group {
    /// Creates the cgroup at `path` (absolute, in the hierarchy) and its missing parents. The cgroup itself
    /// must not exist.
    ///
    /// # Errors
    /// EEXIST if the cgroup exists; EACCES if the user may not create cgroups.
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

    /// As [`Group::create`], but the cgroup may exist already.
    ///
    /// # Errors
    /// EACCES if the user may not create cgroups.
    pub fn ensure(hierarchy: &Hierarchy, path: &Path) -> Result<Self> {
        Self::ensure_new(hierarchy, path).map(|(group, _)| group)
    }

    /// As [`Group::ensure`]. Also returns whether this call has created the cgroup.
    pub(crate) fn ensure_new(hierarchy: &Hierarchy, path: &Path) -> Result<(Self, bool)> {
        match Self::open(hierarchy, path)? {
            Some(group) => Ok((group, false)),
            None => match Self::create(hierarchy, path) {
                // Another process has just created it.
                Err(error) if error.errno() == Some(nix::errno::Errno::EEXIST) => {
                    Self::at(hierarchy, path).map(|group| (group, false))
                }
                made => made.map(|group| (group, true)),
            },
        }
    }

    /// Opens the cgroup at `path`, which must exist; `/` is the top of the hierarchy.
    pub(crate) fn at(hierarchy: &Hierarchy, path: &Path) -> Result<Self> {
        let directory =
            open_below(hierarchy, relative(path)).map_err(at("open", format_args!("cgroup {path:?}")))?;
        Ok(Self { directory, path: path.to_owned() })
    }

    /// Gives a new cgroup of the version 1 controller cpuset the processors and the memory nodes of its
    /// parent. Without them it takes no process.
    fn inherit(&self, above: &Self) -> Result<()> {
        // Version 2 has the files too, and inherits by itself.
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

    /// Whether the cgroup is of version 2.
    ///
    /// # Errors
    /// When its files cannot be looked up.
    pub fn is_unified(&self) -> Result<bool> {
        self.has("cgroup.controllers")
    }

    /// Whether this is the first cgroup of the machine in version 2, not just of a cgroup namespace.
    pub(crate) fn is_first(&self) -> Result<bool> {
        Ok(!self.has("cgroup.type")?)
    }

    fn has(&self, file: &str) -> Result<bool> {
        let found = openat2(&self.directory, file, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), BENEATH);
        let found =
            unless_gone(found).map_err(at("look for", format_args!("{file} of cgroup {:?}", self.path)));
        Ok(found?.is_some())
    }

    /// Opens the cgroup; none if it does not exist.
    ///
    /// # Errors
    /// When the path is not absolute or has `..`, or the cgroup cannot be opened.
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

    /// The path of the cgroup in the hierarchy.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Moves a process with all its threads into the cgroup; 0 is the caller.
    ///
    /// # Errors
    /// EACCES, EBUSY, ESRCH: see cgroups(7).
    pub fn admit(&self, pid: i32) -> Result<()> {
        self.write("cgroup.procs", &pid.to_string())
    }

    /// Whether a process lives in the cgroup or below it.
    ///
    /// # Errors
    /// When its files cannot be read.
    pub fn is_populated(&self) -> Result<bool> {
        if let Some(events) = unless_gone(self.read("cgroup.events"))? {
            return Ok(events.lines().any(|line| line == "populated 1"));
        }
        // Version 1 has no such file.
        let mut populated = false;
        self.for_each(&mut |_, _| {
            populated = true;
            Ok(())
        })?;
        Ok(populated)
    }

    /// Calls `act` with the cgroup and the pid of every process in this cgroup and below it.
    pub(crate) fn for_each(&self, act: &mut impl FnMut(&Self, i32) -> Result<()>) -> Result<()> {
        for pid in self.read("cgroup.procs")?.lines().filter_map(|line| line.parse().ok()) {
            act(self, pid)?;
        }
        let listing = || at("list", format!("cgroup {:?}", self.path));
        for entry in Dir::read_from(&self.directory).map_err(listing())? {
            let entry = entry.map_err(listing())?;
            if !is_below(&entry) {
                continue;
            }
            let name = Path::new(OsStr::from_bytes(entry.file_name().to_bytes()));
            match open_below(&self.directory, name) {
                Err(errno) if is_gone(&errno) => {}
                opened => {
                    let below = Self { directory: opened.map_err(listing())?, path: self.path.join(name) };
                    unless_gone(below.for_each(act))?;
                }
            }
        }
        Ok(())
    }

    /// Kills every process in the cgroup, and removes it and all cgroups below it. A missing cgroup is fine.
    ///
    /// # Errors
    /// EBUSY if a process has not ended after ten seconds.
    pub fn remove(hierarchy: &Hierarchy, path: &Path) -> Result<()> {
        let Some(group) = Self::open(hierarchy, path)? else { return Ok(()) };
        let deadline = Instant::now() + PATIENCE;
        // If a process has not ended in time, the kernel says so below.
        match group.end() {
            Err(error) if error.errno() == Some(nix::errno::Errno::ETIMEDOUT) => {}
            ended => ended?,
        }
        group.remove_until(hierarchy, deadline)
    }

    /// Removes the cgroup and all cgroups below it, but kills no process. A missing cgroup is fine.
    ///
    /// # Errors
    /// EBUSY if a process lives in it.
    pub(crate) fn remove_unused(hierarchy: &Hierarchy, path: &Path) -> Result<()> {
        let Some(group) = Self::open(hierarchy, path)? else { return Ok(()) };
        let patience = if group.is_populated()? { Duration::ZERO } else { PATIENCE };
        group.remove_until(hierarchy, Instant::now() + patience)
    }

    fn remove_until(&self, hierarchy: &Hierarchy, deadline: Instant) -> Result<()> {
        loop {
            match self.remove_emptied(hierarchy) {
                // The kernel frees a process's cgroup a moment after it has reported the end of the process.
                Err(Errno::BUSY) if Instant::now() < deadline => sleep(Duration::from_millis(1)),
                Err(errno) if is_gone(&errno) => return Ok(()),
                result => return result.map_err(at("remove", format_args!("cgroup {:?}", self.path))),
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
    /// The directory, as CLONE_INTO_CGROUP takes it.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

const BENEATH: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS);

/// A path in the hierarchy, relative to its top.
pub(crate) fn relative(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

fn open_below(directory: impl AsFd, path: &Path) -> std::result::Result<OwnedFd, Errno> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat2(directory, path, flags, Mode::empty(), BENEATH)
}

/// The names in an absolute path without `.` and `..`. EINVAL for another path, and for `/`.
fn names(path: &Path) -> std::result::Result<Vec<&OsStr>, Errno> {
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

/// Whether an entry of a cgroup's directory is a cgroup below it.
fn is_below(entry: &DirEntry) -> bool {
    entry.file_type().is_dir() && ![c".", c".."].contains(&entry.file_name())
}

/// Removes all cgroups below this one, deepest first.
fn remove_below(directory: BorrowedFd<'_>) -> std::result::Result<(), Errno> {
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if !is_below(&entry) {
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

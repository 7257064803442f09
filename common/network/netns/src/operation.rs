use std::{
    fs::{self, File},
    io,
    os::{
        fd::AsRawFd,
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

use ::mount::FileSystem;
use netlink::{Connection, Mark, errno_of, namespace, sysctl::switch_ipv6_off_by};
use nix::{
    errno::Errno,
    fcntl::OFlag,
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
    sys::statfs::{NSFS_MAGIC, fstatfs},
};
use operation::{Condition, Namespace, Place, Scope, words};
use rustix::mount::MountAttrFlags;
use serde::{Deserialize, Serialize};

use crate::{Error, error, io_error};

/// Makes a network namespace, keeps it with a bind mount at a path, and sets `lo` up in it. IPv6 is
/// disabled on interfaces that are added later until somebody adds an address and enables it, as in
/// Docker's containers.
///
/// Undo recognises its namespace by the inode. Before the inode is known, it recognises it by the
/// alias of `lo`, which is set before others can see the namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename = "netns-add")]
pub struct NetnsOperation {
    /// Path of the bind mount: `/run/netns/<id>`.
    pub path: PathBuf,
    /// The container's id.
    pub holder: String,
    /// The mark of the container, in the alias of `lo`. None for an earlier version, which knows only
    /// the id: another run directory may have a container with the same one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<Mark>,
    /// The namespace's inode number, known once it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inode: Option<u64>,
}

/// What is at the path.
enum Found {
    Nothing,
    /// An empty file: the namespace was never mounted, or was unmounted.
    Empty,
    Ours,
    Other(&'static str),
}

impl NetnsOperation {
    /// The operation that makes the namespace of the container `holder` at `path`.
    pub fn new(path: impl Into<PathBuf>, holder: &str) -> Self {
        Self { path: path.into(), holder: holder.to_owned(), mark: None, inode: None }
    }

    /// The same for a container with this mark.
    pub fn marked(self, mark: Mark) -> Self {
        Self { mark: Some(mark), ..self }
    }

    fn alias(&self) -> String {
        self.mark.as_ref().map_or_else(|| Mark::new(&self.holder, None).alias(), Mark::alias)
    }

    fn error(&self, verb: &'static str) -> impl Fn(Errno) -> Error {
        error(verb, &self.path)
    }

    fn io(&self, verb: &'static str) -> impl Fn(io::Error) -> Error {
        io_error(verb, &self.path)
    }

    fn find(&self) -> Result<Found, Error> {
        let opened = File::options().read(true).custom_flags(OFlag::O_NOFOLLOW.bits()).open(&self.path);
        let file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
            Err(error) if errno_of(&error) == Errno::ELOOP => return Ok(Found::Other("a symbolic link")),
            Err(error) => return Err(self.io("open")(error)),
        };
        let look = self.error("look at");
        let metadata = file.metadata().map_err(self.io("look at"))?;
        if fstatfs(&file).map_err(&look)?.filesystem_type() != NSFS_MAGIC {
            let empty = metadata.is_file() && metadata.len() == 0;
            return Ok(if empty { Found::Empty } else { Found::Other("a file that holds something") });
        }
        if self.inode == Some(metadata.ino()) {
            return Ok(Found::Ours);
        }
        // The inode is not known yet, or is an old one: a repair that was killed had made a new
        // namespace.
        let loopback = || Connection::here()?.link("lo");
        let alias = namespace::enter(&self.path, loopback).map_err(look)??.and_then(|lo| lo.alias);
        Ok(if alias == Some(self.alias()) { Found::Ours } else { Found::Other("another namespace") })
    }

    /// Mounts a new namespace on the file at the path.
    fn mount(&self) -> Result<(), Error> {
        let made = namespace::away(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            if let Err(error) = Connection::here().and_then(|here| here.start_loopback(&self.alias())) {
                return Ok(Err(error));
            }
            switch_ipv6_off_from_now_on()?;
            let (own, mode) = ("/proc/thread-self/ns/net", MsFlags::MS_BIND);
            mount(Some(own), &self.path, None::<&str>, mode, None::<&str>).map(Ok)
        });
        made.map_err(self.error("create"))?
    }

    /// Mounts the namespace at its path again after another program removed or renamed the file there, as
    /// `ip netns del` does. Returns whether a process or another file still has the namespace.
    ///
    /// # Errors
    /// When something else is at the path, or the namespace cannot be mounted.
    pub fn name_again(&self, scope: &Scope) -> Result<bool, operation::Error> {
        scope.contain(&self.path)?;
        let Some(standing) = self.inode.and_then(Self::standing) else { return Ok(false) };
        let standing = format!("/proc/self/fd/{}", standing.as_raw_fd());
        // The number may be that of a newer namespace.
        let loopback = || Connection::here()?.link("lo");
        let alias = namespace::enter(Path::new(&standing), loopback).map_err(self.error("look at"))??;
        if alias.and_then(|lo| lo.alias) != Some(self.alias()) {
            return Ok(false);
        }
        if matches!(self.find()?, Found::Nothing) {
            self.create_file()?;
        }
        if matches!(self.find()?, Found::Empty) {
            let (file, mode) = (Some(standing.as_str()), MsFlags::MS_BIND);
            mount(file, &self.path, None::<&str>, mode, None::<&str>).map_err(self.error("mount"))?;
        }
        Ok(true)
    }

    /// The namespace with this inode number.
    fn standing(inode: u64) -> Option<File> {
        Namespace::Network.files().ok()?.find_map(|path| {
            if fs::metadata(&path).ok()?.ino() != inode {
                return None;
            }
            let file = File::open(path).ok()?;
            let is_namespace = fstatfs(&file).ok()?.filesystem_type() == NSFS_MAGIC;
            (is_namespace && file.metadata().ok()?.ino() == inode).then_some(file)
        })
    }

    fn unmount(&self) -> Result<(), Error> {
        // Lazy unmount: a process that has the path open must not block us. The namespace ends with
        // its last user.
        let flags = MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW;
        umount2(&self.path, flags).map_err(self.error("unmount"))
    }

    /// Creates the file to mount on. It must not exist.
    fn create_file(&self) -> Result<(), Error> {
        // The directory is removed with the last namespace, possibly just before the file is
        // created.
        const ATTEMPTS: usize = 100;
        for _ in 0..ATTEMPTS {
            match File::options().write(true).create_new(true).mode(0o444).open(&self.path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.path.parent().map_or(Ok(()), create_directory)?;
                }
                created => return created.map(drop).map_err(self.io("create")),
            }
        }
        Err(self.error("create")(Errno::ENOENT))
    }

    fn remove_file(&self) -> Result<(), Error> {
        let removed = match fs::remove_file(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => self.remove_hidden(),
            removed => removed,
        };
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.io("remove")(error)),
            // Remove the directory with the last namespace, unless `ip netns` made a mount of it.
            _ => match self.path.parent().filter(|parent| *parent == Path::new("/run/netns")) {
                Some(parent) => operation::remove_if_empty(parent).map_err(|source| {
                    Error::new("remove directory", format!("{parent:?}"), errno_of(&source))
                }),
                None => Ok(()),
            },
        }
    }

    /// Removes the file when a mount on it is hidden. The first `ip netns add` mounts `/run/netns`
    /// on itself, over the existing namespaces. In a mount namespace without a mount on the file,
    /// the file can be removed, and the kernel then detaches the mounts on it in all other mount
    /// namespaces.
    fn remove_hidden(&self) -> io::Result<()> {
        let remove = || {
            unshare(CloneFlags::CLONE_NEWNS)?;
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(None::<&str>, "/", None::<&str>, private, None::<&str>)?;
            let flags = MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW;
            for path in self.path.parent().into_iter().chain([self.path.as_path()]) {
                // Unmount until nothing is mounted there.
                while umount2(path, flags).is_ok() {}
            }
            fs::remove_file(&self.path)
        };
        // The thread has a mount namespace of its own, and ends afterwards.
        std::thread::scope(|scope| {
            let started = std::thread::Builder::new().stack_size(1 << 18).spawn_scoped(scope, remove);
            started?.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

const IPV6_OFF: &str = "net.ipv6.conf.default.disable_ipv6=1";

/// Disables IPv6 for all future interfaces of this thread's new namespace.
///
/// Entries looked up below `/proc/sys/net` stay cached with that mount for as long as the namespace
/// lasts. The entries of all namespaces have the same names, so the kernel keeps them in one list,
/// which slows each later lookup in any namespace. To avoid this, a separate proc file system is
/// mounted, if this process may do so.
fn switch_ipv6_off_from_now_on() -> Result<(), Errno> {
    let own = FileSystem::open("proc").and_then(|proc| proc.mount(MountAttrFlags::empty()));
    match own {
        Ok(proc) => switch_ipv6_off_by(proc, "default"),
        Err(_) => switch_ipv6_off_by(File::open("/proc").map_err(|source| errno_of(&source))?, "default"),
    }
}

/// Makes the directory as `ip netns add` does: writable for root, readable for everybody.
fn create_directory(path: &Path) -> Result<(), Error> {
    operation::make_directories(path, 0o755)
        .map_err(|source| Error::new("create directory", format!("{path:?}"), errno_of(&source)))
}

impl operation::Operation for NetnsOperation {
    fn explain(&self) -> Vec<String> {
        let alias = self.alias();
        let (parent, name) = match (self.path.parent(), self.path.file_name()) {
            (Some(parent), Some(name)) => (parent.to_string_lossy(), name.to_string_lossy()),
            _ => Default::default(),
        };
        let path = self.path.to_string_lossy();
        if parent == "/run/netns" {
            return vec![
                words(["mkdir", "-p", &parent]),
                words(["ip", "netns", "add", &name]),
                words(["ip", "-n", &name, "link", "set", "lo", "up", "alias", &alias]),
                words(["ip", "netns", "exec", &name, "sysctl", "-w", IPV6_OFF]),
            ];
        }
        vec![
            words(["mkdir", "-p", &parent]),
            words(["touch", &path]),
            words(["unshare", &format!("--net={path}"), "ip", "link", "set", "lo", "up", "alias", &alias]),
            words(["nsenter", &format!("--net={path}"), "sysctl", "-w", IPV6_OFF]),
        ]
    }

    fn apply(&mut self, scope: &Scope) -> Result<(), operation::Error> {
        scope.contain(&self.path)?;
        self.create_file()?;
        let made = self.mount().and_then(|()| fs::metadata(&self.path).map_err(self.io("look at")));
        match made {
            Ok(metadata) => self.inode = Some(metadata.ino()),
            Err(error) => {
                // Removes all parts that exist. The first error is the one to report.
                let _ = operation::Operation::undo(self, scope);
                // The file exists, so EROFS is about a variable of the new namespace.
                let error = operation::Error::from(error);
                return Err(match error.errno() {
                    Some(Errno::EROFS) => error.of(Place::Sysctl),
                    _ => error,
                });
            }
        }
        Ok(())
    }

    fn undo(&self, scope: &Scope) -> Result<(), operation::Error> {
        scope.contain(&self.path)?;
        match self.find()? {
            Found::Other(_) => return Ok(()),
            // The directory may have been made, or still be there.
            Found::Nothing | Found::Empty => {}
            Found::Ours => self.unmount()?,
        }
        Ok(self.remove_file()?)
    }

    fn check(&self, _: &Scope) -> Result<Condition, operation::Error> {
        let path = &self.path;
        Ok(match self.find()? {
            Found::Ours => Condition::Present,
            Found::Nothing | Found::Empty => Condition::Missing(format!("network namespace {path:?}")),
            Found::Other(what) => Condition::Different(format!("network namespace {path:?}: {what}")),
        })
    }
}

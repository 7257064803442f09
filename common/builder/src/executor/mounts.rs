//! The mounts of `RUN --mount`.

use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    rc::Rc,
};

use oci::Digest;
use rustix::{
    fs::{CWD, FlockOperation, RenameFlags},
    io::Errno,
};

use super::{
    Builder,
    agent::Relay,
    files::From,
    process::{Bind, Lasting},
    secret::SecretFile,
    stage::State,
    store::Mounted,
};
use crate::{
    cache::chain_id,
    copy::{CopyError, Described, Job, Kind, Place, Tree, clean},
    dockerfile::{
        expand::Expander,
        mount::{Mount, Sharing, Type, parse},
    },
    error::Cause,
    glob,
    ignore::Ignore,
};

/// The mounts of a process.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    pub(super) binds: Vec<Bind>,
    /// Variables that hold secrets.
    pub(super) environment: Vec<(String, String)>,
}

/// What must live as long as the process.
#[derive(Debug, Default)]
pub(super) struct Held {
    mounted: Vec<Mounted>,
    locks: Vec<File>,
    pub(super) secrets: Vec<SecretFile>,
    pub(super) agents: Vec<Relay>,
}

/// A RUN's mount, as written and as read.
#[derive(Debug)]
pub(super) struct Wanted {
    text: String,
    pub(super) mount: Mount,
    /// What `from` means.
    from: Option<From>,
}

impl Wanted {
    /// As written, its variables expanded.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The source, below the context, the stage or the image.
    fn source(&self) -> &str {
        self.mount.source.as_deref().unwrap_or("/")
    }

    /// Gives a file the owner and the mode that the mount asks for, or else these.
    pub(super) fn hand_over(&self, path: &Path, owner: (u32, u32), mode: u32) -> Result<(), Cause> {
        let Mount { uid, gid, mode: wanted, .. } = &self.mount;
        let (uid, gid) = (uid.unwrap_or(owner.0), gid.unwrap_or(owner.1));
        std::os::unix::fs::chown(path, Some(uid), Some(gid))
            .map_err(Cause::system("change owner of", path))?;
        fs::set_permissions(path, fs::Permissions::from_mode(wanted.unwrap_or(mode)))
            .map_err(Cause::system("change mode of", path))
    }

    pub(super) fn wrong(&self, message: impl ToString) -> Cause {
        Cause::RunMount { text: self.text.clone(), message: message.to_string() }
    }

    /// The name of a cache's directory: a hash of its id, and of its initial content unless that is an empty directory
    /// of root.
    fn cache_name(&self, target: &Path) -> String {
        let mount = &self.mount;
        let mut text = mount.id.clone().unwrap_or_else(|| target.display().to_string());
        match &self.from {
            Some(From::Layers(layers)) => {
                text.push_str(&format!("\0from {} {:?}", chain_id(layers), clean("", self.source())));
            }
            Some(From::Files(_)) => {
                let from = self.mount.from.as_deref().unwrap_or_default();
                text.push_str(&format!("\0from context {from:?} {:?}", clean("", self.source())));
            }
            None => {}
        }
        for (field, given) in [("mode", mount.mode), ("uid", mount.uid), ("gid", mount.gid)] {
            if let Some(value) = given {
                text.push_str(&format!("\0{field} {value}"));
            }
        }
        Digest::of(text.as_bytes()).hex().to_owned()
    }

    /// The job that reads the source, for its digest and to copy it.
    fn job(&self) -> Job {
        Job {
            instruction: "COPY",
            // A path, not a pattern.
            sources: vec![glob::escape(self.source())],
            fetched: Vec::new(),
            unpack_fetched: false,
            inline: Vec::new(),
            destination: PathBuf::new(),
            into: true,
            chmod: None,
            parents: false,
            exclude: Ignore::default(),
            unpack: false,
            keep_times: false,
        }
    }
}

impl Builder<'_> {
    /// Reads the mounts of a RUN, with variables.
    pub(super) fn mounts(&self, state: &State, at: usize, texts: &[String]) -> Result<Vec<Wanted>, Cause> {
        let lookup = |name: &str| state.variable(name);
        let expander = Expander { skip_quotes: true, ..Expander::new(self.file.escape, &lookup) };
        let read = |text: &String| {
            let text = expander.word(text)?;
            let mount = parse(&text).map_err(|message| Cause::RunMount { text: text.clone(), message })?;
            let from = mount.from.as_deref().map(|from| self.source(at, from)).transpose()?;
            Ok(Wanted { text, mount, from })
        };
        texts.iter().map(read).collect()
    }

    /// The part of the step's key for a mount: not the content of a cache. With the files of a context, for those who want to know why.
    pub(super) fn shown_by(&self, wanted: &Wanted) -> Result<(String, Vec<Described>), Cause> {
        match (&wanted.mount.kind, &wanted.from) {
            (_, Some(From::Layers(layers))) => Ok((chain_id(layers), Vec::new())),
            (Type::Bind, from) => {
                let (job, tree) = (wanted.job(), self.tree_of(from.as_ref())?);
                let described = job.list(&tree).and_then(|listing| {
                    self.note_reads(&tree, &job, &listing);
                    job.described(&tree, &listing)
                });
                described.map_err(|error| wanted.wrong(error))
            }
            _ => Ok((String::new(), Vec::new())),
        }
    }

    /// Makes a mount's source. `shown` is the result of [`Builder::shown_by`], and is updated to the real content.
    pub(super) fn prepare(
        &self,
        state: &State,
        wanted: &Wanted,
        shown: &mut String,
        held: &mut Held,
        prepared: &mut Prepared,
    ) -> Result<(), Cause> {
        let mount = &wanted.mount;
        let working_dir = &state.image.config.working_dir;
        if mount.kind == Type::Secret {
            return self.secret(wanted, working_dir, held, prepared);
        }
        if mount.kind == Type::Ssh {
            return self.agent(wanted, working_dir, held, prepared);
        }
        let target = clean(working_dir, &mount.target);
        if target.as_os_str().is_empty() {
            return Err(wanted.wrong("invalid mount target \"/\""));
        }
        let mut options = vec!["bind".to_owned(), if mount.readonly { "ro" } else { "rw" }.to_owned()];
        let source = match mount.kind {
            Type::Cache => Some(self.cache_directory(wanted, &target, held)?),
            Type::Bind => Some(self.bind_source(wanted, shown, held)?),
            _ => {
                options = ["nosuid", "nodev"].map(String::from).to_vec();
                options.extend(mount.size.map(|size| format!("size={size}")));
                None
            }
        };
        let lasting = match mount.kind {
            Type::Cache if self.own_caches.is_none() && !self.options.no_cache => {
                // Others hold its lock; the container of a failed step does not.
                let readonly = mount.readonly || mount.sharing != Sharing::Shared;
                source.clone().map(|path| Lasting { path, readonly })
            }
            Type::Bind => self.lasting(wanted)?,
            _ => None,
        };
        prepared.binds.push(Bind { target, source, options, lasting });
        Ok(())
    }

    /// Where the source of a bind mount is in a directory of the user's; none where it is not, or where that has more than the command saw.
    fn lasting(&self, wanted: &Wanted) -> Result<Option<Lasting>, Cause> {
        if matches!(wanted.from, Some(From::Layers(_))) {
            return Ok(None);
        }
        let tree = self.tree_of(wanted.from.as_ref())?;
        let Some(root) = tree.host_path().filter(|_| tree.ignore().is_empty()) else { return Ok(None) };
        let found = tree.find(wanted.source()).map_err(|error| wanted.wrong(error))?;
        let path = root.join(found);
        let path = std::path::absolute(&path).map_err(Cause::system("find", &path))?;
        Ok(Some(Lasting { path, readonly: true }))
    }

    /// The files of a context: that of the build by default.
    fn tree_of(&self, from: Option<&From>) -> Result<Rc<Tree>, Cause> {
        match from {
            Some(From::Files(tree)) => Ok(Rc::clone(tree)),
            _ => self.context(),
        }
    }

    /// The source of a bind mount. Writes do not reach the context, a stage or an image.
    fn bind_source(&self, wanted: &Wanted, shown: &mut String, held: &mut Held) -> Result<PathBuf, Cause> {
        let Some(From::Layers(layers)) = &wanted.from else { return self.context_source(wanted, shown) };
        let mounted = match wanted.mount.readonly {
            true => self.store.readable(layers)?,
            false => self.store.writable(layers)?,
        };
        let found =
            Tree::image(mounted.open()?).find(wanted.source()).map_err(|error| wanted.wrong(error))?;
        let path = mounted.rootfs.join(found);
        held.mounted.push(mounted);
        Ok(path)
    }

    /// A part of the context for a mount: a copy. Its files belong to root and stay unchanged, whatever happens
    /// outside. A read-only one serves later steps as well.
    fn context_source(&self, wanted: &Wanted, shown: &mut String) -> Result<PathBuf, Cause> {
        let wrong = |error: CopyError| wanted.wrong(error);
        let source = clean("", wanted.source());
        if wanted.mount.readonly
            && let Some(path) = self.shown.borrow().get(&(source.clone(), shown.clone()))
        {
            return Ok(path.clone());
        }
        let tree = self.tree_of(wanted.from.as_ref())?;
        let copy = self.store.workspace()?.step()?.upper;
        if let Some(copied) = self.copy_out(wanted, &tree, &copy)? {
            *shown = copied;
        }
        let found = tree.find(wanted.source()).map_err(wrong)?;
        let path = match tree.kind(&found).map_err(wrong)? {
            // The attributes of the context's own directory do not matter.
            Kind::Directory if found.as_os_str().is_empty() => copy,
            Kind::Directory => {
                let mode = tree.mode(&found).map_err(wrong)?;
                fs::set_permissions(&copy, fs::Permissions::from_mode(mode))
                    .map_err(Cause::system("change mode of", &copy))?;
                copy
            }
            _ => copy.join(source.file_name().unwrap_or_default()),
        };
        if wanted.mount.readonly {
            self.shown.borrow_mut().insert((source, shown.clone()), path.clone());
        }
        Ok(path)
    }

    /// Copies the source of a mount into a directory of the host. Returns the digest of what was copied, if that may
    /// have changed.
    fn copy_out(&self, wanted: &Wanted, tree: &Tree, to: &Path) -> Result<Option<String>, Cause> {
        let job = wanted.job();
        let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
        let root =
            rustix::fs::open(to, flags, rustix::fs::Mode::empty()).map_err(Cause::system("open", to))?;
        let place = Place::new(root, Default::default(), None);
        let scratch = self.store.workspace()?.path();
        let copied = job.list(tree).and_then(|listing| job.run(tree, &listing, place, None, None, scratch));
        copied.map_err(|error| wanted.wrong(error))
    }

    /// The directory of caches. Those of a build without cache end with it.
    pub(super) fn caches(&self) -> Result<PathBuf, Cause> {
        if let Some(own) = &self.own_caches {
            return Ok(own.clone());
        }
        match self.options.no_cache {
            true => Ok(self.store.workspace()?.path().join("caches")),
            false => Ok(self.cache.mounts()),
        }
    }

    /// The directory of a cache: `$STAVE_ROOT/cache/mounts/<hash>`, with an additional number for each user of a
    /// private one.
    fn cache_directory(&self, wanted: &Wanted, target: &Path, held: &mut Held) -> Result<PathBuf, Cause> {
        let mount = &wanted.mount;
        let all = self.caches()?;
        fs::create_dir_all(&all).map_err(Cause::system("create directory", &all))?;
        let name = wanted.cache_name(target);
        for number in 0.. {
            let name = if number == 0 { name.clone() } else { format!("{name}-{number}") };
            let path = all.join(&name);
            if mount.sharing != Sharing::Shared {
                let path = all.join(format!("{name}.lock"));
                let lock = File::create(&path).map_err(Cause::system("create", &path))?;
                let operation = match mount.sharing {
                    Sharing::Private => FlockOperation::NonBlockingLockExclusive,
                    _ => FlockOperation::LockExclusive,
                };
                match rustix::fs::flock(&lock, operation) {
                    Ok(()) => held.locks.push(lock),
                    Err(rustix::io::Errno::WOULDBLOCK) => continue,
                    Err(error) => return Err(Cause::system("lock", &path)(error)),
                }
            }
            self.make_cache(wanted, &path)?;
            crate::cache::touch(&path);
            return Ok(path);
        }
        Err(wanted.wrong("no cache directory"))
    }

    /// Makes a cache's directory if it does not exist: whole, or not at all.
    fn make_cache(&self, wanted: &Wanted, path: &Path) -> Result<(), Cause> {
        if path.is_dir() {
            return Ok(());
        }
        let new = self.store.workspace()?.step()?.upper;
        let (mut mode, mut uid, mut gid) = (0o755, 0, 0);
        if let Some(from) = &wanted.from {
            let mounted;
            let tree = match from {
                From::Files(tree) => Rc::clone(tree),
                From::Layers(layers) => {
                    mounted = self.store.readable(layers)?;
                    Rc::new(Tree::image(mounted.open()?))
                }
            };
            let wrong = |error| wanted.wrong(error);
            self.copy_out(wanted, &tree, &new)?;
            let found = tree.find(wanted.source()).map_err(wrong)?;
            if tree.kind(&found).map_err(wrong)? == Kind::Directory {
                let owner = tree.owner(&found).map_err(wrong)?;
                (mode, uid, gid) = (tree.mode(&found).map_err(wrong)?, owner.uid, owner.gid);
            }
        }
        wanted.hand_over(&new, (uid, gid), mode)?;
        match rustix::fs::renameat_with(CWD, &new, CWD, path, RenameFlags::NOREPLACE) {
            // Another build was faster.
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(error) => Err(Cause::system("create directory", path)(error)),
        }
    }
}

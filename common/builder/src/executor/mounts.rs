//! Prepares the mounts of `RUN --mount`.

use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    rc::Rc,
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
    copy::{CopyError, Described, Job, Kind, NotOwned, Owner, Place, Tree, clean},
    dockerfile::{
        expand::Expander,
        mount::{Mount, MountFields, Sharing, Type, parse},
    },
    error::Cause,
    glob,
    ignore::Ignore,
};

/// The mounts of a process.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    pub(super) binds: Vec<Bind>,
    /// The variables that contain secrets.
    pub(super) environment: Vec<(String, String)>,
}

/// What must exist as long as the process runs.
#[derive(Debug, Default)]
pub(super) struct Held {
    mounted: Vec<Mounted>,
    /// The locks of cache mounts.
    pub(super) locks: Vec<File>,
    pub(super) secrets: Vec<SecretFile>,
    pub(super) agents: Vec<Relay>,
}

/// A mount of a RUN, as text and parsed.
#[derive(Debug)]
pub(super) struct Wanted {
    text: String,
    pub(super) mount: Mount,
    /// The source that `from` names.
    pub(super) from: Option<From>,
}

impl Wanted {
    /// The text of the mount, with variables expanded.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The path of the source in the context, stage or image.
    pub(super) fn source(&self) -> &str {
        self.mount.source.as_deref().unwrap_or("/")
    }

    /// Whether this is a bind mount of a part of a stage or image.
    pub(super) fn is_part(&self) -> bool {
        self.mount.kind == Type::Bind
            && matches!(self.from, Some(From::Layers(_)))
            && !clean("", self.source()).as_os_str().is_empty()
    }

    /// What the source shows: its content, and its own mode if it is a directory below the root of the context.
    /// The listing of a directory does not cover the directory itself.
    fn shown_as(&self, tree: &Tree, digest: &str) -> Result<String, CopyError> {
        let found = tree.find(self.source())?;
        Ok(match tree.kind(&found)? {
            Kind::Directory if !found.as_os_str().is_empty() => format!("{digest} {:o}", tree.mode(&found)?),
            _ => digest.to_owned(),
        })
    }

    pub(super) fn wrong(&self, message: impl ToString) -> Cause {
        Cause::RunMount { text: self.text.clone(), message: message.to_string() }
    }

    /// The job that reads the source, to compute its digest and to copy it.
    fn job(&self) -> Job {
        Job {
            instruction: "COPY",
            // A path, and not a pattern.
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
    /// Parses the mounts of a RUN, after expanding variables.
    pub(super) fn mounts(&self, state: &State, at: usize, texts: &[String]) -> Result<Vec<Wanted>, Cause> {
        let lookup = |name: &str| state.variable(name);
        let expander = Expander { skip_quotes: true, ..Expander::new(self.file.escape, &lookup) };
        let read = |text: &String| {
            let fields = MountFields::of(text).map(|value| expander.word(value))?;
            let text = fields.to_string();
            let mount = parse(fields).map_err(|message| Cause::RunMount { text: text.clone(), message })?;
            let from = mount.from.as_deref().map(|from| self.source(at, from)).transpose()?;
            Ok(Wanted { text, mount, from })
        };
        texts.iter().map(read).collect()
    }

    /// What a mount adds to the key of the step: the layers or the files of its source. What earlier commands
    /// wrote to a cache mount does not count. Also returns the files of a context, to explain the key.
    pub(super) fn shown_by(&self, wanted: &Wanted) -> Result<(String, Vec<Described>), Cause> {
        match (&wanted.mount.kind, &wanted.from) {
            (_, Some(From::Layers(layers))) => Ok((chain_id(layers), Vec::new())),
            (Type::Bind, from) | (Type::Cache, from @ Some(From::Files(_))) => {
                let (job, tree) = (wanted.job(), self.tree_of(from.as_ref())?);
                let described = job.list(&tree).and_then(|listing| {
                    self.note_reads(&tree, &listing);
                    let (digest, files) = job.described(&tree, &listing)?;
                    Ok((wanted.shown_as(&tree, &digest)?, files))
                });
                described.map_err(|error| wanted.wrong(error))
            }
            _ => Ok((String::new(), Vec::new())),
        }
    }

    /// What a bind mount of a part of a stage or image adds to the key that covers content: the digest of that
    /// part. `None` for other mounts, whose [`Builder::shown_by`] says all. A whole stage is known by its
    /// layers.
    pub(super) fn content_of(&self, wanted: &Wanted) -> Result<Option<String>, Cause> {
        let Some(From::Layers(layers)) = wanted.from.as_ref().filter(|_| wanted.is_part()) else {
            return Ok(None);
        };
        let mounted = self.store.readable(layers)?;
        let tree = Tree::image(mounted.open()?);
        let read = || {
            let job = wanted.job();
            let digest = job.digest(&tree, &job.list(&tree)?)?;
            // The listing of a directory does not cover the directory itself.
            let found = tree.find(wanted.source())?;
            let owner = tree.owner(&found)?;
            Ok(format!("content {digest} {:o} {}:{}", tree.mode(&found)?, owner.uid, owner.gid))
        };
        read().map(Some).map_err(|error: CopyError| wanted.wrong(error))
    }

    /// Makes the source of a mount. `shown` is the result of [`Builder::shown_by`]; it is updated to the real
    /// content. `cache` is the directory of a cache mount.
    pub(super) fn prepare(
        &self,
        state: &State,
        wanted: &Wanted,
        shown: &mut String,
        cache: Option<PathBuf>,
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
        let mut options = vec!["bind".to_owned(), mount.access().to_owned()];
        let source = match mount.kind {
            Type::Cache => Some(cache.ok_or_else(|| wanted.wrong("no cache directory"))?),
            Type::Bind => Some(self.bind_source(wanted, shown, held)?),
            _ => {
                options = ["nosuid", "nodev", mount.access()].map(String::from).to_vec();
                options.extend(mount.size.map(|size| format!("size={size}")));
                None
            }
        };
        let lasting = match mount.kind {
            Type::Cache if self.own_caches.is_none() && !self.options.no_cache => {
                // A cache mount that is not shared is locked by its user. The container of a failed step
                // holds no lock.
                let readonly = mount.readonly || mount.sharing != Sharing::Shared;
                source.clone().map(|path| Lasting { path, readonly })
            }
            Type::Bind => self.lasting(wanted)?,
            _ => None,
        };
        prepared.binds.push(Bind { target, source, options, lasting });
        Ok(())
    }

    /// The path of a bind mount's source in a directory of the user. `None` if it is not in one, or if that
    /// has files that the command did not see.
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

    /// The tree of a context; the build context by default.
    pub(super) fn tree_of(&self, from: Option<&From>) -> Result<Rc<Tree>, Cause> {
        match from {
            Some(From::Files(tree)) => Ok(Rc::clone(tree)),
            _ => self.context(),
        }
    }

    /// Makes the source of a bind mount. What the command writes does not reach the context, stage or image.
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

    /// Copies a part of the context for a mount. The copy belongs to root and does not change when the
    /// context changes. Later steps use the copy of a read-only mount again.
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
            // The attributes of the context's root directory do not matter.
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

    /// Sets the owner and mode of a file to those of the mount, or else to `owner` and `mode`.
    pub(super) fn hand_over(
        &self,
        wanted: &Wanted,
        path: &Path,
        owner: (u32, u32),
        mode: u32,
    ) -> Result<(), Cause> {
        let mount = &wanted.mount;
        let (uid, gid) = (mount.uid.unwrap_or(owner.0), mount.gid.unwrap_or(owner.1));
        let bits = Owner { uid, gid }.give(self.options.rootless, |user, group| {
            rustix::fs::chownat(rustix::fs::CWD, path, user, group, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
        });
        let bits = bits.map_err(|error| match error {
            NotOwned::System(error) => Cause::system("change owner of", path)(error),
            source => Cause::Unmapped { text: wanted.text.clone(), source },
        })?;
        fs::set_permissions(path, fs::Permissions::from_mode(mount.mode.unwrap_or(mode) & bits))
            .map_err(Cause::system("change mode of", path))
    }

    /// Copies the source of a mount to a directory of the host. If it may have changed since it was listed,
    /// returns what was copied, in the form of [`Builder::shown_by`].
    pub(super) fn copy_out(&self, wanted: &Wanted, tree: &Tree, to: &Path) -> Result<Option<String>, Cause> {
        let job = wanted.job();
        let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
        let root =
            rustix::fs::open(to, flags, rustix::fs::Mode::empty()).map_err(Cause::system("open", to))?;
        let place = Place::new(root, Default::default(), None).rootless(self.options.rootless);
        let scratch = self.store.workspace()?.path();
        let copied = job.list(tree).and_then(|listing| job.run(tree, &listing, place, None, None, scratch));
        let shown = copied.and_then(|copied| copied.map(|digest| wanted.shown_as(tree, &digest)).transpose());
        shown.map_err(|error| wanted.wrong(error))
    }
}

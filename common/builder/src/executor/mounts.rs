//! What `RUN --mount` mounts.

use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use oci::Digest;
use rustix::fs::FlockOperation;

use super::{Builder, stage::State, store::Mounted};
use crate::{
    cache::{Key, Layer, chain_id},
    copy::{CopyError, Job, Kind, Place, Tree, clean},
    dockerfile::{
        expand::Expander,
        mount::{Mount, Sharing, Type, parse},
    },
    error::Cause,
    ignore::Ignore,
};

/// A mount as the process needs it.
#[derive(Debug)]
pub(super) struct Prepared {
    /// Below the image's root.
    pub(super) target: PathBuf,
    /// A path of the host; none for a tmpfs.
    pub(super) source: Option<PathBuf>,
    pub(super) options: Vec<String>,
}

/// What has to live for as long as the process does.
#[derive(Debug, Default)]
pub(super) struct Held {
    mounted: Vec<Mounted>,
    locks: Vec<File>,
}

/// A RUN's mount, as written and as read.
#[derive(Debug)]
pub(super) struct Wanted {
    text: String,
    mount: Mount,
    /// Of a stage or an image.
    layers: Option<Vec<Layer>>,
}

impl Wanted {
    fn wrong(&self, message: impl ToString) -> Cause {
        Cause::RunMount { text: self.text.clone(), message: message.to_string() }
    }

    /// The job that reads what is mounted, for its digest and to copy it.
    fn job(&self) -> Job {
        Job {
            instruction: "COPY",
            sources: vec![self.mount.source.clone().unwrap_or_else(|| "/".to_owned())],
            inline: Vec::new(),
            destination: PathBuf::new(),
            into: true,
            chmod: None,
            parents: false,
            exclude: Ignore::default(),
            unpack: false,
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
            let layers = mount.from.as_deref().map(|from| self.layers_of(at, from)).transpose()?;
            Ok(Wanted { text, mount, layers })
        };
        texts.iter().map(read).collect()
    }

    /// What the step's key has of a mount: what it shows, not what is in a cache.
    pub(super) fn mount_key(&self, key: Key, wanted: &Wanted) -> Result<Key, Cause> {
        let key = key.with(&wanted.text);
        match (&wanted.mount.kind, &wanted.layers) {
            (_, Some(layers)) => Ok(key.with(chain_id(layers))),
            (Type::Bind, None) => {
                let (job, tree) = (wanted.job(), self.context()?);
                let digest = job.list(tree).and_then(|listing| job.digest(tree, &listing));
                Ok(key.with(digest.map_err(|error| wanted.wrong(error))?))
            }
            _ => Ok(key),
        }
    }

    /// Makes a mount's source.
    pub(super) fn prepare(&self, state: &State, wanted: &Wanted, held: &mut Held) -> Result<Prepared, Cause> {
        let mount = &wanted.mount;
        let target = clean(&state.image.config.working_dir, &mount.target);
        if target.as_os_str().is_empty() {
            return Err(wanted.wrong("invalid mount target \"/\""));
        }
        let mut options = vec!["bind".to_owned(), if mount.readonly { "ro" } else { "rw" }.to_owned()];
        let source = match mount.kind {
            Type::Tmpfs => {
                options = ["nosuid", "nodev"].map(String::from).to_vec();
                options.extend(mount.size.map(|size| format!("size={size}")));
                None
            }
            Type::Cache => Some(self.cache_directory(wanted, &target, held)?),
            Type::Bind => Some(self.bind_source(wanted, held)?),
        };
        Ok(Prepared { target, source, options })
    }

    /// What a bind mount shows. Nothing that is written there reaches the context, a stage or an image.
    fn bind_source(&self, wanted: &Wanted, held: &mut Held) -> Result<PathBuf, Cause> {
        let wrong = |error: CopyError| wanted.wrong(error);
        let source = wanted.mount.source.as_deref().unwrap_or("/");
        let Some(layers) = &wanted.layers else {
            let tree = self.context()?;
            let found = tree.resolve(source).map_err(wrong)?.pop().unwrap_or_default();
            if wanted.mount.readonly && !tree.has_ignore() {
                let context = &self.options.context;
                let context =
                    fs::canonicalize(context).map_err(Cause::system("open build context", context))?;
                return Ok(context.join(found));
            }
            let copy = self.store.workspace()?.step()?.upper;
            self.copy_out(wanted, tree, &copy)?;
            return Ok(match tree.kind(&found).map_err(wrong)? {
                Kind::Directory => copy,
                _ => copy.join(found.file_name().unwrap_or_default()),
            });
        };
        let mounted = match wanted.mount.readonly {
            true => self.store.readable(layers)?,
            false => self.store.writable(layers)?,
        };
        let tree = Tree::image(mounted.open()?);
        let found = tree.resolve(source).map_err(wrong)?.pop().unwrap_or_default();
        let path = mounted.rootfs.join(found);
        held.mounted.push(mounted);
        Ok(path)
    }

    /// Copies what a mount shows into a directory of the host.
    fn copy_out(&self, wanted: &Wanted, tree: &Tree, to: &Path) -> Result<(), Cause> {
        let job = wanted.job();
        let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
        let root =
            rustix::fs::open(to, flags, rustix::fs::Mode::empty()).map_err(Cause::system("open", to))?;
        let place = Place::new(root, Default::default(), None);
        let copied = job.list(tree).and_then(|listing| job.run(tree, &listing, place, None, None));
        copied.map_err(|error| wanted.wrong(error))
    }

    /// The directory of a cache: `$STAVE_ROOT/cache/mounts/<hash of its id>`, and one with a number more for each user of a
    /// private one.
    fn cache_directory(&self, wanted: &Wanted, target: &Path, held: &mut Held) -> Result<PathBuf, Cause> {
        let mount = &wanted.mount;
        let id = mount.id.clone().unwrap_or_else(|| target.display().to_string());
        let all = self.cache.mounts();
        fs::create_dir_all(&all).map_err(Cause::system("create directory", &all))?;
        let name = Digest::of(id.as_bytes()).hex().to_owned();
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
            return Ok(path);
        }
        Err(wanted.wrong("no cache directory"))
    }

    fn make_cache(&self, wanted: &Wanted, path: &Path) -> Result<(), Cause> {
        let mount = &wanted.mount;
        match fs::create_dir(path) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return Ok(()),
            Err(error) => return Err(Cause::system("create directory", path)(error)),
        }
        fs::set_permissions(path, fs::Permissions::from_mode(mount.mode.unwrap_or(0o755)))
            .map_err(Cause::system("change mode of", path))?;
        let (uid, gid) = (Some(mount.uid.unwrap_or(0)), Some(mount.gid.unwrap_or(0)));
        std::os::unix::fs::chown(path, uid, gid).map_err(Cause::system("change owner of", path))?;
        let Some(layers) = &wanted.layers else { return Ok(()) };
        let mounted = self.store.readable(layers)?;
        self.copy_out(wanted, &Tree::image(mounted.open()?), path)
    }
}

//! The directories of cache mounts (`RUN --mount=type=cache`): their names, their content at first, and the
//! locks of their users.

use std::{
    collections::BTreeMap,
    fs::File,
    path::{Path, PathBuf},
};

use oci::Digest;
use rustix::{
    fs::{CWD, FlockOperation, RenameFlags},
    io::Errno,
};

use super::{
    Builder,
    files::From,
    mounts::{Held, Wanted},
};
use crate::{
    arguments::CACHE_NAMESPACE,
    cache::{self, chain_id},
    copy::{Kind, clean, cleaned},
    dockerfile::mount::{Sharing, Type},
    error::Cause,
};

impl Builder<'_> {
    /// The directory of cache mounts. With `--no-cache` it ends with the build.
    pub(super) fn caches(&self) -> Result<PathBuf, Cause> {
        if let Some(own) = &self.own_caches {
            return Ok(own.clone());
        }
        match self.options.no_cache {
            true => Ok(self.store.workspace()?.path().join("caches")),
            false => Ok(self.cache.mounts()),
        }
    }

    /// The name of a cache mount's directory: a hash of its id and namespace, and of its initial content
    /// unless that is an empty directory of root. `shown` identifies the files that it comes from
    /// ([`Builder::shown_by`]).
    fn cache_name(&self, wanted: &Wanted, shown: &str) -> String {
        let mount = &wanted.mount;
        // The default is the target as it is written (reference, "RUN --mount=type=cache"): builds with
        // different working directories share a relative one.
        let mut text = mount.id.clone().unwrap_or_else(|| cleaned(&mount.target));
        match &wanted.from {
            Some(From::Layers(layers)) => {
                text.push_str(&format!("\0from {} {:?}", chain_id(layers), clean("", wanted.source())));
            }
            Some(From::Files(_)) => text.push_str(&format!("\0from files {shown}")),
            None => {}
        }
        for (field, given) in [("mode", mount.mode), ("uid", mount.uid), ("gid", mount.gid)] {
            if let Some(value) = given {
                text.push_str(&format!("\0{field} {value}"));
            }
        }
        if let Some(namespace) = self.options.arguments.get(CACHE_NAMESPACE).filter(|name| !name.is_empty()) {
            text.push_str(&format!("\0namespace {namespace}"));
        }
        Digest::of(text.as_bytes()).hex().to_owned()
    }

    /// Takes the directories of a step's cache mounts, and their locks. Returns one for each mount, in their
    /// order; None for a mount of another type. Mounts with the same name get the same directory, with one
    /// lock: the step must not wait for itself. Locks are taken in the order of the names, so that two steps
    /// never wait for each other.
    pub(super) fn cache_directories(
        &self,
        wanted: &[Wanted],
        shown: &[String],
        held: &mut Held,
    ) -> Result<Vec<Option<PathBuf>>, Cause> {
        // The mounts of each directory, by their places.
        let mut users: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (at, (wanted, shown)) in wanted.iter().zip(shown).enumerate() {
            if wanted.mount.kind == Type::Cache {
                users.entry(self.cache_name(wanted, shown)).or_default().push(at);
            }
        }
        let mut directories = vec![None; wanted.len()];
        for (name, places) in users {
            // The strictest counts.
            let sharing = places.iter().map(|at| wanted[*at].mount.sharing).max().unwrap_or_default();
            let first = places[0];
            let path = self.cache_directory(&wanted[first], &shown[first], &name, sharing, held)?;
            for at in places {
                directories[at] = Some(path.clone());
            }
        }
        Ok(directories)
    }

    /// The directory of a cache mount: `$STAVE_ROOT/cache/mounts/<name>`. A private one has a number behind
    /// the name for each further user.
    fn cache_directory(
        &self,
        wanted: &Wanted,
        shown: &str,
        name: &str,
        sharing: Sharing,
        held: &mut Held,
    ) -> Result<PathBuf, Cause> {
        let all = self.caches()?;
        operation::make_directories(&all, 0o777).map_err(Cause::system("create directory", &all))?;
        for number in 0.. {
            let name = if number == 0 { name.to_owned() } else { format!("{name}-{number}") };
            if sharing != Sharing::Shared {
                let path = all.join(format!("{name}.lock"));
                let lock = File::create(&path).map_err(Cause::system("create", &path))?;
                let operation = match sharing {
                    Sharing::Private => FlockOperation::NonBlockingLockExclusive,
                    _ => FlockOperation::LockExclusive,
                };
                match rustix::fs::flock(&lock, operation) {
                    Ok(()) => held.locks.push(lock),
                    Err(Errno::WOULDBLOCK) => continue,
                    Err(error) => return Err(Cause::system("lock", &path)(error)),
                }
            }
            let path = all.join(&name);
            self.make_cache(wanted, shown, &path)?;
            cache::touch(&path);
            return Ok(path);
        }
        Err(wanted.wrong("no cache directory"))
    }

    /// Makes the directory of a cache mount if it does not exist: wholly, or not at all.
    fn make_cache(&self, wanted: &Wanted, shown: &str, path: &Path) -> Result<(), Cause> {
        if path.is_dir() {
            return Ok(());
        }
        let new = self.store.workspace()?.step()?.upper;
        let (mut mode, mut uid, mut gid) = (0o755, 0, 0);
        if let Some(from) = &wanted.from {
            let (_shown, tree) = self.open_source(from)?;
            // The name stands for the content that was read before.
            let copied = self.copy_out(wanted, &tree, &new)?;
            if copied.is_some_and(|copied| copied != shown) {
                return Err(wanted.wrong("the files of the context changed while they were copied"));
            }
            let wrong = |error| wanted.wrong(error);
            let found = tree.find(wanted.source()).map_err(wrong)?;
            if tree.kind(&found).map_err(wrong)? == Kind::Directory {
                let owner = tree.owner(&found).map_err(wrong)?;
                (mode, uid, gid) = (tree.mode(&found).map_err(wrong)?, owner.uid, owner.gid);
            }
        }
        self.hand_over(wanted, &new, (uid, gid), mode)?;
        match rustix::fs::renameat_with(CWD, &new, CWD, path, RenameFlags::NOREPLACE) {
            // Another build made the directory first.
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(error) => Err(Cause::system("create directory", path)(error)),
        }
    }
}

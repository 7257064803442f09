//! Merges the writes of a fork into the container that it is based on.

use std::{
    ffi::OsString,
    fs, io,
    os::{fd::AsFd, unix::ffi::OsStringExt},
    path::{Path, PathBuf},
};

use document::{At, Document, Id, Instance, members::Rootfs};
use layer::diff;
use mount::{
    Level, level,
    tree::{self, Files, Merging},
    users,
};
use operation::{Condition, Error, Operation, Scope};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::{
    Result, base,
    state::{open, paths},
    unread,
};

/// The tool that merges.
pub const MERGE: &str = "union-merge";

/// How many paths an error lists.
const NAMED: usize = 20;

/// Copies the content of tops into the top of a container's newest level, which has no writes yet.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "op", rename = "tops-merge", rename_all = "camelCase")]
pub struct Merge {
    /// The tops, lowest first.
    pub from: Vec<PathBuf>,
    /// The level.
    pub level: Level,
}

impl Merge {
    fn merged(&self) -> PathBuf {
        level::merged(&self.level.directory)
    }

    fn before(&self) -> PathBuf {
        level::before(&self.level.directory)
    }

    /// Makes the new top beside the old one, which contains only mount points.
    fn make(&self, lower: &[PathBuf]) -> Result<()> {
        let (upper, merged) = (self.level.upper(), self.merged());
        tree::remove(&merged)?;
        fs::create_dir(&merged).map_err(on("create directory", &merged))?;
        let sources =
            std::iter::once(&upper).chain(&self.from).map(|path| open(path)).collect::<Result<Vec<_>>>()?;
        let tops: Vec<_> = sources.iter().map(AsFd::as_fd).collect();
        let merging = Merging {
            tops: &tops,
            // The fork may go on writing to its own.
            files: Files::Copied,
            userxattr: self.level.is_userxattr(),
            is_below: &|path| {
                diff::has(lower, path).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
            },
            goes_on: &|| true,
        };
        let target = open(&merged)?;
        merging.merge(&target).map_err(|(path, errno)| {
            let path = PathBuf::from(OsString::from_vec(path));
            let path = Path::new("/").join(path.strip_prefix(".").unwrap_or(&path));
            let object = format_args!("{path:?} of what was written into {upper:?}");
            Error::new("merge", object, errno).of(operation::Place::Store)
        })?;
        self.sync(&target)?;
        fs::rename(&upper, self.before()).map_err(on("rename", &upper))?;
        fs::rename(&merged, &upper).map_err(on("rename", &merged))?;
        self.sync(&target)
    }

    /// Writes the file system of a durable level to the disk. That of the record, which is written later, may be
    /// another one (`union-mount --size`).
    fn sync(&self, inside: impl AsFd) -> Result<()> {
        if self.level.is_durable() {
            let object = format_args!("{:?}", self.level.directory);
            rustix::fs::syncfs(inside).map_err(Error::on("sync", object))?;
        }
        Ok(())
    }

    fn back(&self) -> Result<()> {
        match level::unmerge(&self.level.directory)? {
            true => self.sync(open(&self.level.directory)?),
            false => Ok(()),
        }
    }
}

fn on(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |error| Error::new(verb, format_args!("{path:?}"), error).of(operation::Place::Store)
}

impl Operation for Merge {
    fn explain(&self) -> Vec<String> {
        let quote = |path: &Path| operation::quote(&path.to_string_lossy());
        let (upper, merged) = (self.level.upper(), quote(&self.merged()));
        let mut lines = vec![format!("mkdir {merged}")];
        let sources = std::iter::once(&upper).chain(&self.from);
        lines.extend(sources.map(|from| format!("cp --archive {}/. {merged}", quote(from))));
        let upper = quote(&upper);
        lines.extend([format!("mv {upper} {}", quote(&self.before())), format!("mv {merged} {upper}")]);
        self.level.explain_without(lines)
    }

    fn apply(&mut self, _: &Scope) -> Result<(), Error> {
        let lower = self.level.lower()?;
        self.level.without(|| self.make(&lower).inspect_err(|_| drop(self.back())))
    }

    fn undo(&self, scope: &Scope) -> Result<(), Error> {
        scope.contain(&self.level.directory)?;
        if self.level.ends || !self.level.directory.exists() {
            return Ok(());
        }
        let is_whole = [self.before(), self.merged()].iter().all(|path| path.symlink_metadata().is_err());
        match is_whole && self.level.is_mounted()? {
            true => {}
            false => self.level.without(|| self.back())?,
        }
        self.level.mount_missing(scope)
    }

    fn check(&self, _: &Scope) -> Result<Condition, Error> {
        let before = self.before();
        Ok(match before.try_exists().map_err(on("look for", &before))? {
            true => Condition::Present,
            false => Condition::Missing(format!("{before:?}")),
        })
    }
}

/// Plans the merge of a fork into the container of this document.
///
/// # Errors
/// When it is not a fork of this container; one of them has a process; or both have changed, with
/// the paths at which they have.
pub fn merge(scope: &Scope, document: &Document, id: &Id, fork: &Id, other: &Document) -> Result<Merge> {
    let refused = |why: String| {
        Error::new("merge", format_args!("{fork:?} into {id:?}", fork = fork.as_str(), id = id.as_str()), why)
    };
    let rootfs: Rootfs = document.require().map_err(unread)?;
    let theirs: Rootfs = other.require().map_err(unread)?;
    let Some(from) = &theirs.fork else { return Err(refused("it is no fork".to_owned())) };
    let instance: Option<Instance> = document.get().map_err(unread)?;
    if from.container != *id || Some(&from.instance) != instance.as_ref() {
        return Err(refused(format!("it is a fork of another container \"{}\"", from.container)));
    }
    let user = match users::elsewhere(&theirs.path)? {
        None => users::here(&theirs.path)?,
        user => user,
    };
    if let Some(user) = user {
        return Err(refused(format!("{user} still writes to it")).with_hint("`container-stop` ends it"));
    }
    let at = |id: &Id, snapshot| At { id: id.clone(), snapshot };
    let since = at(id, Some(from.snapshot));
    let changed = paths(scope, &since, &at(id, None))?;
    if base::newest(document)? != from.snapshot || !changed.is_empty() {
        let own = paths(scope, &since, &at(fork, None))?;
        let both: Vec<String> =
            changed.intersection(&own).map(|path| format!("/{}", String::from_utf8_lossy(path))).collect();
        let why = match both.len() {
            0 => format!("\"{id}\" has changed since {since}, at other paths"),
            count => {
                let more = if count > NAMED { format!(" and {} more", count - NAMED) } else { String::new() };
                format!("both have changed since {since}: {}{more}", both[..count.min(NAMED)].join(", "))
            }
        };
        return Err(refused(why).with_hint(format!(
            "`union-diff {since} {id}` and `union-diff {since} {fork}` list the changes"
        )));
    }
    let level = base::of(document)?.level(from.snapshot, rootfs.path)?;
    let inherited = from.levels.min(theirs.levels.len());
    let tops = theirs.levels[inherited..].iter().chain(&theirs.upper).cloned().collect();
    Ok(Merge { from: tops, level })
}

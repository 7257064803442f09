//! Writes the files of a commit into a directory.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write},
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use archive::Limits;
use gix_hash::{Kind, ObjectId};
use gix_object::{TreeRefIter, tree::EntryKind};
use registry::{Client, without_user};
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, Timespec, Timestamps};

use crate::{Address, Authorize, Error, Remote, Revision, objects::Objects, submodule};

/// The maximum depth of nested submodules.
const DEPTH: usize = 10;

/// Writes the files of a commit into an empty directory. Submodules are fetched too. Files and directories
/// get the time of their commit.
///
/// `scratch` is an empty directory on the same file system. With `keep`, the objects in it become `.git`. If
/// the address has a subdirectory, only that is written, without `.git`. Returns the time of the commit, in seconds
/// since 1970.
///
/// # Errors
/// When the server does not send the commit, or a file cannot be written.
pub fn checkout(
    (remote, revision, address): (&Remote<'_>, &Revision, &Address),
    (client, authorize): (&Client, Authorize<'_>),
    directory: &Path,
    scratch: &Path,
    keep: bool,
) -> Result<i64, Error> {
    let limits = Limits::default();
    let mut checkout = Checkout { client, authorize, limits, files: 0, bytes: 0, scratch, made: 0, time: 0 };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(directory, flags, Mode::empty()).map_err(Error::system("open", directory))?;
    let git = scratch.join("git");
    let with_modules = !address.without_submodules;
    let (tree, mut objects) = checkout.commit(
        remote,
        &revision.commit,
        (&root, Path::new(""), &address.subdirectory),
        (with_modules, 0),
        &git,
    )?;
    if keep && address.subdirectory.is_empty() {
        keep_repository(&mut objects, tree, revision, address, &git)?;
        let to = directory.join(".git");
        fs::rename(&git, &to).map_err(Error::system("rename", &git))?;
    }
    Ok(checkout.time)
}

struct Checkout<'c> {
    client: &'c Client,
    authorize: Authorize<'c>,
    limits: Limits,
    files: usize,
    bytes: u64,
    scratch: &'c Path,
    /// The number of submodules so far.
    made: usize,
    /// The time of the commit, without its submodules.
    time: i64,
}

/// The maximum number of submodules in total.
const SUBMODULES: usize = 1000;

/// A directory that has not been written yet.
struct Pending {
    tree: ObjectId,
    /// Its path below the root of the checkout. It is opened by this path.
    place: PathBuf,
    /// Its path in the repository.
    path: String,
}

impl Checkout<'_> {
    fn commit<'r>(
        &mut self,
        remote: &Remote<'r>,
        commit: &str,
        (root, base, subdirectory): (&OwnedFd, &Path, &str),
        (with_modules, depth): (bool, usize),
        git: &Path,
    ) -> Result<(ObjectId, Objects<'r>), Error> {
        let (id, mut objects) = remote.fetch(commit, &git.join("objects"))?;
        let (tree, time) = tree_of(&mut objects, id)?;
        if depth == 0 {
            self.time = time;
        }
        let modules = match with_modules {
            true => modules(&mut objects, tree)?,
            false => BTreeMap::new(),
        };
        let top = find(&mut objects, tree, subdirectory)?;
        let mut pending = vec![Pending { tree: top, place: base.to_owned(), path: subdirectory.to_owned() }];
        let (mut links, mut directories) = (Vec::new(), vec![base.to_owned()]);
        while let Some(next) = pending.pop() {
            // Open the directory only now: a tree may have more directories than a process may have open
            // files.
            let above = open_directory(root, &next.place)?;
            for (kind, name, id) in entries(&mut objects, next.tree)? {
                let path = if next.path.is_empty() { name.clone() } else { format!("{}/{name}", next.path) };
                let place = next.place.join(&name);
                match kind {
                    EntryKind::Tree | EntryKind::Commit => {
                        self.count(&objects, 0)?;
                        make_directory(&above, &name, Path::new(&path))?;
                        directories.push(place.clone());
                        match (kind, modules.get(&path)) {
                            (EntryKind::Tree, _) => pending.push(Pending { tree: id, place, path }),
                            (_, Some(url)) => links.push((url.clone(), id, place)),
                            _ => {}
                        }
                    }
                    kind => {
                        let content = objects.get(&id, gix_object::Kind::Blob)?;
                        self.count(&objects, content.len() as u64)?;
                        write(&above, &name, Path::new(&path), kind, &content, time)?;
                    }
                }
            }
        }
        for (url, id, place) in links {
            self.submodule(&submodule::resolve(&url, &objects.remote), id, (root, &place), depth + 1)?;
        }
        // Writing into a directory changes its time, so the times are set last. The deepest directories come
        // first.
        for place in directories.iter().rev() {
            let directory = open_directory(root, place)?;
            rustix::fs::futimens(&directory, &times(time)).map_err(Error::system("set times of", place))?;
        }
        Ok((tree, objects))
    }

    fn submodule(
        &mut self,
        url: &str,
        id: ObjectId,
        (root, place): (&OwnedFd, &Path),
        depth: usize,
    ) -> Result<(), Error> {
        self.made += 1;
        let problem = match (depth > DEPTH, self.made > SUBMODULES) {
            (true, _) => Some(format!("submodules in more than {DEPTH} others")),
            (_, true) => Some(format!("more than {SUBMODULES} submodules")),
            _ => None,
        };
        if let Some(problem) = problem {
            return Err(Error::Protocol { remote: url.to_owned(), problem });
        }
        let git = self.scratch.join(format!("module-{}", self.made));
        let (client, authorize) = (self.client, self.authorize);
        let remote = Remote::open(url, client, authorize)?;
        self.commit(&remote, &id.to_string(), (root, place, ""), (true, depth), &git).map(|_| ())
    }

    /// Counts a file and its size, and checks the limits.
    fn count(&mut self, objects: &Objects<'_>, size: u64) -> Result<(), Error> {
        self.files += 1;
        self.bytes = self.bytes.saturating_add(size);
        let held = self.limits.hold_entries(self.files as _, self.bytes);
        held.map_err(|error| Error::TooMuch {
            remote: objects.remote.clone(),
            source: io::Error::other(error),
        })
    }
}

/// The tree of a commit or a tag, and the commit's time in seconds since 1970.
fn tree_of(objects: &mut Objects<'_>, id: ObjectId) -> Result<(ObjectId, i64), Error> {
    let mut id = id;
    // A tag may point to another tag.
    for _ in 0..16 {
        let (kind, content) = objects.any(&id)?;
        let bad = |problem: String| objects.bad(&id, problem);
        match kind {
            gix_object::Kind::Commit => {
                let commit = gix_object::CommitRef::from_bytes(&content, objects.kind)
                    .map_err(|error| bad(error.to_string()))?;
                let time = commit.committer().ok().and_then(|signature| signature.time().ok());
                return Ok((commit.tree(), time.map_or(0, |time| time.seconds)));
            }
            gix_object::Kind::Tag => {
                let tag = gix_object::TagRef::from_bytes(&content, objects.kind)
                    .map_err(|error| bad(error.to_string()))?;
                id = tag.target();
            }
            kind => return Err(bad(format!("it is a {kind}, not a commit"))),
        }
    }
    Err(objects.bad(&id, "a tag of too many tags".to_owned()))
}

/// The entries of a tree. Unsafe names are errors.
fn entries(objects: &mut Objects<'_>, tree: ObjectId) -> Result<Vec<(EntryKind, String, ObjectId)>, Error> {
    let content = objects.get(&tree, gix_object::Kind::Tree)?;
    let mut found = Vec::new();
    for entry in TreeRefIter::from_bytes(&content, objects.kind) {
        let entry = entry.map_err(|error| objects.bad(&tree, error.to_string()))?;
        let name = String::from_utf8_lossy(entry.filename).into_owned();
        let is_text = name.as_bytes() == AsRef::<[u8]>::as_ref(entry.filename);
        if !is_text
            || matches!(name.as_str(), "" | "." | "..")
            || name.contains(['/', '\0'])
            || name.eq_ignore_ascii_case(".git")
        {
            return Err(Error::Name { remote: objects.remote.clone(), name });
        }
        found.push((entry.mode.kind(), name, entry.oid.to_owned()));
    }
    Ok(found)
}

/// The tree at a path below `tree`.
fn find(objects: &mut Objects<'_>, tree: ObjectId, path: &str) -> Result<ObjectId, Error> {
    let mut tree = tree;
    for part in path.split('/').filter(|part| !part.is_empty()) {
        let next = entries(objects, tree)?
            .into_iter()
            .find(|(kind, name, _)| *kind == EntryKind::Tree && name == part);
        let none = || Error::NoDirectory { remote: objects.remote.clone(), path: path.to_owned() };
        tree = next.ok_or_else(none)?.2;
    }
    Ok(tree)
}

/// The submodules in the `.gitmodules` of a tree.
fn modules(objects: &mut Objects<'_>, tree: ObjectId) -> Result<BTreeMap<String, String>, Error> {
    let all = entries(objects, tree)?;
    let file = all.iter().find(|(kind, name, _)| *kind == EntryKind::Blob && name == ".gitmodules");
    let Some((_, _, id)) = file else { return Ok(BTreeMap::new()) };
    let text = objects.get(id, gix_object::Kind::Blob)?;
    Ok(submodule::parse(&String::from_utf8_lossy(&text)))
}

fn make_directory(above: &OwnedFd, name: &str, path: &Path) -> Result<(), Error> {
    rustix::fs::mkdirat(above, name, Mode::from_raw_mode(0o755))
        .map_err(Error::system("create directory", path))
}

/// Opens a directory below `root`. An empty path is `root` itself.
fn open_directory(root: &OwnedFd, place: &Path) -> Result<OwnedFd, Error> {
    let path = if place.as_os_str().is_empty() { Path::new(".") } else { place };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    rustix::fs::openat2(root, path, flags, Mode::empty(), within).map_err(Error::system("open", place))
}

fn times(seconds: i64) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    Timestamps { last_access: time, last_modification: time }
}

fn write(
    above: &OwnedFd,
    name: &str,
    path: &Path,
    kind: EntryKind,
    content: &[u8],
    time: i64,
) -> Result<(), Error> {
    if kind == EntryKind::Link {
        rustix::fs::symlinkat(content, above, name).map_err(Error::system("create", path))?;
    } else {
        let mode = if kind == EntryKind::BlobExecutable { 0o755 } else { 0o644 };
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(above, name, flags, Mode::from_raw_mode(mode));
        let mut file = fs::File::from(file.map_err(Error::system("create", path))?);
        file.write_all(content).map_err(Error::system("write", path))?;
        rustix::fs::fchmod(file.as_fd(), Mode::from_raw_mode(mode))
            .map_err(Error::system("change mode of", path))?;
    }
    rustix::fs::utimensat(above, name, &times(time), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(Error::system("set times of", path))
}

/// Makes a git repository of the objects, as a shallow clone would.
fn keep_repository(
    objects: &mut Objects<'_>,
    tree: ObjectId,
    revision: &Revision,
    address: &Address,
    git: &Path,
) -> Result<(), Error> {
    let mut text = vec![
        ("HEAD".to_owned(), format!("{}\n", revision.commit)),
        ("shallow".to_owned(), format!("{}\n", revision.commit)),
        ("config".to_owned(), configuration(objects.kind, &without_user(&address.remote))),
    ];
    if let Some(name) = revision.reference.as_deref().filter(|name| is_safe(name)) {
        // The branch exists, but HEAD is the commit, as in BuildKit.
        text.push((name.to_owned(), format!("{}\n", revision.commit)));
    }
    for directory in ["refs/heads", "refs/tags", "objects/info"] {
        let path = git.join(directory);
        operation::make_directories(&path, 0o777).map_err(Error::system("create directory", &path))?;
    }
    for (name, text) in text {
        let path = git.join(name);
        let above = path.parent().map_or(PathBuf::new(), Path::to_owned);
        operation::make_directories(&above, 0o777).map_err(Error::system("create directory", &above))?;
        fs::write(&path, text).map_err(Error::system("write", &path))?;
    }
    let path = git.join("index");
    let wrong = |error: String| objects.wrong(format!("its list of files: {error}"));
    let state = gix_index::State::from_tree(&tree, objects.handle(), Default::default());
    let state = state.map_err(|error| wrong(error.to_string()))?;
    let mut index = gix_index::File::from_state(state, path);
    index.write(gix_index::write::Options::default()).map_err(|error| wrong(error.to_string()))
}

fn configuration(kind: Kind, remote: &str) -> String {
    let (version, extension) = match kind {
        Kind::Sha256 => (1, "[extensions]\n\tobjectFormat = sha256\n"),
        _ => (0, ""),
    };
    let core = format!("[core]\n\trepositoryformatversion = {version}\n\tfilemode = true\n\tbare = false\n");
    let origin =
        format!("[remote \"origin\"]\n\turl = {remote}\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n");
    format!("{core}{extension}{origin}")
}

/// Whether the name of a branch or a tag is safe as a file name.
fn is_safe(name: &str) -> bool {
    name.starts_with("refs/")
        && name.split('/').all(|part| !matches!(part, "" | "." | "..") && !part.ends_with(".lock"))
        && !name.contains(|c: char| c.is_control() || c == '\\')
}

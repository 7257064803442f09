//! The sources of files for COPY, ADD and mounts besides stages and images: the build context and the named
//! contexts (`--build-context`).

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    fs::File,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
    rc::Rc,
};

use oci::Digest;
use rustix::fs::{Mode, OFlags};

use super::{
    Builder, Options, fetch,
    input::{Input, read_in},
    repository,
    store::open_readable,
};
use crate::{
    cache::FILES,
    copy::{Listing, StatCache, Tree},
    error::Cause,
    ignore::{IGNORE_FILE, Ignore},
    plan::{Alias, Aliases},
};

/// The value of a `--build-context`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    /// A directory.
    Directory(PathBuf),
    /// An image, or `scratch`.
    Image(String),
    /// An image in an OCI layout: its directory, and a tag or digest, if given.
    Layout(PathBuf, Option<String>),
    /// A file on a web server. In the context its name is `context`.
    Web(String),
    /// A git repository.
    Git(git::Address),
}

impl Named {
    /// Parses `NAME=DIR`, `NAME=docker-image://IMAGE`, `NAME=oci-layout://DIR[:TAG|@DIGEST]`, or `NAME=` and
    /// the address of a file on a web server or of a git repository. Returns the name and the source.
    ///
    /// # Errors
    /// What is wrong.
    pub fn parse(text: &str) -> Result<(String, Self), String> {
        let (name, value) = text.split_once('=').ok_or("it is NAME=SOURCE")?;
        if name.is_empty() || value.is_empty() {
            return Err("it is NAME=SOURCE".to_owned());
        }
        if ["scratch", "context"].iter().any(|reserved| reserved.eq_ignore_ascii_case(name)) {
            return Err(format!("{name:?} has a meaning already"));
        }
        let named = match value.split_once("://") {
            Some(("docker-image", "scratch")) => Self::Image("scratch".to_owned()),
            Some(("docker-image", image)) => {
                let image: oci::Reference = image.parse().map_err(|error| format!("{image:?}: {error}"))?;
                Self::Image(image.pinned().canonical())
            }
            Some(("oci-layout", layout)) => {
                let (path, which) = match layout.split_once('@') {
                    Some((path, digest)) => (path, Some(digest)),
                    None => match layout.rsplit_once(':') {
                        Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
                        _ => (layout, None),
                    },
                };
                Self::Layout(path.into(), which.map(str::to_owned))
            }
            Some(("local", path)) => Self::Directory(path.into()),
            _ => match git::Address::parse(value) {
                Some(address) => Self::Git(address.map_err(|error| error.to_string())?),
                None if fetch::is_web(value) => Self::Web(value.to_owned()),
                None if value.contains("://") => return Err(format!("unsupported context source {value:?}")),
                None => Self::Directory(value.into()),
            },
        };
        Ok((name.to_owned(), named))
    }

    /// The files that say what the context has: its `.dockerignore`, or the index of an OCI layout, whose
    /// blobs never change. Not all of them may exist.
    fn index(&self) -> Vec<PathBuf> {
        match self {
            Self::Directory(path) => vec![path.join(IGNORE_FILE)],
            // An archive of a layout is a file.
            Self::Layout(path, _) if path.is_file() => vec![path.clone()],
            Self::Layout(path, _) => ["index.json", "oci-layout"].map(|name| path.join(name)).to_vec(),
            Self::Image(_) | Self::Web(_) | Self::Git(_) => Vec::new(),
        }
    }

    /// What the name stands for in the plan.
    pub(super) fn alias(&self, name: &str) -> Alias {
        match self {
            Self::Image(image) if image == "scratch" => Alias::Scratch,
            Self::Image(image) => Alias::Image(image.clone()),
            Self::Layout(..) => Alias::Image(name.to_owned()),
            Self::Directory(_) | Self::Web(_) | Self::Git(_) => Alias::Files,
        }
    }
}

/// The names of all contexts, and what they stand for in the plan.
pub(super) fn aliases(contexts: &BTreeMap<String, Named>) -> Aliases {
    Aliases::new(contexts.iter().map(|(name, named)| (name.clone(), named.alias(name))))
}

/// The trees that were opened, by name. The build context has the name `None`.
#[derive(Debug, Default)]
pub(super) struct Contexts {
    open: RefCell<BTreeMap<Option<String>, Rc<Tree>>>,
    /// The files and directories of the host that were read.
    read: RefCell<BTreeSet<PathBuf>>,
}

impl Contexts {
    /// The files and directories that were read so far.
    pub(super) fn all(&self) -> Vec<PathBuf> {
        self.read.borrow().iter().cloned().collect()
    }

    /// Adds files and directories that another process read.
    pub(super) fn add(&self, read: Vec<PathBuf>) {
        self.read.borrow_mut().extend(read);
    }

    /// Everything that was read from directories of the host, and the Dockerfile. Empty without `--depfile`.
    pub(super) fn read(&self, input: &Input, options: &Options) -> Result<Vec<PathBuf>, Cause> {
        if !options.notes_reads {
            return Ok(Vec::new());
        }
        let mut read = self.read.take();
        let own = |path: &Path| std::path::absolute(path).map_err(Cause::system("find", path));
        if !input.is_sealed() {
            if input.file.as_os_str() != "-" {
                read.insert(own(&input.file)?);
            }
            read.extend(input.ignore_files().into_iter().filter(|path| path.exists()));
        }
        for named in options.contexts.values() {
            read.extend(named.index().into_iter().filter(|path| path.exists()));
        }
        read.iter().map(|path| own(path)).collect()
    }
}

impl Builder<'_> {
    /// Records what a job reads: its files, and what was looked at to find them. Does nothing without
    /// `--depfile`.
    pub(super) fn note_reads(&self, tree: &Tree, listing: &Listing) {
        if !self.options.notes_reads {
            return;
        }
        if let Some(root) = tree.host_path() {
            let mut read = self.contexts.read.borrow_mut();
            // The root itself gets no slash at its end.
            let at =
                |path: &Path| if path.as_os_str().is_empty() { root.to_owned() } else { root.join(path) };
            read.extend(listing.paths().map(at));
            read.extend(tree.seen().iter().map(|path| at(path)));
        }
    }

    /// The build context. It is opened when it is first needed.
    pub(super) fn context(&self) -> Result<Rc<Tree>, Cause> {
        self.opened(None, || open_main(self.input))
    }

    /// The files of a named context.
    pub(super) fn named(&self, name: &str) -> Result<Rc<Tree>, Cause> {
        let none = || Cause::NoImage(name.to_owned());
        let named = self.options.contexts.get(name).ok_or_else(none)?;
        self.opened(Some(name), || match named {
            Named::Directory(path) => open_directory(path),
            Named::Web(address) => {
                let directory = self.store.workspace()?.step()?.upper;
                let path = directory.join("context");
                let mut file = File::create_new(&path).map_err(Cause::system("create", &path))?;
                let mut body = fetch::Body::get(address, self.options, Cause::Context)?;
                let shown = registry::without_user(address);
                fetch::copy((&mut body, Path::new(&shown)), (&mut file, &path))?;
                Ok(Tree::context(open_readable(&directory)?, Ignore::default()))
            }
            Named::Git(address) => {
                let step = self.store.workspace()?.step()?;
                repository::check_out(address, None, self.options, (&step.upper, &step.work), false)?;
                ignoring(open_readable(&step.upper)?, &step.upper)
            }
            Named::Image(_) | Named::Layout(..) => Err(none()),
        })
    }

    fn opened(
        &self,
        name: Option<&str>,
        open: impl FnOnce() -> Result<Tree, Cause>,
    ) -> Result<Rc<Tree>, Cause> {
        let name = name.map(str::to_owned);
        if let Some(tree) = self.contexts.open.borrow().get(&name) {
            return Ok(Rc::clone(tree));
        }
        let tree = open()?;
        let tree = if self.options.notes_reads { tree.noting() } else { tree };
        let tree = Rc::new(self.with_stat_cache(tree));
        self.contexts.open.borrow_mut().insert(name, Rc::clone(&tree));
        Ok(tree)
    }

    /// Lets a directory of the machine know which of its files earlier builds have read.
    fn with_stat_cache(&self, tree: Tree) -> Tree {
        let Some(path) = tree.host_path() else { return tree };
        if self.options.no_cache || self.options.only_looks {
            return tree;
        }
        let Ok(path) = path.canonicalize() else { return tree };
        let name = Digest::of(path.as_os_str().as_bytes());
        let cache = self.options.root.join("cache").join(FILES).join(name.hex());
        tree.with_stat_cache(StatCache::open(cache))
    }
}

/// A directory as a context, without the files that its `.dockerignore` excludes.
fn open_directory(path: &Path) -> Result<Tree, Cause> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root =
        rustix::fs::open(path, flags, Mode::empty()).map_err(Cause::system("open build context", path))?;
    Ok(ignoring(root, path)?.at(path))
}

type ReadFile<'a> = &'a dyn Fn(&Path) -> std::io::Result<Vec<u8>>;

/// The directory `path`, open as `root`, without the files that its `.dockerignore` excludes. A link cannot
/// lead out of the directory, because the files may come from somebody else's repository.
fn ignoring(root: OwnedFd, path: &Path) -> Result<Tree, Cause> {
    let ignore = read_ignore(&path.join(IGNORE_FILE), &|_| read_in(&root, Path::new(IGNORE_FILE)))?;
    Ok(Tree::context(root, ignore.unwrap_or_default()))
}

fn read_ignore(path: &Path, read: ReadFile<'_>) -> Result<Option<Ignore>, Cause> {
    match read(path) {
        Ok(text) => {
            let failed = |source| Cause::Ignore { path: path.to_owned(), source };
            Ignore::parse(&text).map(Some).map_err(failed)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Cause::system("read", path)(error)),
    }
}

/// Opens the build context. The Dockerfile's own `.dockerignore` counts before the context's.
fn open_main(input: &Input) -> Result<Tree, Cause> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root: OwnedFd = rustix::fs::open(&input.context, flags, Mode::empty())
        .map_err(Cause::system("open build context", &input.context))?;
    let ignore = input.ignore(&root)?;
    let tree = Tree::context(root, ignore);
    Ok(if input.is_sealed() { tree } else { tree.at(&input.context) })
}

impl Input {
    /// The paths where a `.dockerignore` may be: the Dockerfile's own, then the context's.
    fn ignore_files(&self) -> Vec<PathBuf> {
        let mut own = self.file.as_os_str().to_owned();
        // A Dockerfile on standard input has none of its own.
        let of_file = (own != "-").then(|| {
            own.push(IGNORE_FILE);
            PathBuf::from(own)
        });
        of_file.into_iter().chain([self.context.join(IGNORE_FILE)]).collect()
    }

    /// The patterns of the Dockerfile's own `.dockerignore`, or of the context's.
    fn ignore(&self, root: &OwnedFd) -> Result<Ignore, Cause> {
        for path in self.ignore_files() {
            if let Some(ignore) = read_ignore(&path, &|path| self.read_beside(root, path))? {
                return Ok(ignore);
            }
        }
        Ok(Ignore::default())
    }
}

//! Building: the steps of a Dockerfile in order, each from the cache or anew, and the image in the end.

mod epoch;
mod explain;
mod fetch;
mod files;
mod image;
mod mounts;
mod process;
mod run;
mod secret;
mod stage;
mod store;
mod stubs;

use std::{
    cell::{OnceCell, RefCell},
    collections::{BTreeMap, HashMap},
    fs,
    io::Write,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::fs::{Mode, OFlags};

pub use explain::explain;
pub use secret::Secret;

use crate::{
    arguments::Global,
    cache::{Cache, Layer},
    config::Image,
    copy::Tree,
    dockerfile::{self, Dockerfile},
    error::{Cause, Error},
    excerpt::excerpt,
    ignore::Ignore,
    plan::{self, Plan, PlanError},
    progress::Progress,
};
use stage::State;
use store::Store;

/// The network that RUN has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Network {
    /// Only a loopback interface.
    #[default]
    None,
    /// The host's.
    Host,
}

/// What to build, and how.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// `$STAVE_ROOT`, absolute.
    pub root: PathBuf,
    /// The Dockerfile.
    pub file: PathBuf,
    /// The directory that COPY and ADD read from.
    pub context: PathBuf,
    /// The names that the image gets.
    pub tags: Vec<oci::Reference>,
    /// `--build-arg`.
    pub arguments: BTreeMap<String, String>,
    /// `--secret`, by id.
    pub secrets: BTreeMap<String, Secret>,
    /// `--label`.
    pub labels: Vec<(String, String)>,
    /// `--target`: a stage's name or number.
    pub target: Option<String>,
    /// `--network`.
    pub network: Network,
    /// Use nothing that was built before.
    pub no_cache: bool,
    /// Where a user namespace cannot hold what an image's layers say, come as near as can be.
    pub rootless: bool,
    /// Do not wait until the image is on the disk.
    pub no_sync: bool,
    /// Say nothing but errors.
    pub quiet: bool,
    /// `SOURCE_DATE_EPOCH`: the time that everything in the image has, in seconds.
    pub epoch: Option<i64>,
}

/// An image that was built.
#[derive(Debug, Clone)]
pub struct Built {
    /// Its manifest.
    pub descriptor: oci::spec::Descriptor,
    /// Its configuration, as it is in the store.
    pub configuration: serde_json::Value,
    /// The digest of its configuration.
    pub id: oci::Digest,
}

/// A build in progress.
struct Builder<'a> {
    options: &'a Options,
    progress: Progress,
    file: Dockerfile,
    plan: Plan,
    global: Global,
    store: Store,
    cache: Cache,
    context: OnceCell<Tree>,
    /// Parts of the context that bind mounts show: the source and its digest, and the copy.
    shown: RefCell<HashMap<(PathBuf, String), PathBuf>>,
    /// Stages that are done, by their index.
    done: BTreeMap<usize, State>,
    step: usize,
}

/// Reads the Dockerfile; `-` is standard input.
fn read_text(path: &Path) -> Result<Vec<u8>, Error> {
    let mut text = Vec::new();
    let read = match path.as_os_str().as_encoded_bytes() {
        b"-" => std::io::Read::read_to_end(&mut std::io::stdin(), &mut text).map(|_| text),
        _ => fs::read(path),
    };
    Ok(read.map_err(Cause::system("read", path))?)
}

fn parse(path: &Path, text: &[u8]) -> Result<Dockerfile, Error> {
    dockerfile::parse(text).map_err(|source| Error::Syntax { file: path.display().to_string(), source })
}

/// Reads and parses the Dockerfile; `-` is standard input.
///
/// # Errors
/// When it cannot be read, or is none.
pub fn read_dockerfile(path: &Path) -> Result<Dockerfile, Error> {
    parse(path, &read_text(path)?)
}

/// Builds an image and puts it into the store.
///
/// The calling process gets a mount namespace of its own as soon as something has to be mounted. It must have a single
/// thread then.
///
/// # Errors
/// [`Error`]; no name is given then. What was built up to there stays in the cache.
pub fn build(options: &Options) -> Result<Built, Error> {
    let context =
        fs::metadata(&options.context).map_err(Cause::system("open build context", &options.context))?;
    if !context.is_dir() {
        let error = std::io::Error::from(rustix::io::Errno::NOTDIR);
        return Err(Cause::system("open build context", &options.context)(error).into());
    }
    // Modes in an image are what the Dockerfile and the context say, whatever the caller's umask; and what the store
    // gets of directories is for nobody else to write to.
    rustix::process::umask(Mode::WGRP | Mode::WOTH);
    let text = read_text(&options.file)?;
    let built = parse(&options.file, &text).and_then(|file| Builder::new(options, file)?.run());
    if let Some(line) = built.as_ref().err().and_then(Error::line) {
        let name = options.file.display().to_string();
        // Whoever closed standard error has the error in the document.
        let _ = std::io::stderr().write_all(excerpt(&name, &text, line).as_bytes());
    }
    built
}

impl<'a> Builder<'a> {
    fn new(options: &'a Options, file: Dockerfile) -> Result<Self, Error> {
        let progress = Progress { quiet: options.quiet };
        for warning in &file.warnings {
            progress.warning(&format!("{}:{warning}", options.file.display()));
        }
        let target = plan::target(&file, options.target.as_deref()).map_err(Error::Target)?;
        let name = file.stages[target].name.clone().unwrap_or_else(|| "default".to_owned());
        let at = |line, source| Error::Plan { file: options.file.display().to_string(), line, source };
        let global = Global::new(options.arguments.clone(), &file.arguments, file.escape, &name)
            .map_err(|(line, error)| at(line, PlanError::Expand(error)))?;
        let store = Store::open(&options.root, options.rootless, !options.no_sync)?;
        let triggers = |name: &str| store.triggers(name);
        let plan = plan::plan(&file, target, &global, &triggers).map_err(|(line, error)| at(line, error))?;
        let cache = Cache::new(options.root.join("cache"), !options.no_cache);
        Ok(Self {
            options,
            progress,
            file,
            plan,
            global,
            store,
            cache: match options.rootless {
                // A step may see other owners, and so make another layer.
                true => cache.apart("rootless"),
                false => cache,
            },
            context: OnceCell::new(),
            shown: RefCell::default(),
            done: BTreeMap::new(),
            step: 0,
        })
    }

    fn run(mut self) -> Result<Built, Error> {
        for statement in self.file.arguments.clone() {
            self.begin(&statement.text);
        }
        for at in self.plan.stages.clone() {
            let state = self.stage(at)?;
            self.done.insert(at, state);
        }
        let unused = self.global.unused();
        if !unused.is_empty() {
            self.progress
                .warning(&format!("One or more build-args [{}] were not consumed", unused.join(" ")));
        }
        let last = self.plan.stages.last().and_then(|at| self.done.remove(at)).unwrap_or_default();
        Ok(self.finish(last)?)
    }

    /// Announces a step.
    fn begin(&mut self, text: &str) {
        self.step += 1;
        self.progress.step(self.step, self.plan.steps, text);
    }

    /// Says where in the Dockerfile something failed.
    fn at(&self, line: usize) -> impl FnOnce(Cause) -> Error + use<> {
        let file = self.options.file.display().to_string();
        let (step, steps) = (self.step, self.plan.steps);
        move |source| Error::Step { file, line, step, steps, source: Box::new(source) }
    }

    /// The time for what is made now, RFC 3339.
    fn created(&self) -> String {
        oci::timestamp::format(self.options.epoch.unwrap_or_else(oci::timestamp::now))
    }

    /// The build context, opened when it is first needed.
    fn context(&self) -> Result<&Tree, Cause> {
        if self.context.get().is_none() {
            let _ = self.context.set(open_context(&self.options.context, &self.options.file)?);
        }
        self.context.get().ok_or_else(|| Cause::NoImage("context".to_owned()))
    }
}

/// Opens the context, with the `.dockerignore` that belongs to the Dockerfile, or else the context's.
fn open_context(context: &Path, file: &Path) -> Result<Tree, Cause> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root: OwnedFd = rustix::fs::open(context, flags, Mode::empty())
        .map_err(Cause::system("open build context", context))?;
    let mut own = file.as_os_str().to_owned();
    own.push(".dockerignore");
    for path in [PathBuf::from(own), context.join(".dockerignore")] {
        match fs::read(&path) {
            Ok(text) => {
                let ignore = Ignore::parse(&text).map_err(|source| Cause::Ignore { path, source })?;
                return Ok(Tree::context(root, ignore));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Cause::system("read", &path)(error)),
        }
    }
    Ok(Tree::context(root, Ignore::default()))
}

/// An image of the store that something is built on or copied from.
struct Base {
    image: Image,
    layers: Vec<Layer>,
}

impl Builder<'_> {
    /// Finds an image in the store.
    fn base(&self, name: &str) -> Result<Base, Cause> {
        let descriptor = self.store.layout.resolve(name)?.ok_or_else(|| Cause::NoImage(name.to_owned()))?;
        let found = self.store.layout.image(&descriptor, None)?;
        let layers = found
            .layers()?
            .into_iter()
            .map(|(descriptor, diff_id)| Layer { descriptor: descriptor.clone(), diff_id })
            .collect();
        Ok(Base { image: serde_json::from_value(found.raw_configuration)?, layers })
    }
}

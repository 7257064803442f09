//! Building: the steps of a Dockerfile in order, from the cache or run, and the final image.

mod agent;
mod cache_transfer;
mod contexts;
mod explain;
mod failed;
mod fetch;
mod files;
mod image;
mod images;
mod input;
mod lint;
mod mounts;
mod process;
mod reasons;
mod rehearsal;
mod repository;
mod request;
mod run;
mod secret;
mod stage;
mod store;
mod stubs;
mod tree;
mod whole;
mod workers;

use std::{
    cell::{Cell, OnceCell, RefCell},
    collections::{BTreeMap, HashMap},
    fs,
    path::PathBuf,
    sync::Arc,
};

use oci::Platform;
use oci_spec::runtime::PosixRlimit;
use runtime::hosts::Entry;
use rustix::fs::Mode;

pub use agent::agent;
pub use cache_transfer::{CacheFrom, CacheTo};
pub use contexts::Named;
pub use explain::explain;
pub use failed::Left;
pub use input::Context;
pub use lint::lint;
pub use rehearsal::rehearse;
pub use secret::Secret;
pub use tree::write_tree;
pub use whole::Whole;
pub(crate) use whole::layers_of;

use crate::{
    arguments::Global,
    cache::{Cache, Layer},
    config::Image,
    dockerfile::{Dockerfile, suggest::suggest},
    error::{Cause, Error},
    network::Own,
    plan::{self, Plan, PlanError},
    progress::{Form, Progress},
};
use contexts::Contexts;
use input::Input;
use rehearsal::{Rehearsal, Verdict};
use stage::State;
use store::Store;

/// The network of RUN.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Network {
    /// One of the build's own, with a way out.
    #[default]
    Own,
    /// Only a loopback interface.
    None,
    /// The host's.
    Host,
}

/// What a RUN has besides its network.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// `--add-host`: names with their addresses, for `/etc/hosts`.
    pub hosts: Vec<Entry>,
    /// `--shm-size`, in bytes.
    pub shared_memory: Option<u64>,
    /// `--ulimit`.
    pub limits: Vec<PosixRlimit>,
}

/// When a registry is asked for an image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Pull {
    /// When it is not in the store.
    #[default]
    Missing,
    /// Always: the name may mean another one now.
    Always,
    /// Never.
    Never,
}

/// What to build, and how.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// `$STAVE_ROOT`, absolute.
    pub root: PathBuf,
    /// `$STAVE_RUN`, absolute.
    pub run_dir: PathBuf,
    /// The Dockerfile; `-` is standard input. By default the context's own.
    pub file: Option<PathBuf>,
    /// The files for COPY and ADD.
    pub context: Context,
    /// `--build-context`: other sources of files and images, by their names.
    pub contexts: BTreeMap<String, Named>,
    /// The names of the image.
    pub tags: Vec<oci::Reference>,
    /// `--build-arg`.
    pub arguments: BTreeMap<String, String>,
    /// `--secret`, by id.
    pub secrets: BTreeMap<String, Secret>,
    /// `--ssh`: sockets of agents, by id.
    pub agents: BTreeMap<String, PathBuf>,
    /// `--label`.
    pub labels: Vec<(String, String)>,
    /// `--target`: a stage's name or number.
    pub target: Option<String>,
    /// `--network`.
    pub network: Network,
    /// What a RUN has besides its network.
    pub surroundings: Surroundings,
    /// `--annotation`: of the manifest.
    pub annotations: Vec<(String, String)>,
    /// `--platform`: what to build for; this machine's by default.
    pub platform: Option<Platform>,
    /// `--pull`.
    pub pull: Pull,
    /// `--jobs`: how many stages are built at the same time.
    pub jobs: usize,
    /// Nothing is built (`--dry-run`, `--explain`, `--lint`), and nothing written to the store.
    pub only_looks: bool,
    /// Only look for mistakes: they are no errors.
    pub lint: bool,
    /// `--cache-from`.
    pub cache_from: Vec<CacheFrom>,
    /// `--cache-to`.
    pub cache_to: Vec<CacheTo>,
    /// `--explain-cache`: tell why each step is cached or not.
    pub explain_cache: bool,
    /// `--keep-failed`: a RUN that fails leaves an image.
    pub keep_failed: bool,
    /// `--squash`: one layer for all that the build makes on its base.
    pub squash: bool,
    /// Do not use the cache.
    pub no_cache: bool,
    /// In a user namespace that cannot represent an image's layers, come as close as possible.
    pub rootless: bool,
    /// Do not wait until the image is on the disk.
    pub no_sync: bool,
    /// How the build tells what it does.
    pub progress: Form,
    /// Whether all files of the image are wanted together.
    pub tree: bool,
    /// `--keep-mtime`: files that are copied keep their times.
    pub keep_times: bool,
    /// `--normalize`: take out what commands write differently each time.
    pub normalize: bool,
    /// `--depfile`: note which files are read.
    pub notes_reads: bool,
    /// `SOURCE_DATE_EPOCH`: the time of everything in the image, in seconds.
    pub epoch: Option<i64>,
}

/// A built image.
#[derive(Debug, Clone)]
pub struct Built {
    /// Its manifest.
    pub descriptor: oci::spec::Descriptor,
    /// Its configuration, as it is in the store.
    pub configuration: serde_json::Value,
    /// The digest of its configuration.
    pub id: oci::Digest,
    /// All its files in a tar file, if they are wanted.
    pub tree: Option<Arc<fs::File>>,
    /// The files and directories that were read, if they are wanted.
    pub read: Vec<PathBuf>,
}

/// A build in progress.
struct Builder<'a> {
    options: &'a Options,
    input: &'a Input,
    progress: Progress,
    file: Dockerfile,
    plan: Plan,
    global: Global,
    store: Store,
    cache: Cache,
    contexts: Contexts,
    /// Parts of the context for bind mounts: the source and its digest, and the copy.
    shown: RefCell<HashMap<(PathBuf, String), PathBuf>>,
    /// The network of RUN, made for the first one; none where it cannot be made.
    network: OnceCell<Option<Own>>,
    /// Finished stages, by their index.
    done: BTreeMap<usize, State>,
    step: usize,
    /// Its text.
    text: String,
    /// The stage that is built, and how many of the steps of the same number there were before.
    at: Cell<(usize, u32)>,
    /// When it began, in seconds since 1970.
    started: i64,
    /// `SOURCE_DATE_EPOCH`, in seconds.
    epoch: Option<i64>,
    /// Where caches of mounts are that end with the build.
    own_caches: Option<PathBuf>,
    /// What the steps would do, if they are only looked at.
    rehearsal: Option<Rehearsal>,
}

/// Builds an image and puts it into the store.
///
/// The calling process gets a mount namespace of its own as soon as something has to be mounted. It must be
/// single-threaded then.
///
/// # Errors
/// [`Error`]; then no name is given. The results so far stay in the cache.
pub fn build(options: &Options) -> Result<Built, Error> {
    // Modes in an image come from the Dockerfile and the context, whatever the caller's umask. Nobody else may write to
    // the store's directories.
    rustix::process::umask(Mode::WGRP | Mode::WOTH);
    let open = || Store::open(options);
    let input = Input::read(options)?;
    input.work(|file| {
        let builder = Builder::new(options, &input, file, open, None)?;
        for finding in builder.findings()? {
            builder.progress.warning(&format!("{}:{}: {finding}", input.name, finding.line));
        }
        builder.run()
    })
}

/// The given time of everything in the image, or else that of an ARG before the first FROM.
fn epoch(options: &Options, global: &Global) -> Result<Option<i64>, Cause> {
    let text = global.variable("SOURCE_DATE_EPOCH").filter(|text| !text.is_empty());
    match (options.epoch, text) {
        (Some(given), _) => Ok(Some(given)),
        (None, Some(text)) => text.parse().map(Some).map_err(|_| Cause::Epoch(text)),
        (None, None) => Ok(None),
    }
}

impl<'a> Builder<'a> {
    fn new(
        options: &'a Options,
        input: &'a Input,
        file: Dockerfile,
        open: impl FnOnce() -> Result<Store, Cause>,
        rehearsal: Option<Rehearsal>,
    ) -> Result<Self, Error> {
        // A rehearsal prints its own lines.
        let progress = Progress::new(if rehearsal.is_some() { Form::Quiet } else { options.progress });
        let target = plan::target(&file, options.target.as_deref()).map_err(Error::Target)?;
        let name = file.stages[target].name.clone().unwrap_or_else(|| "default".to_owned());
        let at = |line, source| Error::Plan { file: input.name.clone(), line, source };
        let global = Global::new(
            options.arguments.clone(),
            options.platform.as_ref(),
            &file.arguments,
            file.escape,
            &name,
        )
        .map_err(|(line, error)| at(line, PlanError::Expand(error)))?;
        let epoch = epoch(options, &global)?;
        let store = open()?;
        let aliases = contexts::aliases(&options.contexts);
        let triggers = |name: &str, platform: Option<&Platform>| store.triggers(name, platform);
        let plan = plan::plan(&file, target, &global, &aliases, &triggers)
            .map_err(|(line, error)| at(line, error))?;
        let cache = Cache::new(options.root.join("cache"), !options.no_cache);
        Ok(Self {
            options,
            input,
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
            contexts: Contexts::default(),
            shown: RefCell::default(),
            network: OnceCell::new(),
            done: BTreeMap::new(),
            step: 0,
            text: String::new(),
            at: Cell::default(),
            started: oci::timestamp::now(),
            epoch,
            own_caches: None,
            rehearsal,
        })
    }

    fn run(mut self) -> Result<Built, Error> {
        // From here on img-gc sees that a build runs.
        self.store.workspace()?;
        cache_transfer::import(self.options, &self.store, &self.cache)?;
        let last = self.stages()?;
        self.progress.end();
        let tree = self.options.tree.then(|| self.tree(&last)).transpose()?;
        let read = self.contexts.read(self.input, self.options)?;
        Ok(Built { tree, read, ..self.finish(last)? })
    }

    /// Builds the stages. Returns the last one.
    fn stages(&mut self) -> Result<State, Error> {
        for statement in self.file.arguments.clone() {
            self.begin(&statement.text);
        }
        match self.rehearsal.is_some() || self.options.jobs < 2 {
            true => {
                for at in self.plan.stages.clone() {
                    let state = self.stage(at)?;
                    self.done.insert(at, state);
                }
            }
            false => self.side_by_side()?,
        }
        let unused = self.global.unused();
        if !unused.is_empty() {
            self.progress
                .warning(&format!("One or more build-args [{}] were not consumed", unused.join(" ")));
        }
        Ok(self.plan.stages.last().and_then(|at| self.done.remove(at)).unwrap_or_default())
    }

    /// Announces a step.
    fn begin(&mut self, text: &str) {
        self.step += 1;
        self.text = text.to_owned();
        self.at.set((self.at.get().0, 0));
        self.progress.step(self.step, self.plan.steps, text);
        if let Some(rehearsal) = &self.rehearsal {
            rehearsal.begin(format!("{}/{} {text}", self.step, self.plan.steps));
        }
    }

    /// Notes what a step would do, if it is only looked at.
    fn note(&self, verdict: Verdict) {
        if let Some(rehearsal) = &self.rehearsal {
            rehearsal.note(verdict);
        }
    }

    /// Adds the place in the Dockerfile to an error.
    fn at(&self, line: usize) -> impl FnOnce(Cause) -> Error + use<> {
        let file = self.input.name.clone();
        let (step, steps) = (self.step, self.plan.steps);
        move |source| Error::Step { file, line, step, steps, source: Box::new(source) }
    }
}

/// An image of the store that is a base or a source.
struct Base {
    image: Image,
    layers: Vec<Layer>,
}

impl Builder<'_> {
    /// Finds an image in the store, or pulls it.
    fn base(&self, name: &str, platform: Option<&Platform>) -> Result<Base, Cause> {
        let found = self.store.images.find(name, platform);
        let found = found.and_then(|found| found.ok_or_else(|| Cause::NoImage(name.to_owned())));
        let found = found.map_err(|cause| self.near(cause, name))?;
        let layers = layers_of(&found)?;
        Ok(Base { image: serde_json::from_value(found.raw_configuration)?, layers })
    }

    /// An image that is missing may have been meant as a stage.
    fn near(&self, cause: Cause, name: &str) -> Cause {
        match suggest(name, &plan::names(&self.file.stages)) {
            near if near.is_empty() => cause,
            near => Cause::Near(Box::new(cause), near),
        }
    }
}

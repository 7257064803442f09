//! Builds images: takes the steps of a Dockerfile from the cache or runs them, and writes the final image.

mod agent;
mod cache_mounts;
mod cache_transfer;
mod contexts;
mod epoch;
mod equivalent;
mod explain;
mod failed;
mod fetch;
mod files;
mod image;
mod images;
mod input;
mod lint;
mod mixed;
mod mounts;
mod platforms;
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
use cache_transfer::Results;
pub use cache_transfer::{CacheFrom, CacheTo};
pub use contexts::Named;
pub use equivalent::explain_changes;
pub use explain::explain;
pub use failed::Left;
pub use input::Context;
pub use lint::lint;
pub use platforms::{Several, build_for};
pub use rehearsal::rehearse;
pub use secret::Secret;
pub use tree::{join_trees, write_tree};
pub use whole::Whole;
pub(crate) use whole::layers_of;

use crate::{
    arguments::Global,
    cache::{Cache, Layer},
    config::Image,
    dockerfile::{Dockerfile, suggest::suggest},
    error::{Cause, Error},
    excerpt::without_passwords,
    network::Own,
    plan::{self, Plan, PlanError},
    progress::{Display, Form, Progress},
};
use contexts::Contexts;
use input::Input;
use rehearsal::{Rehearsal, Verdict};
use stage::State;
use store::Store;

/// The network of RUN, by `--network`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Network {
    /// A network of the build, with access to other networks.
    #[default]
    Own,
    /// Only a loopback interface.
    None,
    /// The host's network.
    Host,
}

/// Settings of RUN besides its network.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// `--add-host`: names with their addresses, for `/etc/hosts`.
    pub hosts: Vec<Entry>,
    /// `--shm-size`, in bytes.
    pub shared_memory: Option<u64>,
    /// `--ulimit`.
    pub limits: Vec<PosixRlimit>,
}

/// When to ask a registry for an image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Pull {
    /// When the image is not in the store.
    #[default]
    Missing,
    /// Always, because the name may mean another image now.
    Always,
    /// Never.
    Never,
}

/// What to build and how.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// `$STAVE_ROOT`, as an absolute path.
    pub root: PathBuf,
    /// `$STAVE_RUN`, as an absolute path.
    pub run_dir: PathBuf,
    /// The path of the Dockerfile; `-` for standard input. By default, the Dockerfile in the context.
    pub file: Option<PathBuf>,
    /// Where the files for COPY and ADD come from.
    pub context: Context,
    /// `--build-context`: named contexts.
    pub contexts: BTreeMap<String, Named>,
    /// The names of the new image.
    pub tags: Vec<oci::Reference>,
    /// `--build-arg`.
    pub arguments: BTreeMap<String, String>,
    /// `--secret`: secrets by id.
    pub secrets: BTreeMap<String, Secret>,
    /// `--ssh`: sockets of agents by id.
    pub agents: BTreeMap<String, PathBuf>,
    /// `--label`.
    pub labels: Vec<(String, String)>,
    /// `--target`: the name or number of a stage.
    pub target: Option<String>,
    /// `--network`.
    pub network: Network,
    /// `--allow network.host`: whether `RUN --network=host` is permitted.
    pub host_network: bool,
    /// Settings of RUN besides its network.
    pub surroundings: Surroundings,
    /// `--annotation`: annotations of the manifest.
    pub annotations: Vec<(String, String)>,
    /// `--platform`: the platform to build for. By default, this machine's.
    pub platform: Option<Platform>,
    /// Whether the image is for one of several platforms. It gets no entry in the store's list of images then.
    pub is_part: bool,
    /// `--pull`.
    pub pull: Pull,
    /// `--jobs`: the number of stages to build at the same time.
    pub jobs: usize,
    /// Whether to build nothing and write nothing to the store (`--dry-run`, `--explain`, `--lint`).
    pub only_looks: bool,
    /// Whether only the checks run, so that findings are no errors.
    pub lint: bool,
    /// `--cache-from`.
    pub cache_from: Vec<CacheFrom>,
    /// `--cache-to`.
    pub cache_to: Vec<CacheTo>,
    /// `--explain-cache`: whether to say why each step is cached or not.
    pub explain_cache: bool,
    /// `--keep-failed`: whether a failed RUN leaves an image.
    pub keep_failed: bool,
    /// `--squash`: whether to merge all layers above the base into one.
    pub squash: bool,
    /// `--no-cache`: whether not to use the cache.
    pub no_cache: bool,
    /// `--no-cache-filter`: the names of stages whose steps do not use the cache.
    pub no_cache_filter: Vec<String>,
    /// `--rootless`: in a user namespace that cannot represent all owners of files, come as close as
    /// possible.
    pub rootless: bool,
    /// Whether not to wait until the image is on the disk.
    pub no_sync: bool,
    /// The form of the build's messages.
    pub progress: Form,
    /// Whether to return all files of the image as one archive.
    pub tree: bool,
    /// Whether the caller does more with the image, which may fail. The picture of the build then does not say
    /// that it is finished.
    pub goes_on: bool,
    /// `--keep-mtime`: whether copied files keep their times.
    pub keep_times: bool,
    /// `--normalize`: whether to remove what commands write differently each time.
    pub normalize: bool,
    /// `--depfile`: whether to record which files are read.
    pub notes_reads: bool,
}

/// A built image.
#[derive(Debug, Clone)]
pub struct Built {
    /// The descriptor of the image's manifest.
    pub descriptor: oci::spec::Descriptor,
    /// The image's configuration, as it is in the store.
    pub configuration: serde_json::Value,
    /// The image's id: the digest of its configuration.
    pub id: oci::Digest,
    /// All files of the image as a tar file, if asked for.
    pub tree: Option<Arc<fs::File>>,
    /// The files and directories that were read, if asked for.
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
    /// Copies of parts of the context for bind mounts, by their source and its digest.
    shown: RefCell<HashMap<(PathBuf, String), PathBuf>>,
    /// The network of RUN. It is made for the first RUN that needs it. `None` if it cannot be made.
    network: OnceCell<Option<Own>>,
    /// Finished stages, by their index.
    done: BTreeMap<usize, State>,
    step: usize,
    /// The text of the current step.
    text: String,
    /// The current stage, and how many steps of it had the current step's number before.
    at: Cell<(usize, u32)>,
    /// When the current step began, in seconds since 1970.
    started: i64,
    /// The time of everything in the image, in seconds since 1970 (`SOURCE_DATE_EPOCH`).
    epoch: Option<i64>,
    /// The directory of cache mounts that end with the build.
    own_caches: Option<PathBuf>,
    /// The verdicts on the steps so far, if the build only looks.
    rehearsal: Option<Rehearsal>,
}

/// Builds an image and puts it into the store.
///
/// The calling process moves to its own mount namespace as soon as something has to be mounted. It must have
/// only one thread then.
///
/// # Errors
/// [`Error`]. The image gets no name then. Results of steps that were done stay in the cache.
pub fn build(options: &Options) -> Result<Built, Error> {
    // Modes in an image come from the Dockerfile and the context, and not from the caller's umask. Nobody
    // else may write to the store's directories.
    rustix::process::umask(Mode::WGRP | Mode::WOTH);
    let open = || Store::open(options);
    let input = Input::read(options)?;
    input.work(options, |file| {
        let builder = Builder::new(options, &input, file, open, None)?;
        for finding in builder.findings()? {
            builder.progress.warning(&format!("{}:{}: {finding}", input.name, finding.line));
        }
        builder.run_shown().map(|(built, _)| built)
    })
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
        plan::know_all(&file.stages, &options.no_cache_filter).map_err(Error::Target)?;
        let name = file.stages[target].name.clone().unwrap_or_else(|| "default".to_owned());
        let at = |line, source| Error::Plan { file: input.name.clone(), line, source };
        let mut global = Global::new(
            options.arguments.clone(),
            options.platform.as_ref(),
            &file.arguments,
            file.escape,
            &name,
        )
        .map_err(|(line, error)| at(line, PlanError::Expand(error)))?;
        let epoch = epoch::epoch(options, input, &file, &mut global)?;
        let store = open()?;
        let aliases = contexts::aliases(&options.contexts);
        let triggers = |name: &str, platform: Option<&Platform>| store.triggers(name, platform);
        // Without a target, all stages are checked, as BuildKit does.
        let first = if options.lint && options.target.is_none() { 0 } else { target };
        let plan = plan::plan(&file, first..=target, &global, &aliases, &triggers)
            .inspect_err(|_| lint::warn_of_from(options, &input.name, &file, &global))
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
                // In a user namespace, a step may see other owners and make another layer. Owners that the namespace does not
                // have are left out.
                true => {
                    let map =
                        |name: &str| fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default();
                    cache.apart(format!("rootless {} {}", map("uid_map"), map("gid_map")))
                }
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

    /// Runs the build. On a terminal, a picture shows it.
    fn run_shown(mut self) -> Result<(Built, Results), Error> {
        let display = if self.options.progress == Form::Terminal { Display::begin() } else { None };
        if let Some(display) = &display {
            self.progress = display.progress();
        }
        let finished = !self.options.goes_on && !self.options.is_part;
        let built = self.run();
        if let Some(display) = display {
            display.end(built.is_err(), finished);
        }
        built
    }

    fn run(mut self) -> Result<(Built, Results), Error> {
        // From here on, img-gc sees that a build is running.
        self.store.workspace()?;
        cache_transfer::import(self.options, &self.store, &self.cache)?;
        let last = self.stages()?;
        self.progress.end();
        let tree = self.options.tree.then(|| self.tree(&last)).transpose()?;
        let read = self.contexts.read(self.input, self.options)?;
        let (built, results) = self.finish(last)?;
        Ok((Built { tree, read, ..built }, results))
    }

    /// Builds the stages. Returns the target.
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

    /// Begins a step, and announces it.
    fn begin(&mut self, text: &str) {
        self.step += 1;
        let text = &without_passwords(text);
        self.text = text.clone();
        self.at.set((self.at.get().0, 0));
        self.progress.step(self.step, self.plan.steps, text);
        if let Some(rehearsal) = &self.rehearsal {
            rehearsal.begin(format!("{}/{} {text}", self.step, self.plan.steps));
        }
    }

    /// Records what the build would do with the step, if the build only looks.
    fn note(&self, verdict: Verdict) {
        if let Some(rehearsal) = &self.rehearsal {
            rehearsal.note(verdict);
        }
    }

    /// Adds the line and the step to an error.
    fn at(&self, line: usize) -> impl FnOnce(Cause) -> Error + use<> {
        let file = self.input.name.clone();
        let (step, steps) = (self.step, self.plan.steps);
        move |source| Error::Step { file, line, step, steps, source: Box::new(source) }
    }
}

/// An image of the store that is the base of a stage or the source of a copy.
struct Base {
    image: Image,
    layers: Vec<Layer>,
}

impl Builder<'_> {
    /// Finds an image in the store or pulls it.
    fn base(&self, name: &str, platform: Option<&Platform>) -> Result<Base, Cause> {
        let found = self.store.images.find(name, platform);
        let found = found.and_then(|found| found.ok_or_else(|| Cause::NoImage(name.to_owned())));
        let found = found.map_err(|cause| self.near(cause, name))?;
        let layers = layers_of(&found)?;
        Ok(Base { image: serde_json::from_value(found.raw_configuration)?, layers })
    }

    /// Adds a suggestion: a missing image may have been meant as a stage.
    fn near(&self, cause: Cause, name: &str) -> Cause {
        match suggest(name, &plan::names(&self.file.stages)) {
            near if near.is_empty() => cause,
            near => Cause::Near(Box::new(cause), near),
        }
    }
}

//! Building: the steps of a Dockerfile in order, from the cache or run, and the final image.

mod agent;
mod contexts;
mod epoch;
mod explain;
mod fetch;
mod files;
mod image;
mod images;
mod input;
mod mounts;
mod process;
mod rehearsal;
mod repository;
mod run;
mod secret;
mod stage;
mod store;
mod stubs;
mod tree;

use std::{
    cell::{OnceCell, RefCell},
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
pub use contexts::Named;
pub use explain::explain;
pub use input::Context;
pub use rehearsal::rehearse;
pub use secret::Secret;
pub use tree::write_tree;

use crate::{
    arguments::Global,
    cache::{Cache, Layer},
    config::Image,
    dockerfile::{Dockerfile, suggest::suggest},
    error::{Cause, Error},
    network::Own,
    plan::{self, Plan, PlanError},
    progress::Progress,
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
    /// Do not use the cache.
    pub no_cache: bool,
    /// In a user namespace that cannot represent an image's layers, come as close as possible.
    pub rootless: bool,
    /// Do not wait until the image is on the disk.
    pub no_sync: bool,
    /// Print only errors.
    pub quiet: bool,
    /// Whether all files of the image are wanted together.
    pub tree: bool,
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
    input.work(|file| Builder::new(options, &input, file, open, None)?.run())
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
        let progress = Progress { quiet: options.quiet || rehearsal.is_some() };
        for warning in &file.warnings {
            progress.warning(&format!("{}:{warning}", input.name));
        }
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
            rehearsal,
        })
    }

    fn run(mut self) -> Result<Built, Error> {
        let last = self.stages()?;
        let tree = self.options.tree.then(|| self.tree(&last)).transpose()?;
        Ok(Built { tree, ..self.finish(last)? })
    }

    /// Builds the stages. Returns the last one.
    fn stages(&mut self) -> Result<State, Error> {
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
        Ok(self.plan.stages.last().and_then(|at| self.done.remove(at)).unwrap_or_default())
    }

    /// Announces a step.
    fn begin(&mut self, text: &str) {
        self.step += 1;
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

    /// The time for new things, RFC 3339.
    fn created(&self) -> String {
        oci::timestamp::format(self.options.epoch.unwrap_or_else(oci::timestamp::now))
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
        let layers = found
            .layers()?
            .into_iter()
            .map(|(descriptor, diff_id)| Layer { descriptor: descriptor.clone(), diff_id })
            .collect();
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

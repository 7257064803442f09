//! Flags about how a build goes.

use std::{
    io::{self, IsTerminal},
    num::NonZeroUsize,
};

use builder::{Options, ProgressForm};
use clap::{Args, ValueEnum};

#[derive(Debug, Clone, Args)]
pub(crate) struct Steps {
    /// Build this many stages at the same time; by default as many as there are processors
    #[arg(short, long, value_name = "NUMBER")]
    jobs: Option<NonZeroUsize>,
    /// How to tell what happens: lines, a line for each step, or JSON; by default plain, and tty on a terminal
    #[arg(long, value_name = "FORM", default_value = "auto")]
    progress: Shown,
    /// Run every step, and do not use the step cache; cache mounts start empty
    #[arg(long)]
    no_cache: bool,
    /// Tell of each step why the cache has it or not: as words, and as a line of JSON
    #[arg(long)]
    explain_cache: bool,
    /// Let copied files keep their times; by default all times are those of the base image
    #[arg(long)]
    keep_mtime: bool,
    /// Of what RUN writes, empty logs, and leave out caches of apt and of the linker, and bytecode of Python
    #[arg(long)]
    normalize: bool,
    /// In a user namespace, give files of owners without a mapping to the caller, and make empty files instead of device
    /// nodes
    #[arg(long)]
    rootless: bool,
    /// Let a RUN that fails leave a container, for ns-exec --from DOCUMENT -t -- sh; unwind removes it
    #[arg(long)]
    keep_failed: bool,
    /// Only print what in the Dockerfile is likely to be a mistake, by the names of BuildKit's checks; exit 1 if anything is
    #[arg(long)]
    pub(crate) lint: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Shown {
    Auto,
    Plain,
    Tty,
    Json,
    #[value(alias = "none")]
    Quiet,
}

impl Shown {
    fn form(self, quiet: bool) -> ProgressForm {
        match self {
            _ if quiet => ProgressForm::Quiet,
            Self::Auto if io::stderr().is_terminal() => ProgressForm::Terminal,
            Self::Auto | Self::Plain => ProgressForm::Plain,
            Self::Tty => ProgressForm::Terminal,
            Self::Json => ProgressForm::Json,
            Self::Quiet => ProgressForm::Quiet,
        }
    }
}

impl Steps {
    pub(crate) fn add_to(&self, options: &mut Options, quiet: bool) {
        let all = || std::thread::available_parallelism().ok();
        options.jobs = self.jobs.or_else(all).map_or(1, NonZeroUsize::get);
        options.progress = self.progress.form(quiet);
        options.explain_cache = self.explain_cache;
        options.no_cache = self.no_cache;
        options.keep_times = self.keep_mtime;
        options.normalize = self.normalize;
        options.rootless = self.rootless;
        options.keep_failed = self.keep_failed;
        options.lint = self.lint;
    }
}

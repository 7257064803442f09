//! Flags for the run of a build.

use std::{
    io::{self, IsTerminal},
    num::NonZeroUsize,
};

use builder::{Options, ProgressForm};
use clap::{Args, ValueEnum};

#[derive(Debug, Clone, Args)]
pub(crate) struct Steps {
    /// Build this many stages in parallel; by default the number of processors
    #[arg(short, long, value_name = "NUMBER")]
    jobs: Option<NonZeroUsize>,
    /// How to show progress: lines, a line for each step, or JSON; by default plain, and tty on a terminal
    #[arg(long, value_name = "FORM", default_value = "auto")]
    progress: Shown,
    /// Run every step without the step cache; cache mounts start empty
    #[arg(long)]
    no_cache: bool,
    /// Run every step of this stage without the step cache; repeatable
    #[arg(long, value_name = "STAGE", value_delimiter = ',')]
    no_cache_filter: Vec<String>,
    /// Print for each step why it is cached or not, as text and as a line of JSON
    #[arg(long)]
    explain_cache: bool,
    /// Keep the times of copied files; by default all times are those of the base image
    #[arg(long)]
    keep_mtime: bool,
    /// Empty the logs that RUN writes, and leave out caches of apt and the linker, and Python bytecode
    #[arg(long)]
    normalize: bool,
    /// In a user namespace, unpack files of unmapped owners as the caller's, and device nodes as empty files
    #[arg(long)]
    rootless: bool,
    /// Keep a failed RUN as a container, for ns-exec --from DOCUMENT -t -- sh; unwind removes it
    #[arg(long)]
    keep_failed: bool,
    /// Only print likely mistakes in the Dockerfile, named as BuildKit's checks; exit with 1 if there are any
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
        options.no_cache_filter = self.no_cache_filter.clone();
        options.keep_times = self.keep_mtime;
        options.normalize = self.normalize;
        options.rootless = self.rootless;
        options.keep_failed = self.keep_failed;
        options.lint = self.lint;
    }
}

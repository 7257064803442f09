//! Flags for the inputs of a build.

use std::{collections::BTreeMap, path::PathBuf};

use builder::{Options, Pull, executor};
use clap::{Args, ValueEnum};
use oci::Platform;
use toolkit::prelude::*;

use super::values::{argument, platform, secret};

#[derive(Debug, Clone, Args)]
pub(crate) struct Inputs {
    /// Read this Dockerfile, or standard input for -; CONTEXT/Dockerfile by default
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Set an ARG; without =VALUE, use the environment variable NAME; repeatable
    #[arg(long = "build-arg", value_name = "NAME[=VALUE]")]
    arguments: Vec<String>,
    /// Provide a secret for RUN --mount=type=secret: id=ID,src=FILE or id=ID,env=VARIABLE; repeatable
    #[arg(long = "secret", value_name = "SECRET")]
    secrets: Vec<String>,
    /// Provide an SSH agent for RUN --mount=type=ssh: default, for $SSH_AUTH_SOCK, or ID=SOCKET; repeatable
    #[arg(long, value_name = "AGENT")]
    ssh: Vec<String>,
    #[arg(help = "Another source for FROM, COPY --from and mounts: DIR, docker-image://IMAGE, oci-layout://DIR[:TAG], or an address; repeatable", long = "build-context", value_name = "NAME=SOURCE", value_parser = builder::Named::parse)]
    contexts: Vec<(String, builder::Named)>,
    #[arg(
        help = "Build for this platform: os/architecture[/variant]. RUN needs an emulator for platforms other than this machine's. Several platforms make an index",
        long = "platform",
        value_name = "PLATFORM,…",
        value_delimiter = ',',
        value_parser = platform
    )]
    platforms: Vec<Platform>,
    /// When to pull base images; --pull means always
    #[arg(long, value_name = "WHEN", num_args = 0..=1, require_equals = true, default_value = "missing", default_missing_value = "always")]
    pull: When,
    /// Import cached steps: NAME in a registry, type=registry,ref=NAME or type=local,src=DIR; repeatable
    #[arg(long, value_name = "PLACE", value_parser = builder::CacheFrom::parse)]
    cache_from: Vec<builder::CacheFrom>,
    /// Build this stage; by default the last one
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,
    /// The context: a directory, http://…, https://HOST/NAME.git#BRANCH:DIR, or - for a tar or a Dockerfile
    #[arg(value_name = "CONTEXT", value_parser = builder::Context::parse)]
    context: builder::Context,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum When {
    #[value(aliases = ["false", "False", "FALSE", "f", "F", "0"])]
    Missing,
    #[value(aliases = ["true", "True", "TRUE", "t", "T", "1"])]
    Always,
    Never,
}

impl Inputs {
    /// The platforms to build for, each once. Empty for this machine's.
    pub(crate) fn platforms(&self) -> Vec<Platform> {
        let mut platforms = Vec::new();
        for platform in &self.platforms {
            if !platforms.contains(platform) {
                platforms.push(platform.clone());
            }
        }
        platforms
    }

    pub(crate) fn add_to(&self, options: &mut Options) -> Result<()> {
        let mut arguments: BTreeMap<_, _> = self.arguments.iter().filter_map(|text| argument(text)).collect();
        // The environment variable counts as a build argument. `--build-arg` takes precedence.
        if let Some((name, value)) = argument(oci::timestamp::SOURCE_DATE_EPOCH) {
            arguments.entry(name).or_insert(value);
        }
        options.arguments = arguments;
        options.file = self.file.clone();
        options.context = self.context.clone();
        options.secrets = self.secrets.iter().map(|text| secret(text)).collect::<Result<_>>()?;
        for text in &self.ssh {
            let (id, socket) = executor::agent(text).map_err(operation::Error::from)?;
            options.agents.insert(id, socket);
        }
        options.contexts = self.contexts.iter().cloned().collect();
        options.platform = self.platforms.first().cloned();
        options.pull = match self.pull {
            When::Missing => Pull::Missing,
            When::Always => Pull::Always,
            When::Never => Pull::Never,
        };
        options.cache_from = self.cache_from.clone();
        options.target = self.target.clone();
        Ok(())
    }
}

//! Builds an image from a Dockerfile and a context.
//!
//! # Does
//! Runs a Dockerfile instruction by instruction, or takes steps from the step cache. Each instruction that changes the file
//! system becomes a layer. The others change the configuration and the history. Pulls images that are not in the store.
//! # Reads
//! No document; the Dockerfile, `.dockerignore`, and the parts of the context that COPY and ADD name.
//! # Adds
//! `image`: the new image, under the first of its names. `--iidfile` gets its id.
//! # Undoes
//! Only the member: the image stays in the store until `img-rm` and `img-gc`. Mounts, processes and the network of the build
//! end with it, however it ends.
//! # Needs
//! Root, for the overlay of each step, or root in a user namespace (docs/rootless.md); write access to `$STAVE_ROOT`. For the
//! network of RUN: root, and `netns-bridge`, `veth-pair` and `unwind` in its own directory.

mod output;
mod surroundings;
mod values;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::ExitCode,
};

use builder::{Options, Pull, executor};
use clap::{Parser, ValueEnum};
use document::members::Image;
use oci::{Platform, Reference};
use output::{Output, metadata};
use surroundings::RunFlags;
use toolkit::prelude::*;
use values::{EPOCH, annotation, argument, epoch, label, secret};

/// Build an image from a Dockerfile
#[derive(Parser)]
#[command(name = "img-build", version, after_help = help())]
struct Build {
    #[arg(help = "Name the image NAME[:TAG]; repeatable", short, long = "tag", value_name = "NAME")]
    tags: Vec<Reference>,
    /// Read this Dockerfile, or standard input for -; CONTEXT/Dockerfile by default
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Add an annotation to the image's manifest; repeatable
    #[arg(long = "annotation", value_name = "NAME=VALUE", value_parser = annotation)]
    annotations: Vec<(String, String)>,
    /// Write digests and names of the image to this file, as JSON
    #[arg(long, value_name = "FILE")]
    metadata_file: Option<PathBuf>,
    /// Also write the image's files to a directory, or: type=local|tar|oci|docker,dest=PATH; repeatable
    #[arg(short, long = "output", value_name = "DIR|type=TYPE,dest=PATH", value_parser = Output::parse)]
    outputs: Vec<Output>,
    /// Write the image's id to this file
    #[arg(long = "iidfile", value_name = "FILE")]
    id_file: Option<PathBuf>,
    /// Set an ARG; without =VALUE, to the value of the environment variable NAME; repeatable
    #[arg(long = "build-arg", value_name = "NAME[=VALUE]")]
    arguments: Vec<String>,
    /// A secret for RUN --mount=type=secret: id=ID,src=FILE or id=ID,env=VARIABLE; repeatable
    #[arg(long = "secret", value_name = "SECRET")]
    secrets: Vec<String>,
    /// An agent of SSH for RUN --mount=type=ssh: default, for $SSH_AUTH_SOCK, or ID=SOCKET; repeatable
    #[arg(long, value_name = "AGENT")]
    ssh: Vec<String>,
    /// Another source for FROM, COPY --from and mounts: DIR, docker-image://IMAGE, oci-layout://DIR[:TAG], or an address;
    /// repeatable
    #[arg(long = "build-context", value_name = "NAME=SOURCE", value_parser = builder::Named::parse)]
    contexts: Vec<(String, builder::Named)>,
    /// Add a label to the image; repeatable
    #[arg(long = "label", value_name = "NAME=VALUE")]
    labels: Vec<String>,
    /// Build for this platform: os/architecture[/variant]. RUN needs an emulator for another one than this machine's
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<Platform>,
    /// Pull base images; --pull means always
    #[arg(long, value_name = "WHEN", num_args = 0..=1, require_equals = true, default_value = "missing", default_missing_value = "always")]
    pull: When,
    #[command(flatten)]
    run: RunFlags,
    /// Run every step, and do not use the step cache; cache mounts start empty
    #[arg(long)]
    no_cache: bool,
    /// In a user namespace, give files of owners without a mapping to the caller, and make empty files instead of device
    /// nodes
    #[arg(long)]
    rootless: bool,
    /// Build this stage; the last one by default
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,
    /// The directory with the files for COPY and ADD; an archive of it, or a Dockerfile, on standard input for -, or at http://…;
    /// or a repository of git, as https://HOST/NAME.git#BRANCH:DIRECTORY
    #[arg(value_name = "CONTEXT", value_parser = builder::Context::parse)]
    context: builder::Context,
    #[command(flatten)]
    writing: Writing,
    #[command(flatten)]
    common: Common,
}

fn help() -> String {
    let steps =
        "--dry-run lists the steps: \"cached\" are those that the step cache has, \"run\" the others.";
    format!("{}\n{steps}", toolkit::EQUIVALENT_HELP)
}

#[derive(Clone, Copy, ValueEnum)]
enum When {
    Missing,
    Always,
    Never,
}

impl Source for Build {
    type Member = Image;

    fn common(&self) -> &Common {
        &self.common
    }

    fn make(&self, context: &Context) -> Result<Image> {
        let built = builder::build(&self.options(context)?).map_err(operation::Error::from)?;
        let sync = self.writing.is_synced()?;
        self.outputs.iter().try_for_each(|output| output.write(context, &built, &self.tags, sync))?;
        if let Some(path) = &self.id_file {
            write(path, &built.id.to_string())?;
        }
        if let Some(path) = &self.metadata_file {
            write(path, &format!("{:#}\n", metadata(&built, &self.tags)))?;
        }
        Ok(Image {
            reference: self.tags.first().map(Reference::to_string),
            descriptor: built.descriptor,
            configuration: built.configuration.try_into()?,
        })
    }

    fn explain(&self, context: &Context) -> Result<Vec<String>> {
        let mut lines = executor::explain(&self.options(context)?).map_err(operation::Error::from)?;
        lines.extend(
            self.id_file
                .iter()
                .map(|path| format!("echo -n IMAGE-ID > {}", operation::quote(&path.to_string_lossy()))),
        );
        Ok(toolkit::equivalent(lines))
    }

    fn rehearse(&self, context: &Context) -> Result<Vec<String>> {
        Ok(executor::rehearse(&self.options(context)?).map_err(operation::Error::from)?)
    }
}

impl Build {
    fn options(&self, context: &Context) -> Result<Options> {
        let mut arguments: BTreeMap<_, _> = self.arguments.iter().filter_map(|text| argument(text)).collect();
        // The variable counts as an argument, which goes before it.
        if let Some((name, value)) = argument(EPOCH) {
            arguments.entry(name).or_insert(value);
        }
        Ok(Options {
            epoch: epoch(&arguments)?,
            root: context.scope.root.clone(),
            run_dir: context.scope.run_dir.clone(),
            file: self.file.clone(),
            context: self.context.clone(),
            tags: self.tags.clone(),
            arguments,
            secrets: self.secrets.iter().map(|text| secret(text)).collect::<Result<_>>()?,
            agents: self
                .ssh
                .iter()
                .map(|text| executor::agent(text).map_err(operation::Error::from))
                .collect::<std::result::Result<_, _>>()?,
            contexts: self.contexts.iter().cloned().collect(),
            labels: self.labels.iter().map(|text| label(text)).collect::<Result<_>>()?,
            target: self.target.clone(),
            network: self.run.network(),
            surroundings: self.run.surroundings(),
            annotations: self.annotations.clone(),
            platform: self.platform.clone(),
            pull: match self.pull {
                When::Missing => Pull::Missing,
                When::Always => Pull::Always,
                When::Never => Pull::Never,
            },
            no_cache: self.no_cache,
            rootless: self.rootless,
            no_sync: !self.writing.is_synced()?,
            quiet: context.quiet,
            tree: self.outputs.iter().any(Output::is_of_files),
        })
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).map_err(|error| {
        let error = operation::Error::new("write", format_args!("{path:?}"), error);
        error.of(operation::Place::File).into()
    })
}

fn main() -> ExitCode {
    toolkit::source::<Build>()
}

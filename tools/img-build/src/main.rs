//! Builds an image from a Dockerfile and a context.
//!
//! # Does
//! Runs a Dockerfile instruction by instruction, or takes steps from the step cache. Each instruction that changes the file
//! system becomes a layer. The others change the configuration and the history.
//! # Reads
//! No document; the Dockerfile, `.dockerignore`, and the parts of the context that COPY and ADD name.
//! # Adds
//! `image`: the new image, under the first of its names. `--iidfile` gets its id.
//! # Undoes
//! Only the member: the image stays in the store until `img-rm` and `img-gc`. Mounts and processes of the build end with
//! it, however it ends.
//! # Needs
//! Root, for the overlay of each step, or root in a user namespace (docs/rootless.md); write access to `$STAVE_ROOT`.

use std::{collections::BTreeMap, path::PathBuf, process::ExitCode};

use builder::{Network, Options, Secret, executor};
use clap::{Parser, ValueEnum};
use document::members::Image;
use oci::Reference;
use toolkit::prelude::*;

/// Build an image from a Dockerfile
#[derive(Parser)]
#[command(name = "img-build", version, after_help = toolkit::EQUIVALENT_HELP)]
struct Build {
    #[arg(help = "Name the image NAME[:TAG]; repeatable", short, long = "tag", value_name = "NAME")]
    tags: Vec<Reference>,
    /// Read this Dockerfile, or standard input for -; CONTEXT/Dockerfile by default
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Write the image's id to this file
    #[arg(long = "iidfile", value_name = "FILE")]
    id_file: Option<PathBuf>,
    /// Set an ARG; without =VALUE, to the value of the environment variable NAME; repeatable
    #[arg(long = "build-arg", value_name = "NAME[=VALUE]")]
    arguments: Vec<String>,
    /// A secret for RUN --mount=type=secret: id=ID,src=FILE or id=ID,env=VARIABLE; repeatable
    #[arg(long = "secret", value_name = "SECRET")]
    secrets: Vec<String>,
    /// Add a label to the image; repeatable
    #[arg(long = "label", value_name = "NAME=VALUE")]
    labels: Vec<String>,
    /// Give RUN this network
    #[arg(long, value_name = "MODE", default_value = "none")]
    network: Mode,
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
    /// The directory with the files for COPY and ADD
    #[arg(value_name = "CONTEXT")]
    context: PathBuf,
    #[command(flatten)]
    writing: Writing,
    #[command(flatten)]
    common: Common,
}

#[derive(Clone, Copy, ValueEnum)]
enum Mode {
    None,
    Host,
}

impl Source for Build {
    type Member = Image;

    fn common(&self) -> &Common {
        &self.common
    }

    fn make(&self, context: &Context) -> Result<Image> {
        let built = builder::build(&self.options(context)?).map_err(operation::Error::from)?;
        if let Some(path) = &self.id_file {
            std::fs::write(path, built.id.to_string()).map_err(|error| {
                operation::Error::new("write", format_args!("{path:?}"), error).of(operation::Place::File)
            })?;
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
            file: self.file.clone().unwrap_or_else(|| self.context.join("Dockerfile")),
            context: self.context.clone(),
            tags: self.tags.clone(),
            arguments,
            secrets: self.secrets.iter().map(|text| secret(text)).collect::<Result<_>>()?,
            labels: self.labels.iter().map(|text| label(text)).collect::<Result<_>>()?,
            target: self.target.clone(),
            network: match self.network {
                Mode::None => Network::None,
                Mode::Host => Network::Host,
            },
            no_cache: self.no_cache,
            rootless: self.rootless,
            no_sync: !self.writing.is_synced()?,
            quiet: context.quiet,
        })
    }
}

/// A name alone takes the value that the variable has here; one that is not set gives nothing, as with Docker.
fn argument(text: &str) -> Option<(String, String)> {
    match text.split_once('=') {
        Some((name, value)) => Some((name.to_owned(), value.to_owned())),
        None => Some((text.to_owned(), std::env::var(text).ok()?)),
    }
}

/// The time that everything in the image has (reproducible-builds.org).
const EPOCH: &str = "SOURCE_DATE_EPOCH";

fn epoch(arguments: &BTreeMap<String, String>) -> Result<Option<i64>> {
    let Some(text) = arguments.get(EPOCH).map(|text| text.trim()).filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let seconds = text.parse().with_context(|| format!("read {EPOCH} {text:?} as seconds since 1970"))?;
    Ok(Some(seconds))
}

/// `id=ID`, and `src=FILE` or `env=VARIABLE`. An id alone is a variable of that name where there is one, and else a file.
fn secret(text: &str) -> Result<(String, Secret)> {
    let (mut id, mut file, mut variable, mut kind) = (None, None, None, None);
    for field in text.split(',') {
        match field.split_once('=') {
            Some(("id", value)) => id = Some(value),
            Some(("src" | "source", value)) => file = Some(value),
            Some(("env", value)) => variable = Some(value),
            Some(("type", value @ ("file" | "env"))) => kind = Some(value),
            _ => bail!("secret {text:?}: {field:?} is none of id=ID, src=FILE, env=VARIABLE, type=file|env"),
        }
    }
    let Some(id) = id.filter(|id| !id.is_empty()) else {
        bail!("secret {text:?} has no id: write id=ID,src=FILE")
    };
    if kind == Some("env") {
        variable = variable.or(file.take());
    }
    let secret = match (file, variable) {
        (Some(_), Some(_)) => bail!("secret {text:?} has both src and env"),
        (Some(file), None) => Secret::File(file.into()),
        (None, Some(name)) => Secret::Variable(name.to_owned()),
        (None, None) if kind != Some("file") && std::env::var_os(id).is_some() => {
            Secret::Variable(id.to_owned())
        }
        (None, None) => Secret::File(id.into()),
    };
    Ok((id.to_owned(), secret))
}

fn label(text: &str) -> Result<(String, String)> {
    match text.split_once('=').unwrap_or((text, "")) {
        ("", _) => bail!("label {text:?} has no name: write --label NAME=VALUE"),
        (name, value) => Ok((name.to_owned(), value.to_owned())),
    }
}

fn main() -> ExitCode {
    toolkit::source::<Build>()
}

//! Builds an image from a Dockerfile and a context.
//!
//! # Does
//! Runs a Dockerfile instruction by instruction, or takes steps from the step cache. Each instruction that
//! changes the file system becomes a layer. The others change the configuration and the history. Pulls images
//! that are not in the store.
//! # Reads
//! No document. Reads the Dockerfile, `.dockerignore`, and the parts of the context that COPY and ADD name.
//! # Adds
//! `image`: the new image, under the first of its names. `--iidfile` gets its id. With `--keep-failed`, a RUN
//! that fails leaves a container: the members of `layer-apply` and `union-mount`, beside `error`.
//! # Undoes
//! Only the member. The image stays in the store until `img-rm` and `img-gc`. Mounts, processes and the
//! network of the build end with it, in whatever way it ends.
//! # Needs
//! Root, for the overlay of each step, or root in a user namespace (docs/rootless.md); write access to
//! `$STAVE_ROOT`. For the network of RUN: root, and `netns-bridge`, `veth-pair` and `unwind` in img-build's
//! own directory.

mod dependencies;
mod docker;
mod inputs;
mod output;
mod platforms;
mod results;
mod steps;
mod surroundings;
mod values;

use std::{cell::RefCell, process::ExitCode};

use builder::{
    Options,
    container::{self, Outside, of_failed},
    executor,
};
use clap::Parser;
use docker::DockerFlags;
use document::{Document, members::Image};
use inputs::Inputs;
use oci::Reference;
use results::Results;
use steps::Steps;
use surroundings::RunFlags;
use toolkit::prelude::*;

/// Build an image from a Dockerfile
#[derive(Parser)]
#[command(name = "img-build", version, after_help = help())]
struct Build {
    #[command(flatten)]
    results: Results,
    #[command(flatten)]
    inputs: Inputs,
    #[command(flatten)]
    steps: Steps,
    #[command(flatten)]
    run: RunFlags,
    #[command(flatten)]
    _docker: DockerFlags,
    #[command(flatten)]
    writing: Writing,
    #[command(flatten)]
    common: Common,
    /// With `--keep-failed`, the document of the failed step's container.
    #[arg(skip)]
    left: RefCell<Option<Document>>,
}

fn help() -> String {
    let steps =
        "--dry-run lists the steps: \"cached\" are those that the step cache has, \"run\" the others.";
    format!("{}\n{steps}", toolkit::EQUIVALENT_HELP)
}

impl Source for Build {
    type Member = Image;

    const CHECK_HINT: Option<&'static str> =
        Some("the checks of a Dockerfile, as of docker build --check: --lint");

    fn common(&self) -> &Common {
        &self.common
    }

    fn make(&self, context: &Context) -> Result<Image> {
        let outside = Outside::here().map_err(operation::Error::from)?;
        let options = self.options(context)?;
        self.results.remove_old()?;
        let failed = |error: &builder::Error| self.keep(context, &outside, error);
        let sync = self.writing.is_synced()?;
        let built = match &self.inputs.platforms()[..] {
            platforms @ [_, _, ..] => {
                let several = builder::build_for(&options, platforms).inspect_err(failed);
                self.results.write_several(context, &several.map_err(operation::Error::from)?, sync)?
            }
            _ => {
                let built = builder::build(&options).inspect_err(failed).map_err(operation::Error::from)?;
                self.results.write(context, &built, sync)?;
                built
            }
        };
        Ok(Image {
            reference: self.results.names().first().map(Reference::to_string),
            descriptor: built.descriptor,
            configuration: built.configuration.try_into()?,
        })
    }

    fn shown(&self, image: &Image) -> Option<String> {
        let name = image.reference.as_ref().map(|name| format!(" {name}")).unwrap_or_default();
        Some(format!("Built {}{name}\n", image.descriptor.digest()))
    }

    fn left(&self) -> Document {
        self.left.take().unwrap_or_default()
    }

    fn unwritten(&self, context: &Context, document: &Document) {
        // Only the document of a failed step has an id.
        if document.id().is_ok_and(|id| id.is_some()) {
            container::remove(document.to_line().as_bytes(), &context.scope.root, &context.scope.run_dir);
        }
    }

    fn explain(&self, context: &Context) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        for options in platforms::each(&self.options(context)?, self.inputs.platforms()) {
            lines.extend(executor::explain(&options).map_err(operation::Error::from)?);
        }
        lines.extend(self.results.explain());
        Ok(toolkit::equivalent(lines))
    }

    fn check(&self, context: &Context) -> Option<Result<Vec<String>>> {
        let lint = || Ok(executor::lint(&self.options(context)?).map_err(operation::Error::from)?);
        self.steps.lint.then(lint)
    }

    fn rehearse(&self, context: &Context) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        for options in platforms::each(&self.options(context)?, self.inputs.platforms()) {
            lines.extend(executor::rehearse(&options).map_err(operation::Error::from)?);
        }
        Ok(lines)
    }
}

impl Build {
    /// With `--keep-failed`, makes a container from what the failed step left. The build has failed in any
    /// case.
    fn keep(&self, context: &Context, outside: &Outside, error: &builder::Error) {
        let Some(left) = error.left() else { return };
        let made = of_failed(left, outside, &context.scope.root, &context.scope.run_dir);
        let document = made.map_err(anyhow::Error::from).and_then(|document| Ok(Document::parse(&document)?));
        match document {
            Ok(document) => {
                for mount in &left.without {
                    operation::note(&format!("the failed step's container lacks the mount {mount:?}"));
                }
                if let Ok(Some(id)) = document.id() {
                    operation::note(&format!(
                        "the failed step is container {id}: look into it with ns-exec --from DOCUMENT, remove it with unwind {id}"
                    ));
                }
                *self.left.borrow_mut() = Some(document);
            }
            Err(error) => operation::note(&format!("warning: no container of the failed step: {error}")),
        }
    }

    fn options(&self, context: &Context) -> Result<Options> {
        let mut options = Options {
            root: context.scope.root.clone(),
            run_dir: context.scope.run_dir.clone(),
            network: self.run.network(),
            host_network: self.run.host_network(),
            surroundings: self.run.surroundings(),
            only_looks: self.steps.lint || self.common.explain || self.common.dry_run,
            no_sync: !self.writing.is_synced()?,
            ..Options::default()
        };
        if self.inputs.platforms().len() > 1 {
            self.results.hold_several()?;
        }
        self.inputs.add_to(&mut options)?;
        self.results.add_to(&mut options)?;
        self.steps.add_to(&mut options, context.quiet);
        Ok(options)
    }
}

pub(crate) fn main() -> ExitCode {
    toolkit::source::<Build>()
}

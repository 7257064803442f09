//! Shows the files of an image in a directory, without a container.
//!
//! # Does
//! Unpacks the image's layers if necessary, and mounts them on a directory: read-only, without devices, and so that
//! set-user-ID bits count for nothing. What was in the directory is hidden meanwhile. On a terminal it prints a line
//! instead of the document.
//! # Reads
//! No document. Reads the store.
//! # Adds
//! `image`, `layers`.
//! # Undoes
//! The mount. `--undo DIR` finds the record by the directory. Layers stay.
//! # Needs
//! Root, or root in a user namespace (docs/rootless.md); overlayfs, with at most 500 layers.

mod place;

use std::{cell::RefCell, path::PathBuf, process::ExitCode};

use clap::Parser;
use document::{
    Contribution, Id, Member,
    members::{Image, Layers},
};
use layer::{Apply, apply::Limits, store::Format};
use mount::MountOperation;
use oci::{Layout, Platform};
use operation::{Operation, Scope};
use serde_json::{Map, Value, json};
use toolkit::prelude::*;
use union::Container;

/// Show the files of an image in a directory, read-only and without a container
#[derive(Debug, Parser)]
#[command(name = "img-mount", version)]
struct ImgMount {
    /// The image: a name, an id, or the first digits of an id. With --undo: the directory
    #[arg(value_name = "IMAGE", required_unless_present_any = ["undo", "check", "repair", "schema", "generate"])]
    image: Option<String>,
    /// The directory, which must exist
    #[arg(value_name = "DIR", required_unless_present_any = ["undo", "check", "repair", "schema", "generate"])]
    directory: Option<PathBuf>,
    /// Take this platform of a multi-platform image: os/architecture[/variant]; this machine's by default
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<Platform>,
    /// Make each layer a directory, or with erofs an image in one file
    #[arg(long, value_name = "FORM", default_value = "directory")]
    format: Format,
    /// In a user namespace, unpack files of unmapped owners as the caller's, and device nodes as empty files
    #[arg(long)]
    rootless: bool,
    /// The layers, once they are unpacked.
    #[arg(skip)]
    unpacked: RefCell<Option<(Image, Apply)>>,
    #[command(flatten)]
    common: Common,
}

operation::any_of! {
    /// What shows the files of an image.
    enum ShowOperation {
        /// Unpacking its layers.
        Apply(Apply),
        /// A directory, a mount.
        Mount(MountOperation),
    }
}

/// What the step adds to the document.
struct Shown {
    image: Image,
    layers: Layers,
}

impl Contribution for Shown {
    const MEMBERS: &'static [&'static str] = &[Image::NAME, Layers::NAME];

    fn parts(&self) -> serde_json::Result<Map<String, Value>> {
        Ok(Map::from_iter([
            (Image::NAME.to_owned(), json!(self.image)),
            (Layers::NAME.to_owned(), serde_json::to_value(&self.layers)?),
        ]))
    }
}

impl Filter for ImgMount {
    type Adds = Shown;
    type Operation = ShowOperation;
    const STARTS: bool = true;
    const SHOWN: Option<fn(&Document) -> String> = Some(shown);

    fn common(&self) -> &Common {
        &self.common
    }

    fn named(&self) -> Result<Option<Id>> {
        match (&self.image, &self.directory) {
            (None, _) => Ok(None),
            (Some(directory), None) => place::container(&self.common.scope()?, directory.as_ref()).map(Some),
            (Some(_), Some(_)) => bail!("take back a mount: name only its directory"),
        }
    }

    /// Unpacks the layers, so that the plan knows where they are. They are shared, and no undo removes them.
    fn before(&self, scope: &Scope, _: &Document) -> Result<()> {
        if !self.common.undo {
            place::target(scope, self.directory()?)?;
            let (image, mut apply) = self.image(scope)?;
            apply.apply(scope)?;
            self.unpacked.replace(Some((image, apply)));
        }
        Ok(())
    }

    fn plan(&self, context: &Context, _: &Document) -> Result<Plan<Self>> {
        let target = place::target(&context.scope, self.directory()?)?;
        let unpacked = self.unpacked.borrow_mut().take();
        let is_planned = unpacked.is_none();
        let (image, apply) = unpacked.map_or_else(|| self.image(&context.scope), Ok)?;
        let layers = union::unpacked(&apply);
        let container = Container { scope: &context.scope, id: &context.id, planned: is_planned };
        let mounts = union::view(container, &layers, target)?.into_iter().map(ShowOperation::from);
        let operations = [ShowOperation::from(apply)].into_iter().chain(mounts).collect();
        Ok(Plan { adds: Shown { image, layers }, operations })
    }
}

impl ImgMount {
    fn directory(&self) -> Result<&PathBuf> {
        self.directory.as_ref().context("no directory is named")
    }

    /// The image, and the operation that unpacks its layers.
    fn image(&self, scope: &Scope) -> Result<(Image, Apply)> {
        let named = self.image.as_deref().context("no image is named")?;
        let layout = Layout::look(scope.root.join("images"))?;
        let found = layout
            .find_listed(named)
            .map_err(|error| hint(error, "img-ls lists the images; img-pull fetches one from a registry"))?;
        let image = layout.image(&found.image, self.platform.as_ref())?;
        let apply = Apply::of(&scope.root, &image, Limits::default(), self.format)?;
        let image = Image {
            reference: found.name.map(|name| name.to_string()),
            descriptor: image.descriptor,
            configuration: image.raw_configuration.try_into()?,
        };
        Ok((image, Apply { rootless: self.rootless, ..apply }))
    }
}

/// The line for a terminal.
fn shown(document: &Document) -> String {
    let operations = document.last_step_of("img-mount").ok().flatten().map(|(_, step)| step.operations);
    let target = operations.iter().flatten().find_map(|operation| operation["target"].as_str());
    let target = target.unwrap_or_default();
    format!("{target}\n")
}

pub(crate) fn main() -> ExitCode {
    toolkit::filter::<ImgMount>()
}

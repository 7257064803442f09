//! Removes names of images, or images with all their names.
//!
//! # Does
//! Removes the given names. Given an id, removes the image with all its names. It removes no data: `img-gc`
//! removes what no name, no container and no cache uses any more. With `--remote`, removes names, or images
//! by digest, from registries.
//! # Reads
//! No document.
//! # Adds
//! Nothing; prints `{"untagged": [names], "deleted": [digests of images without a name now]}`.
//! # Undoes
//! Nothing: the data stays until `img-gc`, so the image can be loaded again quickly.
//! # Needs
//! Write access to `$STAVE_ROOT/images`; with `--remote`, permission to delete at the registry.

mod registries;

use std::process::ExitCode;

use clap::Parser;
use oci::{Digest, Layout, Reference, layout::Found, spec::Descriptor};
use remote::Reach;
use serde_json::{Value, json};
use toolkit::prelude::*;

/// Remove images, or names of images
#[derive(Parser)]
#[command(name = "img-rm", version, after_help = toolkit::EQUIVALENT_HELP, mut_group("Reach", |group| group.requires("remote")))]
struct Remove {
    /// Names to remove; or ids, or their first digits, to remove images with all their names
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
    /// Also remove images with several names by id, and ignore missing images
    #[arg(short, long)]
    force: bool,
    /// Remove from registries: a name, or with NAME@DIGEST an image with all its names there
    #[arg(long)]
    remote: bool,
    #[command(flatten)]
    reach: Reach,
    #[command(flatten)]
    writing: Writing,
    #[command(flatten)]
    common: Common,
}

/// The removal for one argument.
#[derive(PartialEq)]
enum Removal {
    /// A name, and the image that has it.
    Name(Reference, Box<Descriptor>),
    /// The entries of an image in the list, and all its names.
    Image(Vec<Descriptor>, Vec<Reference>),
}

impl Report for Remove {
    fn common(&self) -> &Common {
        &self.common
    }

    fn report(&self, context: &Context) -> Result<Value> {
        if self.remote {
            return registries::remove(&self.images, &self.reach, self.force, context.quiet);
        }
        let layout = self.layout(context)?;
        // All are looked up before the first one is removed, and all are removed together.
        let removals = self.removals(&layout)?;
        let (mut untagged, mut deleted) = (Vec::new(), Vec::new());
        let mut edit = layout.edit()?;
        for removal in removals {
            match removal {
                Removal::Name(reference, descriptor) => {
                    if edit.untag(&reference) {
                        untagged.push(reference.to_string());
                        if edit.names_of(descriptor.digest().as_ref()).is_empty() {
                            deleted.push(*descriptor);
                        }
                    }
                }
                Removal::Image(entries, references) => {
                    let known = (!self.force).then_some(&references[..]);
                    for entry in &entries {
                        let digest = Digest::try_from(entry.digest())?;
                        several(&digest.to_string(), &edit.remove(&digest, known))?;
                    }
                    untagged.extend(references.iter().map(Reference::to_string));
                    deleted.extend(entries);
                }
            }
        }
        edit.commit()?;
        if !context.quiet {
            untagged.iter().for_each(|name| operation::tell!("Untagged: {name}"));
            deleted.iter().for_each(|image| operation::tell!("Deleted: {}", id_of(&layout, image)));
        }
        let deleted: Vec<_> = deleted.iter().map(Descriptor::digest).collect();
        Ok(json!({"untagged": untagged, "deleted": deleted}))
    }

    fn explain(&self, context: &Context) -> Result<Vec<String>> {
        if self.remote {
            return registries::explain(&self.images);
        }
        let layout = self.layout(context)?;
        let removals = self.removals(&layout)?;
        Ok(toolkit::equivalent(removals.iter().flat_map(|removal| removal.explain(&layout))))
    }

    fn shown(&self, _: &Value) -> Option<String> {
        Some(String::new())
    }
}

impl Removal {
    /// A line for each removed name, and for each image that then has no name.
    fn explain(&self, layout: &Layout) -> Vec<String> {
        let rmi = |what: &str| operation::words(["docker", "rmi", "--no-prune", what]);
        match self {
            Self::Name(name, _) => vec![rmi(&name.to_string())],
            Self::Image(entries, names) => {
                let ids = entries.iter().map(|image| id_of(layout, image));
                names.iter().map(Reference::to_string).chain(ids).map(|what| rmi(&what)).collect()
            }
        }
    }
}

impl Remove {
    fn layout(&self, context: &Context) -> Result<Layout> {
        Ok(Layout::look(context.scope.root.join("images"))?.with_sync(self.writing.is_synced()?))
    }

    /// The list of removals, which is printed or carried out. Duplicates are removed once.
    fn removals(&self, layout: &Layout) -> Result<Vec<Removal>> {
        let mut removals: Vec<Removal> = Vec::new();
        for text in &self.images {
            let removal = self.removal(layout, text)?;
            removals.extend(removal.filter(|removal| !removals.contains(removal)));
        }
        Ok(removals)
    }

    fn removal(&self, layout: &Layout, text: &str) -> Result<Option<Removal>> {
        let Found { name, entries, image } = match layout.find_listed(text) {
            Err(oci::layout::Error::NoImage(_)) if self.force => return Ok(None),
            found => found?,
        };
        if let Some(name) = name {
            return Ok(Some(Removal::Name(name, Box::new(image))));
        }
        let names = entries.iter().map(|entry| names(layout, entry)).collect::<Result<Vec<_>>>()?.concat();
        if names.len() > 1 && !self.force {
            several(text, &names)?;
        }
        Ok(Some(Removal::Image(entries, names)))
    }
}

/// The image's id, as img-ls shows it. For an unreadable image, its digest.
fn id_of(layout: &Layout, image: &Descriptor) -> String {
    let id = layout.image(image, None).and_then(|image| image.id());
    id.map_or(image.digest().to_string(), |id| id.to_string())
}

/// Fails if `names` is not empty: the names that the image also has.
fn several(image: &str, names: &[Reference]) -> Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    let list: Vec<String> = names.iter().map(Reference::to_string).collect();
    Err(hint(
        anyhow!("image {image} has several names: {}", list.join(", ")),
        "remove it by its names, or with --force",
    ))
}

fn names(layout: &Layout, descriptor: &Descriptor) -> Result<Vec<Reference>> {
    let entries = layout.list()?.into_iter().filter(|entry| entry.descriptor.digest() == descriptor.digest());
    Ok(entries.filter_map(|entry| entry.reference).collect())
}

pub(crate) fn main() -> ExitCode {
    toolkit::report::<Remove>()
}

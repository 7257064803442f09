//! Makes an image from another: other settings, more layers, one layer, or another base.
//!
//! # Does
//! In this order: replaces the base (`--rebase`), appends archives as layers (`--append`), merges all layers
//! (`--flatten`), and changes settings. Runs nothing. The original image stays unchanged.
//! # Reads
//! No document.
//! # Adds
//! `image`: the new image, under the first of its names.
//! # Undoes
//! Only the member. The image stays in the store until `img-rm` and `img-gc`.
//! # Needs
//! Write access to `$STAVE_ROOT`; root for `--flatten`, which mounts the layers.

use std::{path::PathBuf, process::ExitCode};

use builder::{
    edit::{Edit, edit},
    executor::explain_changes,
};
use clap::Parser;
use document::members::Image;
use oci::{Layout, Platform, Reference, spec::Descriptor};
use toolkit::prelude::*;

/// Make an image from another
#[derive(Parser)]
#[command(name = "img-edit", version, after_help = toolkit::EQUIVALENT_HELP)]
struct ImgEdit {
    /// The image: a name, an id, or the first digits of an id
    #[arg(value_name = "IMAGE")]
    image: String,
    #[arg(help = "Name the new image NAME[:TAG]; repeatable", short, long = "tag", value_name = "NAME", value_parser = Reference::to_give)]
    tags: Vec<Reference>,
    /// Change the configuration with a Dockerfile instruction: 'CMD ["sh"]', 'ENV A=b'; repeatable, in order
    #[arg(short, long = "change", value_name = "INSTRUCTION")]
    changes: Vec<String>,
    /// Set a label; without =VALUE, remove it; repeatable
    #[arg(long = "label", value_name = "NAME[=VALUE]", value_parser = label)]
    labels: Vec<String>,
    /// Set an annotation of the manifest; repeatable
    #[arg(long = "annotation", value_name = "NAME=VALUE", value_parser = toolkit::pair)]
    annotations: Vec<(String, String)>,
    /// Append an archive as a layer: a tar, plain or compressed with gzip or zstd; repeatable
    #[arg(long, value_name = "FILE")]
    append: Vec<PathBuf>,
    /// Merge all layers into one
    #[arg(long)]
    flatten: bool,
    /// Move the layers on top of the base image OLD to the base image NEW
    #[arg(long, num_args = 2, value_names = ["OLD", "NEW"])]
    rebase: Option<Vec<String>>,
    /// Take this platform of a multi-platform image: os/architecture[/variant]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<Platform>,
    #[command(flatten)]
    writing: Writing,
    #[command(flatten)]
    common: Common,
}

impl Source for ImgEdit {
    type Member = Image;

    fn common(&self) -> &Common {
        &self.common
    }

    fn make(&self, context: &Context) -> Result<Image> {
        let (job, image) = self.job(context)?;
        let built = edit(&job, &image).map_err(operation::Error::from)?;
        let image = (built.descriptor, built.configuration);
        Ok(toolkit::made_image(context, built.id, self.tags.first(), image)?)
    }

    fn explain(&self, context: &Context) -> Result<Vec<String>> {
        let (job, image) = self.job(context)?;
        const NAME: &str = "edited";
        let mut lines = vec![operation::words(["buildah", "from", "--name", NAME, &self.image])];
        if let Some([old, new]) = self.rebase.as_deref() {
            lines.push(format!(
                "# the layers of {} in place of those of {}",
                operation::quote(new),
                operation::quote(old)
            ));
        }
        let files = self.append.iter().map(|path| path.to_string_lossy().into_owned());
        lines.extend(files.map(|path| operation::words(["buildah", "add", NAME, &path, "/"])));
        lines.extend(explain_changes(NAME, &job, &image).map_err(operation::Error::from)?);
        let annotations: Vec<_> =
            self.annotations.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let flag = |label: &str| if label.contains('=') { "--label" } else { "--unsetlabel" };
        let set = self.labels.iter().map(|label| (flag(label), label));
        for (flag, value) in set.chain(annotations.iter().map(|annotation| ("--annotation", annotation))) {
            lines.push(operation::words(["buildah", "config", flag, value, NAME]));
        }
        let mut commit = vec!["buildah", "commit"];
        commit.extend(self.flatten.then_some("--squash"));
        let names: Vec<String> = self.tags.iter().map(Reference::to_string).collect();
        commit.extend([NAME].into_iter().chain(names.first().map(String::as_str)));
        lines.push(operation::words(commit));
        lines.extend(names.iter().skip(1).map(|name| operation::words(["buildah", "tag", &names[0], name])));
        Ok(toolkit::equivalent(lines))
    }
}

impl ImgEdit {
    /// The changes, and the image that they apply to.
    fn job(&self, context: &Context) -> Result<(Edit, Descriptor)> {
        let layout = Layout::look(context.scope.root.join("images"))?;
        let image = layout.find(&self.image)?;
        let rebase = match self.rebase.as_deref() {
            Some([old, new]) => Some((layout.find(old)?, layout.find(new)?)),
            _ => None,
        };
        let (set, removed): (Vec<&String>, Vec<&String>) =
            self.labels.iter().partition(|label| label.contains('='));
        let job = Edit {
            root: context.scope.root.clone(),
            platform: self.platform.clone(),
            rebase,
            append: self.append.clone(),
            flatten: self.flatten,
            changes: self.changes.clone(),
            labels: set.into_iter().filter_map(|label| toolkit::pair(label).ok()).collect(),
            without_labels: removed.into_iter().cloned().collect(),
            annotations: self.annotations.clone(),
            tags: self.tags.clone(),
            no_sync: !self.writing.is_synced()?,
        };
        Ok((job, image))
    }
}

fn label(text: &str) -> Result<String, String> {
    match text.split('=').next() {
        Some("") | None => Err("it is NAME=VALUE, or NAME to remove it".to_owned()),
        Some(_) => Ok(text.to_owned()),
    }
}

pub(crate) fn main() -> ExitCode {
    toolkit::source::<ImgEdit>()
}

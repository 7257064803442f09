//! Flags for the results of a build.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use builder::{Built, Options, Several};
use clap::Args;
use oci::Reference;
use operation::quantity::truth;
use toolkit::prelude::*;

use super::{
    dependencies::Dependencies,
    output::{Image, Output, metadata},
    platforms,
    values::{annotation, label},
};

#[derive(Debug, Clone, Args)]
pub(crate) struct Results {
    #[arg(help = "Name the image NAME[:TAG]; repeatable", short, long = "tag", value_name = "NAME", value_parser = Reference::to_give)]
    tags: Vec<Reference>,
    /// Add a label to the image; repeatable
    #[arg(long = "label", value_name = "NAME=VALUE")]
    labels: Vec<String>,
    /// Add an annotation to the image's manifest; repeatable
    #[arg(long = "annotation", value_name = "NAME=VALUE", value_parser = annotation)]
    annotations: Vec<(String, String)>,
    /// Merge all layers that the build adds to its base image into one
    #[arg(long)]
    squash: bool,
    /// Also write the image's files to a directory, or: type=local|tar|oci|docker,dest=PATH, or
    /// type=image,name=NAME,push=true; repeatable
    #[arg(short, long = "output", value_name = "DIR|type=TYPE,dest=PATH", value_parser = Output::parse)]
    outputs: Vec<Output>,
    /// Push the image to the registries in its names, as -o type=image,push=true does
    #[arg(long)]
    push: bool,
    /// Export cached steps: type=inline, type=registry,ref=NAME or type=local,dest=DIR[,tag=TAG], with
    /// mode=min|max and ignore-error=true; repeatable
    #[arg(long, value_name = "PLACE", value_parser = builder::CacheTo::parse)]
    cache_to: Vec<builder::CacheTo>,
    /// Write the image's id to this file
    #[arg(long = "iidfile", value_name = "FILE")]
    id_file: Option<PathBuf>,
    /// Write the image's digests and names to this file, as JSON
    #[arg(long, value_name = "FILE")]
    metadata_file: Option<PathBuf>,
    #[command(flatten)]
    dependencies: Dependencies,
}

impl Results {
    /// The settings of those `--output`s that are images.
    fn images(&self) -> impl Iterator<Item = &Image> {
        self.outputs.iter().filter_map(Output::image)
    }

    /// Everything that is written, with what `--push` adds.
    fn all_outputs(&self) -> impl Iterator<Item = Output> {
        self.outputs.iter().cloned().chain(self.push.then(Output::pushed))
    }

    /// All names of the image, from `--tag` and `--output`.
    pub(crate) fn names(&self) -> Vec<Reference> {
        self.tags.iter().chain(self.images().flat_map(|image| &image.names)).cloned().collect()
    }

    pub(crate) fn add_to(&self, options: &mut Options) -> Result<()> {
        let annotations = self.annotations.iter().chain(self.images().flat_map(|image| &image.annotations));
        options.annotations = annotations.cloned().collect();
        options.labels = self.labels.iter().map(|text| label(text)).collect::<Result<_>>()?;
        options.tags = self.names();
        options.squash = self.squash;
        options.cache_to = self.cache_to.clone();
        let inline = options.arguments.get(builder::arguments::INLINE_CACHE);
        if inline.and_then(|value| truth(value)).unwrap_or_default() {
            options.cache_to.push(builder::CacheTo::Inline);
        }
        options.tree = self.outputs.iter().any(Output::is_of_files);
        options.notes_reads = self.dependencies.are_wanted();
        options.goes_on = self.all_outputs().any(|output| output.is_written())
            || self.id_file.is_some()
            || self.metadata_file.is_some()
            || self.dependencies.are_wanted();
        Ok(())
    }

    /// Removes files of an earlier build that say which image it made, as docker does. If this build fails,
    /// they would be wrong.
    pub(crate) fn remove_old(&self) -> Result<()> {
        // Only regular files: a device, such as /dev/stdout, has no content to remove.
        let is_file = |path: &&PathBuf| path.symlink_metadata().is_ok_and(|metadata| metadata.is_file());
        for path in [&self.id_file, &self.metadata_file].into_iter().flatten().filter(is_file) {
            std::fs::remove_file(path).map_err(|error| {
                let error = operation::Error::new("remove", format_args!("{path:?}"), error);
                error.of(operation::Place::File)
            })?;
        }
        // A build may take long, and should not be for nothing.
        for path in [&self.id_file, &self.metadata_file].into_iter().flatten() {
            let directory = path.parent().filter(|above| !above.as_os_str().is_empty());
            if let Some(error) = directory.and_then(|directory| directory.metadata().err()) {
                let error = operation::Error::new("write", format_args!("{path:?}"), error);
                return Err(error.of(operation::Place::File).into());
            }
        }
        Ok(())
    }

    /// Writes the other results. The stamp for Make comes last, because it must be the newest file.
    pub(crate) fn write(&self, context: &Context, built: &Built, sync: bool) -> Result<()> {
        let names = self.names();
        self.all_outputs().try_for_each(|output| output.write(context, built, &names, sync))?;
        if let Some(path) = &self.id_file {
            write(path, &built.id.to_string(), sync)?;
        }
        if let Some(path) = &self.metadata_file {
            write(path, &format!("{:#}\n", metadata(built, &names)), sync)?;
        }
        self.dependencies.write(&built.read)
    }

    /// Refuses what a build for several platforms does not write.
    pub(crate) fn hold_several(&self) -> Result<()> {
        platforms::hold(self.all_outputs())
    }

    /// As [`Results::write`], for several platforms: names and registries have the index, and files have a directory
    /// for each platform. Returns the image for the document.
    pub(crate) fn write_several(&self, context: &Context, several: &Several, sync: bool) -> Result<Built> {
        let names = self.names();
        for output in self.all_outputs() {
            match output {
                Output::Directory(path) => {
                    for (platform, built) in &several.images {
                        let own = Output::Directory(path.join(platforms::directory(platform)));
                        own.write(context, built, &names, sync)?;
                    }
                }
                Output::Tar(path) => toolkit::write_output(&path, "archive", sync, |target| {
                    Ok(builder::join_trees(&platforms::trees(several)?, target)?)
                })?,
                output => {
                    let index =
                        Built { descriptor: several.index.clone(), ..platforms::own(several)?.clone() };
                    output.write(context, &index, &names, sync)?;
                }
            }
        }
        if let Some(path) = &self.id_file {
            write(path, &several.id.to_string(), sync)?;
        }
        if let Some(path) = &self.metadata_file {
            write(path, &format!("{:#}\n", platforms::metadata(several, &names)), sync)?;
        }
        let read: BTreeSet<&PathBuf> = several.images.iter().flat_map(|(_, built)| &built.read).collect();
        self.dependencies.write(&read.into_iter().cloned().collect::<Vec<_>>())?;
        Ok(platforms::own(several)?.clone())
    }

    /// Commands of other programs that have the same effect.
    pub(crate) fn explain(&self) -> Vec<String> {
        let image = self.names().first().map_or("IMAGE-ID".to_owned(), Reference::to_string);
        let outputs = self.all_outputs().flat_map(|output| output.explain(&image, &self.names()));
        let own = [("IMAGE-ID", &self.id_file), ("METADATA", &self.metadata_file)];
        let files = own.into_iter().chain(self.dependencies.files());
        let line = |(what, path): (&str, &Option<PathBuf>)| {
            let path = operation::quote(&path.as_ref()?.to_string_lossy()).to_string();
            Some(format!("echo -n {what} > {path}"))
        };
        outputs.chain(files.filter_map(line)).collect()
    }
}

/// With `sync`, the file survives a power cut.
fn write(path: &Path, text: &str, sync: bool) -> Result<()> {
    toolkit::write_file(path, sync, |target| Ok(target.write_all(text.as_bytes())?))
}

//! Writes images into an archive.
//!
//! # Does
//! Writes an OCI archive, or a Docker archive that every `docker load` reads, to a file or to standard
//! output. It checks each blob that it writes. The same images give the same bytes.
//! # Reads
//! No document.
//! # Adds
//! Nothing; prints `{"file", "images"}`, unless the archive goes to standard output.
//! # Undoes
//! Nothing. A file is written under another name and renamed, so half an archive is never left.
//! # Needs
//! Read access to `$STAVE_ROOT/images`.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Parser, ValueEnum};
use oci::{
    Layout, Platform, Reference,
    layout::Found,
    save::{self, Named},
};
use serde_json::{Value, json};
use toolkit::prelude::*;

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Oci,
    Docker,
}

/// Write images into an archive
#[derive(Parser)]
#[command(name = "img-save", version, after_help = toolkit::EQUIVALENT_HELP)]
struct Save {
    /// The images: names, ids, or the first digits of ids
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
    /// Give the image this name in the archive; for a single image; repeatable
    #[arg(short, long, value_name = "NAME")]
    tag: Vec<Reference>,
    /// The format of the archive
    #[arg(long, value_enum, default_value = "oci")]
    format: Format,
    /// Take only this platform of a multi-platform image; by default, an OCI archive gets all platforms
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<Platform>,
    /// Write to this file; to standard output by default, or for -
    #[arg(short, long, value_name = "FILE", default_value = "-", hide_default_value = true)]
    output: PathBuf,
    #[command(flatten)]
    writing: Writing,
    #[command(flatten)]
    common: Common,
}

impl Report for Save {
    fn common(&self) -> &Common {
        &self.common
    }

    fn report(&self, context: &Context) -> Result<Value> {
        let layout = Layout::look(context.scope.root.join("images"))?;
        let images = self.named(&layout)?;
        images.iter().for_each(|image| layout.keep_while_reading(&image.descriptor));
        let format = match self.format {
            Format::Oci => save::Format::Oci,
            Format::Docker => save::Format::Docker,
        };
        toolkit::write_output(&self.output, "archive", self.writing.is_synced()?, |target| {
            Ok(save::save(&layout, &images, format, self.platform.as_ref(), target)?)
        })?;
        let images: Vec<Value> = images
            .iter()
            .map(|image| json!({"references": image.references, "digest": image.descriptor.digest()}))
            .collect();
        Ok(json!({"file": self.file(), "images": images}))
    }

    fn explain(&self, context: &Context) -> Result<Vec<String>> {
        let images = context.scope.root.join("images");
        let layout = Layout::look(&images)?;
        Ok(toolkit::equivalent(self.named(&layout)?.iter().flat_map(|image| self.copies(&images, image))))
    }

    /// If the archive goes to standard output, nothing else may be printed there.
    fn text(&self, _: &Value) -> Option<String> {
        self.file().is_none().then(String::new)
    }
}

impl Save {
    /// The skopeo commands that put an image into the archive, one for each of its names.
    fn copies(&self, images: &Path, image: &Named) -> Vec<String> {
        let output = self.file().unwrap_or(Path::new("/dev/stdout")).display();
        let from = format!("oci:{}@{}", images.display(), image.descriptor.digest());
        let mut skopeo = vec!["skopeo".to_owned()];
        if let Some(platform) = &self.platform {
            skopeo.extend(["--override-os".into(), platform.os.clone()]);
            skopeo.extend(["--override-arch".into(), platform.architecture.clone()]);
        }
        skopeo.push("copy".into());
        let names: Vec<String> = image.references.iter().map(Reference::to_string).collect();
        let named = |kind: &str, name: Option<&String>| match name {
            Some(name) => format!("{kind}:{output}:{name}"),
            None => format!("{kind}:{output}"),
        };
        let line = |more: &[String], to: String| {
            operation::words(skopeo.iter().chain(more).cloned().chain([from.clone(), to]))
        };
        match self.format {
            Format::Docker => {
                let others = names.iter().skip(1);
                let others: Vec<_> =
                    others.flat_map(|name| ["--additional-tag".into(), name.clone()]).collect();
                vec![line(&others, named("docker-archive", names.first()))]
            }
            Format::Oci => {
                let all: Vec<String> = self.platform.is_none().then(|| "--all".into()).into_iter().collect();
                match &names[..] {
                    [] => vec![line(&all, named("oci-archive", None))],
                    names => names.iter().map(|name| line(&all, named("oci-archive", Some(name)))).collect(),
                }
            }
        }
    }

    /// The file to write, if it is not standard output.
    fn file(&self) -> Option<&Path> {
        (!toolkit::is_stdout(&self.output)).then_some(&self.output)
    }

    /// The images, each with all its given names.
    fn named(&self, layout: &Layout) -> Result<Vec<Named>> {
        let mut images: Vec<Named> = Vec::new();
        for text in &self.images {
            let Found { name, image: descriptor, .. } = layout.find_listed(text)?;
            match images.iter_mut().find(|image| image.descriptor.digest() == descriptor.digest()) {
                Some(image) => image.references.extend(name),
                None => images.push(Named { references: name.into_iter().collect(), descriptor }),
            }
        }
        match &mut images[..] {
            [only] if !self.tag.is_empty() => only.references.clone_from(&self.tag),
            _ if !self.tag.is_empty() => bail!("a name can be given for a single image only"),
            _ => {}
        }
        images.iter_mut().for_each(|image| image.references.dedup());
        Ok(images)
    }
}

pub(crate) fn main() -> ExitCode {
    toolkit::report::<Save>()
}

//! Writes images into an archive.
//!
//! # Does
//! Writes an OCI archive, or a docker archive that every `docker load` reads, to a file or to standard output; each blob
//! is checked on its way. The same images give the same bytes.
//! # Reads
//! No document.
//! # Adds
//! Nothing; prints `{"file", "images"}` with `-o`. Without, the archive is what stands on standard output.
//! # Undoes
//! Nothing. A file is written beside its place and renamed into it: half an archive is never left.
//! # Needs
//! Read access to `$STAVE_ROOT/images`.

use std::{
    fs::{self, File},
    io::{self, IsTerminal},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Parser, ValueEnum};
use oci::{
    Layout, Platform, Reference,
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
#[command(name = "img-save", version)]
struct Save {
    /// The images: their names, ids or beginnings of ids
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
    /// What the image is called in the archive, instead of its own name; for a single image
    #[arg(short, long, value_name = "NAME")]
    tag: Vec<Reference>,
    /// The form of the archive
    #[arg(long, value_enum, default_value = "oci")]
    format: Format,
    /// The platform to take from an image for several; without it, an OCI archive gets all of them
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<Platform>,
    /// The file to write; without it, standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
}

impl Report for Save {
    fn common(&self) -> &Common {
        &self.common
    }

    fn report(&self, context: &Context) -> Result<Value> {
        let layout = Layout::open(context.scope.root.join("images"))?;
        let images = self.named(&layout)?;
        let format = match self.format {
            Format::Oci => save::Format::Oci,
            Format::Docker => save::Format::Docker,
        };
        let write = |target: &mut dyn io::Write| {
            save::save(&layout, &images, format, self.platform.as_ref(), target).map_err(anyhow::Error::from)
        };
        match self.output.as_deref() {
            Some(path) => into_file(path, write).with_context(|| format!("write {path:?}"))?,
            None if io::stdout().is_terminal() => {
                return Err(hint(
                    anyhow!("the archive would be written to a terminal"),
                    "give -o FILE, or send standard output to a file or a pipe",
                ));
            }
            None => write(&mut io::stdout().lock())?,
        }
        let images: Vec<Value> = images
            .iter()
            .map(|image| json!({"references": image.references, "digest": image.descriptor.digest()}))
            .collect();
        Ok(json!({"file": self.output, "images": images}))
    }

    fn explain(&self, context: &Context) -> Result<Vec<String>> {
        let images = context.scope.root.join("images");
        let layout = Layout::open(&images)?;
        let kind = match self.format {
            Format::Oci => "oci-archive",
            Format::Docker => "docker-archive",
        };
        let output = self.output.as_deref().unwrap_or(Path::new("/dev/stdout")).display();
        let line = |image: &Named| {
            let name = image.references.first().map(|name| format!(":{name}")).unwrap_or_default();
            let from = format!("oci:{}@{}", images.display(), image.descriptor.digest());
            operation::words(["skopeo", "copy", &from, &format!("{kind}:{output}{name}")])
        };
        Ok(self.named(&layout)?.iter().map(line).collect())
    }

    /// Without `-o` standard output is the archive's.
    fn text(&self, _: &Value) -> Option<String> {
        self.output.is_none().then(String::new)
    }
}

impl Save {
    /// The images with all the names that were given for them.
    fn named(&self, layout: &Layout) -> Result<Vec<Named>> {
        let mut images: Vec<Named> = Vec::new();
        for text in &self.images {
            let (name, descriptor) = layout.find_named(text)?;
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

/// Writes beside the place and renames; what is no regular file (a FIFO, `/dev/stdout`) is written as it is.
fn into_file(path: &Path, write: impl FnOnce(&mut dyn io::Write) -> Result<()>) -> Result<()> {
    if fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        return write(&mut File::options().write(true).open(path)?);
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}.part", std::process::id()));
    let beside = PathBuf::from(beside);
    let mut file = File::options().write(true).create_new(true).open(&beside)?;
    let written = write(&mut file).and_then(|()| Ok(fs::rename(&beside, path)?));
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written
}

fn main() -> ExitCode {
    toolkit::report::<Save>()
}

//! `--output`: other forms in which the image is written.

use std::{fs::File, io, path::PathBuf};

use builder::Built;
use oci::{
    Layout, Reference,
    save::{self, Format, Named},
};
use registry::{Client, Display, display::Job, push};
use serde_json::{Value, json};
use toolkit::prelude::*;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Output {
    /// The image, in the store and possibly in a registry.
    Image(Image),
    /// The image's files, in a directory.
    Directory(PathBuf),
    /// The image's files, in a tar file.
    Tar(PathBuf),
    /// An archive of the image.
    Archive(PathBuf, Format, Image),
}

/// The settings of an output that is an image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Image {
    /// Names in addition to those of `--tag`.
    pub(crate) names: Vec<Reference>,
    /// Annotations of the manifest.
    pub(crate) annotations: Vec<(String, String)>,
    push: bool,
    insecure: bool,
}

impl Image {
    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let refused = |why: &str| Err(format!("{key}={value} is not carried out: {why}"));
        match (key, value) {
            ("name", names) => {
                let parse =
                    |name: &str| Reference::to_give(name).map_err(|error| format!("{name:?}: {error}"));
                self.names = names.split(',').map(parse).collect::<Result<_, String>>()?;
            }
            ("push", "true" | "") => self.push = true,
            ("push", "false") => self.push = false,
            ("registry.insecure", "true") => self.insecure = true,
            ("registry.insecure", "false") => self.insecure = false,
            // These values ask for what img-build does anyway.
            ("store" | "oci-mediatypes" | "rewrite-timestamp" | "tar", "true")
            | (
                "unpack" | "force-compression" | "oci-artifact" | "push-by-digest" | "name-canonical",
                "false",
            )
            | ("compression", "gzip") => {}
            ("store", _) => return refused("the document is about an image of the store"),
            ("oci-mediatypes", _) => return refused("manifests are OCI's"),
            ("rewrite-timestamp", _) => return refused("times are always set"),
            ("compression" | "compression-level" | "force-compression", _) => {
                return refused("layers are kept as gzip");
            }
            ("unpack", _) => return refused("layer-apply unpacks an image"),
            ("tar", _) => return refused("it is a file"),
            ("push-by-digest" | "name-canonical" | "dangling-name-prefix" | "oci-artifact", _) => {
                return refused("an image has the names that it is given");
            }
            (key, value) => match key
                .strip_prefix("annotation.")
                .or_else(|| key.strip_prefix("annotation-manifest."))
            {
                Some(name) if !name.is_empty() => self.annotations.push((name.to_owned(), value.to_owned())),
                _ => return Err(format!("unknown key {key:?}")),
            },
        }
        Ok(())
    }
}

/// Splits at commas. A whole field may be quoted (`"name=a,b"`).
fn fields(text: &str) -> Vec<String> {
    let (mut fields, mut quoted) = (vec![String::new()], false);
    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            c => fields.last_mut().into_iter().for_each(|field| field.push(c)),
        }
    }
    fields
}

impl Output {
    /// Parses `DIR`, or `type=local|tar|oci|docker|image|registry` with `dest=PATH`, or for an image
    /// `name=NAME,push=true,…`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text == "-" {
            return Err("standard output has the document: write type=tar,dest=FILE".to_owned());
        }
        if !text.contains('=') {
            return Ok(Self::Directory(text.into()));
        }
        let (mut kind, mut destination, mut image) = (None, None, Image::default());
        for field in fields(text) {
            match field.split_once('=') {
                Some(("type", value)) => kind = Some(value.to_owned()),
                Some(("dest", "-")) => {
                    return Err("standard output has the document: dest is a file".to_owned());
                }
                Some(("dest", value)) if !value.is_empty() => destination = Some(PathBuf::from(value)),
                Some((key, value)) => image.set(key, value)?,
                None => return Err(format!("{field:?} is not KEY=VALUE")),
            }
        }
        let is_plain = image == Image::default();
        match (kind.as_deref(), destination) {
            (Some("local"), Some(path)) if is_plain => Ok(Self::Directory(path)),
            (Some("tar"), Some(path)) if is_plain => Ok(Self::Tar(path)),
            (Some("oci"), Some(path)) if !image.push => Ok(Self::Archive(path, Format::Oci, image)),
            (Some("docker"), Some(path)) if !image.push => Ok(Self::Archive(path, Format::Docker, image)),
            (Some("image" | "docker"), None) => Ok(Self::Image(image)),
            (Some("registry"), None) => Ok(Self::Image(Image { push: true, ..image })),
            (Some("image" | "registry"), Some(_)) => {
                Err("type=image has no dest: the image stays in the store".to_owned())
            }
            (Some(kind @ ("local" | "tar" | "oci")), None) => Err(format!("type={kind} needs dest=PATH")),
            (Some(kind @ ("local" | "tar" | "oci" | "docker")), Some(_)) => Err(format!(
                "type={kind} takes type=, dest= and, for an archive of an image, name= and annotation.NAME="
            )),
            _ => Err("it is DIR, or type=local|tar|oci|docker|image|registry[,dest=PATH]".to_owned()),
        }
    }

    /// `type=image,push=true`.
    pub(crate) fn pushed() -> Self {
        Self::Image(Image { push: true, ..Image::default() })
    }

    /// The settings of the image, if the output is one.
    pub(crate) fn image(&self) -> Option<&Image> {
        match self {
            Self::Image(image) | Self::Archive(_, _, image) => Some(image),
            Self::Directory(_) | Self::Tar(_) => None,
        }
    }

    /// Whether the output has the image's files in one tree.
    pub(crate) fn is_of_files(&self) -> bool {
        matches!(self, Self::Directory(_) | Self::Tar(_))
    }

    /// Whether there is something to write besides the image in the store.
    pub(crate) fn is_written(&self) -> bool {
        !matches!(self, Self::Image(Image { push: false, .. }))
    }

    /// Commands of other programs that have the same effect.
    pub(crate) fn explain(&self, image: &str, tags: &[Reference]) -> Vec<String> {
        let words = |words: &[&str]| operation::words(words.iter().copied());
        match self {
            Self::Image(Image { push: false, .. }) => Vec::new(),
            Self::Image(Image { names, .. }) => (if names.is_empty() { tags } else { names })
                .iter()
                .map(|name| words(&["buildah", "push", image, &name.canonical()]))
                .collect(),
            Self::Directory(path) => {
                let path = path.to_string_lossy();
                vec![words(&["mkdir", "--parents", &path]), words(&["cp", "--archive", "ROOT/.", &path])]
            }
            Self::Tar(path) => {
                vec![words(&["tar", "--create", "--file", &path.to_string_lossy(), "-C", "ROOT", "."])]
            }
            Self::Archive(path, format, _) => {
                let kind = if *format == Format::Oci { "oci-archive" } else { "docker-archive" };
                vec![words(&["buildah", "push", image, &format!("{kind}:{}", path.display())])]
            }
        }
    }

    /// Writes the output.
    pub(crate) fn write(
        &self,
        context: &Context,
        built: &Built,
        tags: &[Reference],
        sync: bool,
    ) -> Result<()> {
        match self {
            Self::Image(image) => image.push(context, built, tags),
            Self::Directory(path) => {
                Ok(builder::write_tree(tree(built)?, path).map_err(operation::Error::from)?)
            }
            Self::Tar(path) => toolkit::write_output(path, "archive", sync, |target| {
                io::copy(&mut tree(built)?, target)?;
                Ok(())
            }),
            Self::Archive(path, format, _) => {
                let layout = Layout::open(context.scope.root.join("images"))?;
                let image = Named { references: tags.to_vec(), descriptor: built.descriptor.clone() };
                toolkit::write_output(path, "archive", sync, |target| {
                    Ok(save::save(&layout, &[image], *format, None, target)?)
                })
            }
        }
    }
}

impl Image {
    /// Pushes the image to the registries in its names.
    fn push(&self, context: &Context, built: &Built, tags: &[Reference]) -> Result<()> {
        if !self.push {
            return Ok(());
        }
        let names = if self.names.is_empty() { tags } else { &self.names };
        if names.is_empty() {
            bail!("push image: it has no name: write name=NAME, or --tag");
        }
        let layout = Layout::open(context.scope.root.join("images"))?;
        let client = Client::new(registry::Options { insecure: self.insecure, ..Default::default() });
        for name in names {
            let display = Display::new(Job::Push, context.quiet);
            push::push(&client, &layout, &built.descriptor, name, None, &display).map_err(
                |error| match error.hint(name.registry()) {
                    Some(what) => hint(error, what),
                    None => error.into(),
                },
            )?;
        }
        Ok(())
    }
}

/// The content of `--metadata-file`, with Docker's keys.
pub(crate) fn metadata(built: &Built, tags: &[Reference]) -> Value {
    let names: Vec<String> = tags.iter().map(Reference::canonical).collect();
    json!({
        "containerimage.config.digest": built.id,
        "containerimage.descriptor": built.descriptor,
        "containerimage.digest": built.descriptor.digest(),
        "image.name": names.join(","),
    })
}

/// All files of an image as a tar file, from its beginning.
pub(crate) fn tree(built: &Built) -> Result<&File> {
    use std::io::Seek;
    let mut file =
        built.tree.as_deref().ok_or_else(|| anyhow!("the files of the image were not collected"))?;
    file.rewind()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_docker_takes_it() {
        let parsed = |text: &str| Output::parse(text).ok();
        assert_eq!(parsed("out"), Some(Output::Directory("out".into())));
        assert_eq!(parsed("type=local,dest=out"), Some(Output::Directory("out".into())));
        assert_eq!(parsed("dest=o.tar,type=tar"), Some(Output::Tar("o.tar".into())));
        assert_eq!(
            parsed("type=oci,dest=o"),
            Some(Output::Archive("o".into(), Format::Oci, Image::default()))
        );
        assert_eq!(
            parsed("type=docker,dest=o"),
            Some(Output::Archive("o".into(), Format::Docker, Image::default()))
        );
        assert_eq!(parsed("type=docker"), Some(Output::Image(Image::default())));
        assert_eq!(parsed("type=image,push=false"), Some(Output::Image(Image::default())));
        let named = parsed(
            "type=image,\"name=h/a,h/b\",push=true,annotation.x=y,registry.insecure=true,compression=gzip",
        );
        let names = vec!["h/a".parse().unwrap(), "h/b".parse().unwrap()];
        let annotations = vec![("x".to_owned(), "y".to_owned())];
        assert_eq!(named, Some(Output::Image(Image { names, annotations, push: true, insecure: true })));
        assert!(matches!(parsed("type=registry,name=h/a"), Some(Output::Image(Image { push: true, .. }))));
        for text in [
            "type=image,compression=zstd",
            "type=image,unpack=true",
            "type=image,name=a@sha256:0123456789012345678901234567890123456789012345678901234567890123",
            "type=image,store=false",
            "type=image,x=y",
            "type=local,dest=x,name=y",
            "-",
            "type=local",
            "type=tar,dest=-",
            "type=x,dest=y",
            "type=local,dest=x,platform-split=false",
            "dest=x",
            "type=image,dest=x",
            "type=local,dest=",
        ] {
            assert_eq!(parsed(text), None, "{text}");
        }
    }
}

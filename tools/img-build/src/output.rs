//! `--output`: what else becomes of the image.

use std::{fs::File, io, path::PathBuf};

use builder::Built;
use oci::{
    Layout, Reference,
    save::{self, Format, Named},
};
use serde_json::{Value, json};
use toolkit::prelude::*;

/// One `--output`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Output {
    /// The image stays in the store.
    Store,
    /// Its files, in a directory.
    Directory(PathBuf),
    /// Its files, in a tar file.
    Tar(PathBuf),
    /// An archive of the image.
    Archive(PathBuf, Format),
}

impl Output {
    /// `DIR`, or `type=local|tar|oci|docker|image[,dest=PATH]`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text == "-" {
            return Err("standard output has the document: write type=tar,dest=FILE".to_owned());
        }
        if !text.contains('=') {
            return Ok(Self::Directory(text.into()));
        }
        let (mut kind, mut destination) = (None, None);
        for field in text.split(',') {
            match field.split_once('=') {
                Some(("type", value)) => kind = Some(value),
                Some(("dest", "-")) => {
                    return Err("standard output has the document: dest is a file".to_owned());
                }
                Some(("dest", value)) if !value.is_empty() => destination = Some(PathBuf::from(value)),
                Some(("push", "true")) => return Err("push=true: img-push sends the image".to_owned()),
                Some(("push", "false")) => {}
                _ => return Err(format!("{field:?} is not carried out: it is type=TYPE or dest=PATH")),
            }
        }
        match (kind, destination) {
            (Some("local"), Some(path)) => Ok(Self::Directory(path)),
            (Some("tar"), Some(path)) => Ok(Self::Tar(path)),
            (Some("oci"), Some(path)) => Ok(Self::Archive(path, Format::Oci)),
            (Some("docker"), Some(path)) => Ok(Self::Archive(path, Format::Docker)),
            (Some("image" | "docker"), None) => Ok(Self::Store),
            (Some("image"), Some(_)) => {
                Err("type=image has no dest: the image stays in the store".to_owned())
            }
            (Some(kind @ ("local" | "tar" | "oci")), None) => Err(format!("type={kind} needs dest=PATH")),
            (Some("registry"), _) => Err("type=registry: img-push sends the image".to_owned()),
            _ => Err("it is DIR, or type=local|tar|oci|docker|image[,dest=PATH]".to_owned()),
        }
    }

    /// Whether it is about the files of the image, all together.
    pub(crate) fn is_of_files(&self) -> bool {
        matches!(self, Self::Directory(_) | Self::Tar(_))
    }

    /// Writes it.
    pub(crate) fn write(
        &self,
        context: &Context,
        built: &Built,
        tags: &[Reference],
        sync: bool,
    ) -> Result<()> {
        match self {
            Self::Store => Ok(()),
            Self::Directory(path) => {
                Ok(builder::write_tree(tree(built)?, path).map_err(operation::Error::from)?)
            }
            Self::Tar(path) => toolkit::write_output(path, "archive", sync, |target| {
                io::copy(&mut tree(built)?, target)?;
                Ok(())
            }),
            Self::Archive(path, format) => {
                let layout = Layout::open(context.scope.root.join("images"))?;
                let image = Named { references: tags.to_vec(), descriptor: built.descriptor.clone() };
                toolkit::write_output(path, "archive", sync, |target| {
                    Ok(save::save(&layout, &[image], *format, None, target)?)
                })
            }
        }
    }
}

/// What `--metadata-file` gets, in Docker's names.
pub(crate) fn metadata(built: &Built, tags: &[Reference]) -> Value {
    let names: Vec<String> = tags.iter().map(Reference::canonical).collect();
    json!({
        "containerimage.config.digest": built.id,
        "containerimage.descriptor": built.descriptor,
        "containerimage.digest": built.descriptor.digest(),
        "image.name": names.join(","),
    })
}

fn tree(built: &Built) -> Result<&File> {
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
        assert_eq!(parsed("type=oci,dest=o"), Some(Output::Archive("o".into(), Format::Oci)));
        assert_eq!(parsed("type=docker,dest=o"), Some(Output::Archive("o".into(), Format::Docker)));
        assert_eq!(parsed("type=docker"), Some(Output::Store));
        assert_eq!(parsed("type=image,push=false"), Some(Output::Store));
        for text in [
            "-",
            "type=local",
            "type=tar,dest=-",
            "type=image,push=true",
            "type=registry",
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

//! Attaches files to an image in a registry: an SBOM, an attestation, a licence.
//!
//! # Does
//! Pushes an artifact with the files, whose subject is the image (OCI image-spec, "Guidelines for Artifact Usage"). If
//! the registry keeps no lists of referrers, adds the artifact to the list that clients keep under a tag.
//! `img-referrers` lists it.
//! # Reads
//! No document. Reads credentials as `img-pull` does.
//! # Adds
//! Nothing; prints `{subject, reference, digest, size, mediaType, artifactType}` of the artifact.
//! # Undoes
//! Nothing: others may already have seen the artifact. `img-rm --remote` removes it by its digest.
//! # Needs
//! Permission to push to the repository.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Parser;
use oci::Reference;
use registry::{
    Display,
    artifact::{Attachment, Content},
    display::Job,
};
use remote::{Admission, Transfer};
use serde_json::{Value, json};
use toolkit::{prelude::*, rows};

/// The media type of a file whose own is not given.
const ANY: &str = "application/octet-stream";

/// Attach files to an image in a registry
#[derive(Parser)]
#[command(name = "img-attach", version, after_help = toolkit::EQUIVALENT_HELP)]
struct Attach {
    #[arg(help = "The image: [HOST[:PORT]/]NAME[:TAG][@DIGEST]", value_name = "NAME", value_parser = |name: &str| name.parse().map(Reference::pinned))]
    image: Reference,
    #[arg(help = "The files, each with its media type: FILE[:TYPE]", value_name = "FILE")]
    files: Vec<FileOfType>,
    /// The artifact's type, such as application/spdx+json
    #[arg(long, value_name = "TYPE", value_parser = media_type)]
    artifact_type: String,
    /// Set an annotation of the artifact; repeatable
    #[arg(long = "annotation", value_name = "NAME=VALUE", value_parser = toolkit::pair)]
    annotations: Vec<(String, String)>,
    #[command(flatten)]
    transfer: Transfer<300>,
    #[command(flatten)]
    common: Common,
}

/// `FILE[:TYPE]`.
#[derive(Clone)]
struct FileOfType {
    path: PathBuf,
    media_type: String,
}

impl std::str::FromStr for FileOfType {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // A type has a slash in it, and no colon.
        let typed = text.rsplit_once(':').filter(|(path, kind)| !path.is_empty() && media_type(kind).is_ok());
        let (path, media_type) = typed.unwrap_or((text, ANY));
        Ok(Self { path: path.into(), media_type: media_type.to_owned() })
    }
}

/// A media type (RFC 6838, section 4.2), with parameters.
fn media_type(text: &str) -> Result<String, String> {
    let (kind, rest) = text.split_once('/').unwrap_or_default();
    let is_name = |part: &str| {
        part.starts_with(|first: char| first.is_ascii_alphanumeric())
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte))
    };
    let (subtype, _) = rest.split_once(';').unwrap_or((rest, ""));
    match is_name(kind) && is_name(subtype.trim_end()) && !text.contains(char::is_control) {
        true => Ok(text.to_owned()),
        false => Err("a media type is like application/spdx+json".to_owned()),
    }
}

impl Report for Attach {
    fn common(&self) -> &Common {
        &self.common
    }

    fn report(&self, context: &Context) -> Result<Value> {
        let files = self.files.iter().map(|FileOfType { path, media_type }| {
            let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
            (Content::File(path.clone()), media_type.clone(), name)
        });
        let attachment = Attachment {
            artifact_type: self.artifact_type.clone(),
            files: files.collect(),
            annotations: self.annotations.clone(),
        };
        let client = self.transfer.client(&[], &Admission::default());
        let display = Display::new(Job::Push, context.quiet);
        let attached = client.attach(&self.image, &attachment, &display);
        let attached = attached.map_err(|error| remote::hinted(error, self.image.registry()))?;
        let (name, digest) = (self.image.name(), attached.descriptor.digest());
        Ok(json!({
            "subject": format!("{name}@{}", attached.subject),
            "reference": format!("{name}@{digest}"),
            "digest": digest,
            "size": attached.descriptor.size(),
            "mediaType": attached.descriptor.media_type(),
            "artifactType": self.artifact_type,
        }))
    }

    fn explain(&self, _: &Context) -> Result<Vec<String>> {
        let mut words = vec!["oras".to_owned(), "attach".to_owned()];
        words.extend(["--artifact-type".to_owned(), self.artifact_type.clone()]);
        for (name, value) in &self.annotations {
            words.extend(["--annotation".to_owned(), format!("{name}={value}")]);
        }
        words.push(self.image.to_string());
        let typed = |file: &FileOfType| format!("{}:{}", Path::display(&file.path), file.media_type);
        words.extend(self.files.iter().map(typed));
        Ok(toolkit::equivalent([operation::words(words)]))
    }

    fn shown(&self, report: &Value) -> Option<String> {
        Some(format!("Attached: {}\n", rows::word(&report["reference"])))
    }
}

pub(crate) fn main() -> ExitCode {
    toolkit::report::<Attach>()
}

//! Starts a document from an image that is in the store.
//!
//! # Does
//! Finds an image by its name, its id, or the first digits of its id. Changes nothing.
//! # Reads
//! No document. Reads the store.
//! # Adds
//! `image`.
//! # Undoes
//! Nothing: the image stays in the store.
//! # Needs
//! Read access to the store.

use std::process::ExitCode;

use clap::Parser;
use document::members::Image;
use oci::{Layout, Platform};
use serde_json::{Value, json};
use toolkit::{
    listing::{Format, Row},
    prelude::*,
};

/// Find an image in the store, and start a document from it: `img-inspect debian | layer-apply | …`
#[derive(Parser)]
#[command(name = "img-inspect", version)]
struct ImgInspect {
    /// The image: a name, an id, or the first digits of an id
    #[arg(value_name = "IMAGE")]
    image: String,
    /// Take this platform of a multi-platform image: os/architecture[/variant]; this machine's by default
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<Platform>,
    /// Print TEXT rather than the document, with {reference}, {descriptor} and {configuration} replaced; or a
    /// template of `docker inspect`: {{.Id}}, {{json .Config.Env}}
    #[arg(long, value_name = "TEXT")]
    format: Option<Format>,
    #[command(flatten)]
    common: Common,
}

impl Source for ImgInspect {
    type Member = Image;

    fn common(&self) -> &Common {
        &self.common
    }

    fn make(&self, context: &toolkit::Context) -> Result<Image> {
        let hinted = |error: oci::layout::Error| {
            hint(error, "img-ls lists the images; img-pull fetches one from a registry")
        };
        let layout = Layout::look(context.scope.root.join("images"))?;
        let found = layout.find_listed(&self.image).map_err(hinted)?;
        let name = layout.list()?.into_iter().find(|entry| found.entries.contains(&entry.descriptor));
        let image = layout.image(&found.image, self.platform.as_ref())?;
        let (host, own) = (Platform::host(), image.platform());
        if self.platform.is_none() && host.rank(&own).is_none() && !context.quiet {
            operation::tell!("img-inspect: {:?} is for {own}, this machine is {host}", self.image);
        }
        Ok(Image {
            reference: name.and_then(|entry| entry.reference).map(|reference| reference.to_string()),
            descriptor: image.descriptor,
            configuration: image.raw_configuration.try_into()?,
        })
    }

    fn formatted(&self, context: &toolkit::Context, image: &Image) -> Result<Option<String>> {
        let Some(format) = &self.format else { return Ok(None) };
        let docker = inspected(context, image)?;
        let own = serde_json::to_value(image)?;
        format.rows(&[&own], &[], |_| Row { fields: docker.clone(), ..Row::default() })
    }

    fn explain(&self, _: &toolkit::Context) -> Result<Vec<String>> {
        Ok(Vec::new())
    }
}

/// The image by the names of Docker's API ("ImageInspect").
fn inspected(context: &toolkit::Context, image: &Image) -> Result<Value> {
    let layout = Layout::look(context.scope.root.join("images"))?;
    let found = layout.image(&image.descriptor, None)?;
    let digest = image.descriptor.digest().to_string();
    let all = layout.summaries()?;
    let names = all.iter().filter(|one| one.digest == digest || one.id == found.id().ok());
    let names: Vec<oci::Reference> =
        names.flat_map(|one| &one.references).filter_map(|name| name.parse().ok()).collect();
    let tags: Vec<_> =
        names.iter().filter_map(|name| Some(format!("{}:{}", name.familiar_name(), name.tag()?))).collect();
    let mut digests: Vec<_> = names.iter().map(|name| format!("{}@{digest}", name.familiar_name())).collect();
    digests.dedup();
    let whole = image.configuration.whole();
    let text = |name: &str| whole[name].as_str().unwrap_or_default();
    let size = found
        .manifest
        .layers()
        .iter()
        .fold(found.manifest.config().size(), |sum, layer| sum.saturating_add(layer.size()));
    let mut config = json!({
        "User": "", "Env": null, "Cmd": null, "Entrypoint": null, "WorkingDir": "", "Labels": {}, "Volumes": null,
        "ExposedPorts": null, "OnBuild": null, "Healthcheck": null, "StopSignal": null, "Shell": null,
    });
    for (name, value) in
        whole["config"].as_object().into_iter().flatten().filter(|(_, value)| !value.is_null())
    {
        config[name.as_str()] = value.clone();
    }
    Ok(json!({
        "Id": found.id()?,
        "RepoTags": tags,
        "RepoDigests": digests,
        "Parent": "",
        "Comment": whole["history"].as_array().and_then(|all| all.last()).map(|last| last["comment"].as_str().unwrap_or_default()),
        "Created": text("created"),
        "Author": text("author"),
        "Config": config,
        "Architecture": text("architecture"),
        "Variant": text("variant"),
        "Os": text("os"),
        "Size": size,
        "RootFS": {"Type": "layers", "Layers": whole["rootfs"]["diff_ids"]},
    }))
}

pub(crate) fn main() -> ExitCode {
    toolkit::source::<ImgInspect>()
}

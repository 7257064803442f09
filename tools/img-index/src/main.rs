//! Combines images into one image for several platforms.
//!
//! # Does
//! Writes an index of images in the store, and gives it a name. If an image is itself an index, all its
//! entries are taken, with their attestations. Two images for one platform are refused.
//! # Reads
//! No document.
//! # Adds
//! Nothing; prints `{"reference", "digest", "manifests": [{"digest", "platform"}]}`.
//! # Undoes
//! Nothing. `img-rm` removes the name.
//! # Needs
//! Write access to `$STAVE_ROOT/images`.

use std::process::ExitCode;

use clap::Parser;
use oci::{
    Layout, Platform, Reference, index,
    media_type::{Kind, kind},
};
use serde_json::{Value, json};
use toolkit::prelude::*;

/// Combine images into one image for several platforms
#[derive(Parser)]
#[command(name = "img-index", version, after_help = toolkit::EQUIVALENT_HELP)]
struct Index {
    /// The name of the index
    #[arg(value_name = "NAME", value_parser = Reference::to_give)]
    name: Reference,
    /// The images: names, ids, or the first digits of ids
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
    /// Set an annotation of the index; repeatable
    #[arg(long = "annotation", value_name = "NAME=VALUE", value_parser = toolkit::pair)]
    annotations: Vec<(String, String)>,
    #[command(flatten)]
    writing: Writing,
    #[command(flatten)]
    common: Common,
}

impl Report for Index {
    fn common(&self) -> &Common {
        &self.common
    }

    fn report(&self, context: &Context) -> Result<Value> {
        let layout = self.layout(context)?;
        let manifests = self.manifests(&layout)?;
        let descriptor = index::write(&layout, &manifests, &self.annotations)?;
        layout.tag(&self.name, &descriptor)?;
        let shown = manifests
            .iter()
            .map(|manifest| json!({"digest": manifest["digest"], "platform": manifest["platform"]}));
        Ok(json!({
            "reference": self.name,
            "digest": descriptor.digest(),
            "manifests": shown.collect::<Vec<_>>(),
        }))
    }

    fn explain(&self, context: &Context) -> Result<Vec<String>> {
        self.manifests(&self.layout(context)?)?;
        let name = self.name.to_string();
        let mut lines = vec![operation::words(["buildah", "manifest", "create", &name])];
        lines.extend(
            self.images
                .iter()
                .map(|image| operation::words(["buildah", "manifest", "add", "--all", &name, image])),
        );
        Ok(toolkit::equivalent(lines))
    }
}

impl Index {
    fn layout(&self, context: &Context) -> Result<Layout> {
        Ok(Layout::look(context.scope.root.join("images"))?.with_sync(self.writing.is_synced()?))
    }

    /// The entries of the index, in the order of the images.
    fn manifests(&self, layout: &Layout) -> Result<Vec<Value>> {
        let mut found: Vec<Value> = Vec::new();
        for image in &self.images {
            let descriptor = layout.find(image)?;
            let entries = match kind(&descriptor) {
                Kind::Index => layout.read_json::<Value>(&descriptor)?["manifests"]
                    .as_array()
                    .cloned()
                    .unwrap_or_default(),
                _ => vec![index::entry(layout, &descriptor)?],
            };
            for entry in entries {
                if found.iter().any(|own| own["digest"] == entry["digest"]) {
                    continue;
                }
                let own = target(&entry);
                let is_other = |other: &&Value| own.is_some() && target(other) == own;
                if let Some(other) = found.iter().find(is_other) {
                    bail!(
                        "add image {image:?}: another one is for the same platform: {}",
                        shown(&other["platform"])
                    );
                }
                found.push(entry);
            }
        }
        Ok(found)
    }
}

/// The platform of an entry, normalized, and its version of the system. None if the entry is for no platform,
/// such as an attestation of another entry.
fn target(entry: &Value) -> Option<(Platform, Value)> {
    let platform: oci::spec::Platform = serde_json::from_value(entry["platform"].clone()).ok()?;
    let platform = Platform::from(&platform);
    (!platform.is_unknown()).then(|| (platform, entry["platform"]["os.version"].clone()))
}

fn shown(platform: &Value) -> String {
    let parts = ["os", "architecture", "variant", "os.version"]
        .into_iter()
        .filter_map(|part| platform[part].as_str());
    parts.collect::<Vec<_>>().join("/")
}

pub(crate) fn main() -> ExitCode {
    toolkit::report::<Index>()
}

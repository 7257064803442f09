//! `--remote`: removes names and images from registries.

use oci::Reference;
use registry::delete::Deleted;
use remote::Reach;
use serde_json::{Value, json};
use toolkit::prelude::*;

/// Removes each name or image from its registry, and reports what was removed. With `force`, missing ones are
/// no error.
pub(crate) fn remove(images: &[String], reach: &Reach, force: bool, quiet: bool) -> Result<Value> {
    // All are parsed before the first one is removed.
    let references = references(images)?;
    let client = reach.client();
    let (mut untagged, mut deleted) = (Vec::new(), Vec::new());
    // Printed at once, because the next one may fail.
    let tell = |what: &str, name: &str| {
        if !quiet {
            operation::tell!("{what}: {name}");
        }
    };
    for reference in references {
        match client.delete(&reference) {
            Ok(Deleted::Tag(name)) => {
                tell("Untagged", &name);
                untagged.push(name);
            }
            Ok(Deleted::Manifest(digest)) => {
                let name = format!("{}@{digest}", reference.name());
                tell("Deleted", &name);
                deleted.push(name);
            }
            Err(error) if force && error.is_not_found() => {}
            Err(error) => return Err(remote::hinted(error, reference.registry())),
        }
    }
    Ok(json!({"untagged": untagged, "deleted": deleted}))
}

/// The requests, as curl commands.
pub(crate) fn explain(images: &[String]) -> Result<Vec<String>> {
    let line = |reference: Reference| {
        let target = reference.target();
        let (registry, repository) = (reference.registry(), reference.repository());
        operation::words([
            "curl",
            "-X",
            "DELETE",
            &format!("https://{registry}/v2/{repository}/manifests/{target}"),
        ])
    };
    Ok(toolkit::equivalent(references(images)?.into_iter().map(line)))
}

fn references(images: &[String]) -> Result<Vec<Reference>> {
    images.iter().map(|image| Ok(image.parse::<Reference>()?.pinned())).collect()
}

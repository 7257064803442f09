//! `--remote`: names and images of registries.

use oci::Reference;
use registry::delete::Deleted;
use remote::Reach;
use serde_json::{Value, json};
use toolkit::prelude::*;

/// Removes each of them from its registry, and tells what went. With `force`, one that does not exist is no error.
pub(crate) fn remove(images: &[String], reach: &Reach, force: bool, quiet: bool) -> Result<Value> {
    // All of them are read before the first one goes.
    let references = references(images)?;
    let client = reach.client();
    let (mut untagged, mut deleted) = (Vec::new(), Vec::new());
    for reference in references {
        match client.delete(&reference) {
            Ok(Deleted::Tag(name)) => untagged.push(name),
            Ok(Deleted::Manifest(digest)) => deleted.push(format!("{}@{digest}", reference.name())),
            Err(error) if force && error.is_not_found() => {}
            Err(error) => return Err(remote::hinted(error, reference.registry())),
        }
    }
    if !quiet {
        untagged.iter().for_each(|name| operation::tell!("Untagged: {name}"));
        deleted.iter().for_each(|name| operation::tell!("Deleted: {name}"));
    }
    Ok(json!({"untagged": untagged, "deleted": deleted}))
}

/// The requests.
pub(crate) fn explain(images: &[String]) -> Result<Vec<String>> {
    let line = |reference: Reference| {
        let target = reference.digest().map(ToString::to_string).or(reference.tag().map(str::to_owned));
        let target = target.unwrap_or_default();
        let (registry, repository) = (reference.registry(), reference.repository());
        operation::words([
            "curl",
            "-X",
            "DELETE",
            &format!("https://{registry}/v2/{repository}/manifests/{target}"),
        ])
    };
    Ok(references(images)?.into_iter().map(line).collect())
}

fn references(images: &[String]) -> Result<Vec<Reference>> {
    images.iter().map(|image| Ok(image.parse::<Reference>()?.pinned())).collect()
}

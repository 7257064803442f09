//! The member of a tool that makes an image.

use std::fmt::Display;

use document::members::Image;
use oci_spec::image::Descriptor;
use serde_json::Value;

use crate::Context;

/// The member `image` of a new image in the store, with its name if it has one. Prints the image's id to standard
/// error, unless `--quiet` is set.
///
/// # Errors
/// When `configuration` is not an OCI image configuration.
pub fn made_image(
    context: &Context,
    id: impl Display,
    name: Option<&impl Display>,
    (descriptor, configuration): (Descriptor, Value),
) -> serde_json::Result<Image> {
    if !context.quiet {
        operation::tell!("{id}");
    }
    let reference = name.map(ToString::to_string);
    Ok(Image { reference, descriptor, configuration: configuration.try_into()? })
}

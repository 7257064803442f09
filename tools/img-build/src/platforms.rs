//! The results of a build for several platforms.

use std::fs::File;

use builder::{Built, Options, Several};
use oci::{Platform, Reference, save::Format};
use serde_json::{Value, json};
use toolkit::prelude::*;

use super::output::{Output, tree};

/// The files of each platform, with the name of its directory.
pub(crate) fn trees(several: &Several) -> Result<Vec<(String, &File)>> {
    several.images.iter().map(|(platform, built)| Ok((directory(platform), tree(built)?))).collect()
}

/// Refuses results that exist for one image only.
pub(crate) fn hold(outputs: impl IntoIterator<Item = Output>) -> Result<()> {
    if outputs.into_iter().any(|output| matches!(output, Output::Archive(_, Format::Docker, _))) {
        bail!("-o type=docker,dest=FILE has one image: with several platforms, write type=oci,dest=FILE");
    }
    Ok(())
}

/// The options of each platform's build. There is one for this machine's platform if `platforms` is empty.
pub(crate) fn each(options: &Options, platforms: Vec<Platform>) -> Vec<Options> {
    if platforms.is_empty() {
        return vec![options.clone()];
    }
    let each = platforms.into_iter();
    each.map(|platform| Options { platform: Some(platform), ..options.clone() }).collect()
}

/// The directory of a platform's files, as docker names it: `linux_arm64`.
pub(crate) fn directory(platform: &Platform) -> String {
    platform.to_string().replace('/', "_")
}

/// The content of `--metadata-file`, with Docker's keys. An index has no configuration.
pub(crate) fn metadata(several: &Several, tags: &[Reference]) -> Value {
    let names: Vec<String> = tags.iter().map(Reference::canonical).collect();
    json!({
        "containerimage.descriptor": several.index,
        "containerimage.digest": several.index.digest(),
        "image.name": names.join(","),
    })
}

/// The image that the document describes: that of this machine's platform, or else the first one.
pub(crate) fn own(several: &Several) -> Result<&Built> {
    let host = Platform::host();
    let own = several.images.iter().find(|(platform, _)| *platform == host).or(several.images.first());
    own.map(|(_, built)| built).ok_or_else(|| anyhow!("no platform was built"))
}

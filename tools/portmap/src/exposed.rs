//! The ports that an image exposes, for `--publish-all`.

use std::collections::HashSet;

use anyhow::{Context as _, Result, anyhow};
use document::{Document, members};

use super::publish::Publish;

/// A free port of the host for each port that the image exposes, except for ports that `publish` or an
/// earlier step publishes.
///
/// # Errors
/// If the image names something that is not a port.
pub(crate) fn ports(document: &Document, publish: &[Publish]) -> Result<Vec<Publish>> {
    let image = document.get::<members::Image>()?;
    let configuration = image.as_ref().and_then(|image| image.configuration.config().as_ref());
    let exposed = configuration.and_then(|config| config.exposed_ports().as_ref()).into_iter().flatten();
    let standing = document.get::<members::Ports>()?.map(|ports| ports.0).unwrap_or_default();
    let standing = standing
        .iter()
        .flat_map(|mapping| mapping.container_ports().map(|port| format!("{port}/{}", mapping.protocol)));
    let mut published: HashSet<String> =
        publish.iter().flat_map(Publish::container_ports).chain(standing).collect();
    let mut found: Vec<(u16, Publish)> = Vec::new();
    for port in exposed {
        // `80/tcp`, or `80` (OCI image-spec, config.md). Docker also writes ranges. An exposed port names no
        // port of the host.
        let parsed = if port.contains(':') {
            Err("it names a port of the host".into())
        } else {
            port.parse::<Publish>()
        };
        let wanted = parsed.map_err(|reason| anyhow!("{reason}"));
        let wanted = wanted.with_context(|| format!("publish {port:?}, which the image exposes"))?;
        found.extend(
            wanted.each().filter(|(_, one)| one.container_ports().all(|port| published.insert(port))),
        );
    }
    found.sort_by_key(|(port, _)| *port);
    Ok(found.into_iter().map(|(_, publish)| publish).collect())
}

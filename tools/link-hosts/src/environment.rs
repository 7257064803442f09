//! The variables that Docker's links set: where the other container's ports are, and what its image sets.

use std::{collections::BTreeSet, net::IpAddr};

use document::{Document, Error, members};

/// The variables for the container `id`, which knows `other` as `alias`, at the address `ip`.
pub(crate) fn variables(id: &str, alias: &str, ip: IpAddr, other: &Document) -> Result<Vec<String>, Error> {
    let prefix = alias.to_uppercase().replace(['-', '.'], "_");
    let image = other.get::<members::Image>()?;
    let configuration = image.as_ref().and_then(|image| image.configuration.config().as_ref());
    let mut variables = Vec::new();

    // By number, and tcp before udp: the first is the one that ALIAS_PORT names.
    let exposed = configuration.and_then(|config| config.exposed_ports().as_ref()).into_iter().flatten();
    let published = other.get::<members::Ports>()?.map(|ports| ports.0).unwrap_or_default();
    let published = published.into_iter().map(|mapping| (mapping.container_port, mapping.protocol));
    let ports: BTreeSet<(u16, String)> = exposed.filter_map(|port| parse(port)).chain(published).collect();
    if let Some((port, protocol)) = ports.first() {
        variables.push(format!("{prefix}_PORT={protocol}://{ip}:{port}"));
    }
    for (port, protocol) in &ports {
        let name = format!("{prefix}_PORT_{port}_{}", protocol.to_uppercase());
        variables.push(format!("{name}={protocol}://{ip}:{port}"));
        variables.push(format!("{name}_ADDR={ip}"));
        variables.push(format!("{name}_PORT={port}"));
        variables.push(format!("{name}_PROTO={protocol}"));
    }
    variables.push(format!("{prefix}_NAME=/{id}/{alias}"));
    let set = configuration.and_then(|config| config.env().as_ref()).into_iter().flatten();
    for (name, value) in set.filter_map(|variable| variable.split_once('=')) {
        // Where the other one finds its own programs and files says nothing here.
        if !matches!(name, "PATH" | "HOME") {
            variables.push(format!("{prefix}_ENV_{name}={value}"));
        }
    }
    Ok(variables)
}

/// `80/tcp`, or `80`, which is tcp (OCI image-spec, config.md, "ExposedPorts").
fn parse(port: &str) -> Option<(u16, String)> {
    let (port, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
    Some((port.parse().ok()?, protocol.to_owned()))
}

//! Ports of a container that is reached at its own address.

use anyhow::{Result, anyhow};
use document::members;
use nat::OpenPort;
use toolkit::hint;

use super::publish::{Container, Publish};

/// Splits into ports that are opened on the container's own address, and ports that are published on this
/// host. Host ports do not matter, except on an address of 127.0.0.0/8, where they are for this host only.
/// Ports that are already open (`standing`) are not opened again.
pub(crate) fn split(
    publish: &[Publish],
    container: Container,
    standing: &[members::PortMapping],
) -> Result<(Vec<OpenPort>, Vec<Publish>)> {
    if let Some(address) = publish.iter().filter_map(Publish::host_ip).find(|ip| !ip.is_loopback()) {
        let error = anyhow!("ports of a container on a routed bridge are not published on {address}");
        return Err(hint(error, "leave out the address: the port is open at the container's own address"));
    }
    let (local, routed): (Vec<Publish>, Vec<Publish>) =
        publish.iter().cloned().partition(|publish| publish.host_ip().is_some());
    let mut open: Vec<OpenPort> = Vec::new();
    for port in routed.iter().flat_map(|publish| publish.open(container)) {
        if !standing.contains(&member(&port)) && !open.contains(&port) {
            open.push(port);
        }
    }
    Ok((open, local))
}

/// The document's entry for an open port: the port answers on the container's address.
pub(crate) fn member(port: &OpenPort) -> members::PortMapping {
    members::PortMapping {
        host_port: port.container_port,
        container_port: port.container_port,
        protocol: port.protocol.to_string(),
        host_ip: Some(port.container_ip),
        range: None,
    }
}

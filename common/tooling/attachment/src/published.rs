//! Published ports of an attachment's address.

use std::net::IpAddr;

use document::{Document, Step};
use nat::NatOperation;
use operation::Error;
use repair::NetworkOperation;
use serde::Deserialize;

/// Refuses to undo an attachment while published ports of the container lead to its address, by its
/// record: the next container with the address would get their packets.
///
/// # Errors
/// The first such port; when the record cannot be read.
pub fn refuse_published<E: From<Error> + From<document::Error>>(
    recorded: &Document,
    step: &Step,
) -> Result<(), E> {
    let leased: Vec<IpAddr> = operations(step)
        .filter_map(|operation| match operation {
            NetworkOperation::Lease(lease) => Some(lease.address),
            _ => None,
        })
        .collect();
    let steps = recorded.steps_of("portmap")?;
    let published = steps.iter().flat_map(|(_, step)| operations(step)).flat_map(leads);
    match published.into_iter().find(|(_, address)| leased.contains(address)) {
        Some((port, address)) => {
            let error = Error::new("release", format!("address {address}"), format!("{port} leads to it"));
            Err(error.with_hint("undo portmap first: it releases the ports").into())
        }
        None => Ok(()),
    }
}

fn operations(step: &Step) -> impl Iterator<Item = NetworkOperation> {
    step.operations.iter().filter_map(|operation| NetworkOperation::deserialize(operation).ok())
}

/// The ports of an operation, in words, and the address that they lead to.
fn leads(operation: NetworkOperation) -> Vec<(String, IpAddr)> {
    let NetworkOperation::Nat(operation) = operation else { return Vec::new() };
    match operation {
        NatOperation::Publish { mappings, .. } => {
            let port = |port| format!("host port {port}");
            mappings.iter().map(|mapping| (port(mapping.host_port), mapping.container_ip)).collect()
        }
        NatOperation::Open { ports, .. } => {
            let port = |port| format!("open port {port}");
            ports.iter().map(|open| (port(open.container_port), open.container_ip)).collect()
        }
        _ => Vec::new(),
    }
}

//! Links between containers on a bridge that isolates its containers. Each opens the ports of one
//! container for another one, as with Docker's `--icc=false`.

use std::collections::BTreeSet;

use document::{
    Document,
    members::{Attachment, Hosts, Image, Ports},
    record,
};
use nat::{NatOperation, OpenPort, Protocol};
use operation::{Claim, Error, Scope, Shared};
use repair::NetworkOperation;

use crate::Container;

/// The ports of a container, sorted, tcp before udp: those that its image exposes, and those that are
/// published. Of a longer range of published ports than `longest`, only the first port counts.
///
/// # Errors
/// When a member has another form.
pub fn ports(document: &Document, longest: u16) -> Result<BTreeSet<(u16, String)>, document::Error> {
    let image = document.get::<Image>()?;
    let configuration = image.as_ref().and_then(|image| image.configuration.config().as_ref());
    let exposed = configuration.and_then(|config| config.exposed_ports().as_ref()).into_iter().flatten();
    let published = document.get::<Ports>()?.map(|ports| ports.0).unwrap_or_default();
    let published = published.into_iter().flat_map(|mapping| {
        let told = if mapping.range.is_some_and(|range| range > longest) { 1 } else { usize::MAX };
        mapping.container_ports().take(told).map(move |port| (port, mapping.protocol.clone()))
    });
    Ok(exposed.filter_map(|port| parse(port)).chain(published).collect())
}

/// Parses `80/tcp`, or `80`, which means tcp (OCI image-spec, config.md, "ExposedPorts").
fn parse(port: &str) -> Option<(u16, String)> {
    let (port, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
    Some((port.parse().ok()?, protocol.to_owned()))
}

/// A container of a link.
#[derive(Clone, Copy)]
pub struct End<'a> {
    /// Its id.
    pub id: &'a str,
    /// Its document.
    pub document: &'a Document,
}

/// Plans a link of the container `own` to the container `other`: claims the link, and opens the
/// ports of `other` on each of the bridges that isolate the two from each other. `step` is different
/// for each step of the container that links it to others.
///
/// The claim stays until undo. As long as there is one, networks that either container gets later
/// open the ports as well. Undo of the last claim closes all of them.
///
/// # Errors
/// When a member has another form.
pub fn open(
    scope: &Scope,
    step: usize,
    own: End<'_>,
    other: End<'_>,
) -> Result<Vec<NetworkOperation>, document::Error> {
    let claim = Claim::new(scope, &link(own.id, other.id), &step.to_string());
    let links = NatOperation::Links { id: own.id.to_owned(), to: other.id.to_owned() };
    let mut operations = vec![claim.clone().into(), Shared::new(&claim, links).into()];
    let theirs = other.document.attachments()?;
    for attachment in own.document.attachments()? {
        for far in theirs.iter().filter(|far| far.on.link() == attachment.on.link()) {
            operations.extend(between(scope, (own.id, &attachment), (other, far))?);
        }
    }
    Ok(operations)
}

/// The name of the links of the container `id` to the container `to`, which each of them claims. No
/// id contains a colon.
fn link(id: &str, to: &str) -> String {
    format!("link-{id}:{to}")
}

/// The operations that open the ports of the container `other`, at its attachment `far`: one for each two
/// addresses of one IP version.
fn between(
    scope: &Scope,
    (id, own): (&str, &Attachment),
    (other, far): (End<'_>, &Attachment),
) -> Result<Vec<NetworkOperation>, document::Error> {
    if !is_isolated(own) {
        return Ok(Vec::new());
    }
    let open = ports(other.document, u16::MAX)?.into_iter();
    let open: Vec<(u16, Protocol)> = open.filter_map(|(port, by)| Some((port, by.parse().ok()?))).collect();
    if open.is_empty() {
        return Ok(Vec::new());
    }
    let mut operations = Vec::new();
    for from in own.addresses() {
        for container_ip in far.addresses().filter(|to| to.is_ipv4() == from.is_ipv4()) {
            let port = |&(container_port, protocol): &_| OpenPort { protocol, container_ip, container_port };
            let ports = open.iter().map(port).collect();
            let while_claimed = Some(scope.claims(&link(id, other.id)));
            let (holder, to) = (id.to_owned(), other.id.to_owned());
            operations.push(NatOperation::Link { holder, from, to, ports, while_claimed }.into());
        }
    }
    Ok(operations)
}

/// Whether the attachment's bridge isolates its containers.
fn is_isolated(attachment: &Attachment) -> bool {
    attachment.on.bridge().is_some_and(|bridge| bridge.isolated)
}

/// Plans the links that a new attachment of the container completes: its own links to other
/// containers, and those of other containers to it, which follow it when it is made again.
///
/// # Errors
/// When a record cannot be read.
pub fn complete(
    container: &Container<'_>,
    document: &Document,
    attachment: &Attachment,
) -> Result<Vec<NetworkOperation>, Error> {
    if !is_isolated(attachment) || container.planned {
        return Ok(Vec::new());
    }
    let run_dir = &container.scope.run_dir;
    let own = End { id: container.id, document };
    let mut operations = Vec::new();
    for id in record::list(run_dir)?.into_iter().filter(|id| id.as_str() != container.id) {
        let Some(document) = record::read(run_dir, &id)? else { continue };
        let other = End { id: id.as_str(), document: &document };
        operations.extend(with(container.scope, own, attachment, other).map_err(Error::caused_by)?);
    }
    Ok(operations)
}

/// The links between the container `own`, at its new attachment, and another one.
fn with(
    scope: &Scope,
    own: End<'_>,
    attachment: &Attachment,
    other: End<'_>,
) -> Result<Vec<NetworkOperation>, document::Error> {
    let leads_to = |document: &Document, id: &str| -> Result<bool, document::Error> {
        let entries = document.get::<Hosts>()?.unwrap_or_default().entries;
        // The container's own name comes last.
        Ok(entries.iter().any(|entry| entry.names.last().is_some_and(|name| name == id)))
    };
    let (to, from) = (leads_to(own.document, other.id)?, leads_to(other.document, own.id)?);
    if !to && !from {
        return Ok(Vec::new());
    }
    let mut operations = Vec::new();
    let theirs = other.document.attachments()?;
    for far in theirs.iter().filter(|far| far.on.link() == attachment.on.link()) {
        if to {
            operations.extend(between(scope, (own.id, attachment), (other, far))?);
        }
        if from {
            operations.extend(between(scope, (other.id, far), (own, attachment))?);
        }
    }
    Ok(operations)
}

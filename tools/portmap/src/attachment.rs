//! The attachment to which published ports lead.

use std::net::IpAddr;

use document::{Document, members};
use toolkit::prelude::*;

use crate::publish::Container;

/// The attachment to whose address the ports lead: the one with the default route, so that answers find their
/// way.
pub(crate) fn attachment(document: &Document) -> Result<members::Attachment> {
    document.require::<members::Network>()?;
    let all = document.attachments()?;
    if all.is_empty() {
        bail!("no address in `networks`: run veth-pair or bridge-attach first");
    }
    if all.iter().all(|one| one.bridge.internal) {
        let error = anyhow!("no port of the container can be published: its networks are internal");
        return Err(hint(error, "attach it to another network first"));
    }
    let mut open = all.into_iter().filter(|one| !one.bridge.internal).collect::<Vec<_>>();
    let main = open.iter().map(members::Attachment::metric).enumerate().min_by_key(|(_, metric)| *metric);
    Ok(open.swap_remove(main.map_or(0, |(at, _)| at)))
}

/// The attachment's addresses, one of each IP version.
pub(crate) fn container_of(attachment: &members::Attachment) -> Result<Container> {
    let mut container = Container::default();
    for address in attachment.addresses() {
        match address {
            IpAddr::V4(address) => container.v4 = container.v4.or(Some(address)),
            IpAddr::V6(address) => container.v6 = container.v6.or(Some(address)),
        }
    }
    match container.each().next() {
        Some(_) => Ok(container),
        None => bail!("no address of network {:?} in `networks`", attachment.name),
    }
}

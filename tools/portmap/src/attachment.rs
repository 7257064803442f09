//! The attachment to which published ports lead.

use std::net::IpAddr;

use document::{Document, members};
use toolkit::prelude::*;

use super::publish::{Container, Publish};

/// The attachment to whose address the ports lead: the one with the default route, so that answers find their
/// way.
pub(crate) fn attachment(document: &Document) -> Result<members::Attachment> {
    document.require::<members::Network>()?;
    let all = document.require_attachments()?;
    let why = match &all {
        all if all.iter().all(|one| one.on.is_internal()) => Some("its networks are internal"),
        all if all.iter().all(|one| one.on.bridge().is_none()) => Some("it is on no bridge of this host"),
        all if all.iter().all(|one| !one.on.leads_out()) => Some("its networks have no gateway"),
        _ => None,
    };
    if let Some(why) = why {
        let error = anyhow!("no port of the container can be published: {why}");
        return Err(hint(error, "attach it to another network first"));
    }
    // An attachment without a default route has the highest metric.
    let main = all.iter().min_by_key(|one| (one.metric(), !one.on.leads_out()));
    let main = main.context("the container has no network")?;
    if main.on.bridge().is_none() || !main.on.leads_out() {
        // The answers would leave by the parent's wire, or by that of another program's bridge.
        let error = anyhow!(
            "the default route of the container is by network {:?}, whose gateway is not this host",
            main.name
        );
        return Err(hint(error, "give a bridge of this host the highest --gateway-priority"));
    }
    Ok(main.clone())
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

/// Warns of ports on an address that other machines reach, if the container has no default route of that IP
/// version by the attachment: its answers to them do not find their way. A process of this host asks from the
/// bridge's own address, so it gets an answer.
pub(crate) fn tell_unanswered_from_outside(
    attachment: &members::Attachment,
    container: Container,
    wanted: &[Publish],
) {
    let ways = || wanted.iter().flat_map(|publish| publish.ways(container));
    let is_for_others = |host: Option<IpAddr>| host.is_none_or(|host| !host.is_loopback());
    for own in container.each() {
        let (version, local) = if own.is_ipv4() { ("IPv4", "127.0.0.1") } else { ("IPv6", "[::1]") };
        let is_it = |address: IpAddr| address.is_ipv4() == own.is_ipv4();
        let is_asked = ways().any(|(host, ip)| is_it(ip) && is_for_others(host));
        let mut routes = attachment.cni.routes.iter().filter(|route| route.dst.prefix_len() == 0);
        if is_asked && !routes.any(|route| is_it(route.dst.addr())) {
            operation::note(&format!(
                "the ports answer this host, but no other machine by {version}: network {:?} gives the container no \
                 default route of {version}; attach it without --no-default-route, or publish on {local}",
                attachment.name,
            ));
        }
    }
}

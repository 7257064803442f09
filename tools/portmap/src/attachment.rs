//! The attachments to which published ports lead.

use std::net::IpAddr;

use document::{
    Document,
    members::{self, Attachment, GatewayMode},
};
use toolkit::prelude::*;

use super::publish::{Container, Publish};

/// The attachments to whose addresses the ports lead, and these addresses: for each IP version the attachment with
/// the default route, so that answers find their way.
#[derive(Debug)]
pub(crate) struct Targets {
    attachments: Vec<(Attachment, IpAddr)>,
    pub(crate) container: Container,
}

impl Targets {
    /// Finds the attachments of the container.
    pub(crate) fn find(document: &Document) -> Result<Self> {
        let all = open(document)?;
        let mut targets = Self { attachments: Vec::new(), container: Container::default() };
        for is_ipv4 in [true, false] {
            let of_version = |one: &Attachment| one.addresses().find(|address| address.is_ipv4() == is_ipv4);
            let found = all.iter().filter_map(|one| Some((one, of_version(one)?)));
            let main = found.min_by_key(|(one, _)| (one.metric_of(is_ipv4), !one.on.leads_out()));
            // Ports are published in one mode: that of the network with the way out.
            let is_target = |one: &Attachment| is_published(one) && mode(one) == mode(&all[0]);
            let Some((main, address)) = main.filter(|(one, _)| is_target(one)) else { continue };
            match address {
                IpAddr::V4(address) => targets.container.v4 = Some(address),
                IpAddr::V6(address) => targets.container.v6 = Some(address),
            }
            targets.attachments.push((main.clone(), address));
        }
        match targets.attachments.is_empty() {
            true => bail!("no address of network {:?} in `networks`", all[0].name),
            false => Ok(targets),
        }
    }

    /// Whether the ports are opened on the container's own addresses.
    pub(crate) fn is_routed(&self) -> bool {
        self.attachments.iter().any(|(one, _)| mode(one) == GatewayMode::Routed)
    }
}

fn mode(attachment: &Attachment) -> GatewayMode {
    attachment.on.bridge().and_then(|bridge| bridge.gateway_mode).unwrap_or(GatewayMode::Nat)
}

/// Whether this host publishes ports of the attachment. The answers of another would leave by the parent's wire, or
/// by that of another program's bridge.
fn is_published(attachment: &Attachment) -> bool {
    attachment.on.bridge().is_some() && attachment.on.leads_out()
}

/// The attachments of a container that is open to others, the one with the way out first.
fn open(document: &Document) -> Result<Vec<Attachment>> {
    document.require::<members::Network>()?;
    let mut all = document.require_attachments()?;
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
    all.sort_by_key(|one| (one.metric(), !one.on.leads_out()));
    let main = all.first().context("the container has no network")?;
    if !is_published(main) {
        let error = anyhow!(
            "the default route of the container is by network {:?}, whose gateway is not this host",
            main.name
        );
        return Err(hint(error, "give a bridge of this host the highest --gateway-priority"));
    }
    Ok(all)
}

/// Warns of ports on an address that other machines reach, if the container has no default route of that IP
/// version by the attachment: its answers to them do not find their way. A process of this host asks from the
/// bridge's own address, so it gets an answer.
pub(crate) fn tell_unanswered_from_outside(targets: &Targets, wanted: &[Publish]) {
    let ways = || wanted.iter().flat_map(|publish| publish.ways(targets.container));
    let is_for_others = |host: Option<IpAddr>| host.is_none_or(|host| !host.is_loopback());
    for (attachment, own) in &targets.attachments {
        let (version, local) = if own.is_ipv4() { ("IPv4", "127.0.0.1") } else { ("IPv6", "[::1]") };
        let is_asked = ways().any(|(host, ip)| ip == *own && is_for_others(host));
        if is_asked && attachment.metric_of(own.is_ipv4()) == u64::MAX {
            operation::note(&format!(
                "the ports answer this host, but no other machine by {version}: network {:?} gives the container no \
                 default route of {version}; attach it without --no-default-route, or publish on {local}",
                attachment.name,
            ));
        }
    }
}

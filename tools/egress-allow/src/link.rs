//! The host's side of a container's links.

use document::members::Attachment;
use egress::Link;
use ipnet::IpNet;
use toolkit::prelude::*;

/// The host's side of each attachment's link, from its CNI result.
pub(crate) fn of(attachments: &[Attachment]) -> Result<Vec<Link>> {
    attachments.iter().map(side).collect()
}

fn side(attachment: &Attachment) -> Result<Link> {
    let Attachment { interface: name, on, cni, .. } = attachment;
    let interfaces = || cni.interfaces.iter().enumerate();
    let inside = interfaces().find(|(_, interface)| interface.sandbox.is_some() && interface.name == *name);
    let mut outside =
        interfaces().filter(|(_, interface)| interface.sandbox.is_none() && interface.name != on.link());
    let (Some((at, inside)), Some((_, outside)), None) = (inside, outside.next(), outside.next()) else {
        let error = anyhow!("interface {name:?} has no side on the host, where it could be restricted");
        return Err(hint(error, "egress-allow works on what bridge-attach and veth-pair make"));
    };
    let mac = inside.mac.as_deref().map(str::parse).transpose()?;
    let mac = mac.ok_or_else(|| anyhow!("interface {name:?} in `networks` has no hardware address"))?;
    let addresses = cni.ips.iter().filter(|ip| ip.interface.is_none_or(|of| of == at));
    let addresses = addresses.map(|ip| ip.address).collect();
    Ok(Link { name: outside.name.clone(), mac, addresses })
}

/// The networks of the container's neighbours.
pub(crate) fn networks(attachments: &[Attachment]) -> Vec<IpNet> {
    let of = |one: &Attachment| {
        let own = one.cni.ips.iter().map(|ip| ip.address.trunc());
        own.chain(one.on.subnet().map(|subnet| subnet.trunc())).collect::<Vec<_>>()
    };
    let mut all: Vec<IpNet> = attachments.iter().flat_map(of).collect();
    all.sort();
    all.dedup();
    all
}

/// The log group at which the search for a free one begins. It differs between containers.
pub(crate) fn group(id: &str) -> u16 {
    let hash =
        id.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    0x8000 | (hash >> 16) as u16
}

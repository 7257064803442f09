//! The IPv4 subnet of a bridge.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink::{Connection, Link};
use operation::Error;

use crate::{
    Gateway, Wanted, bridge,
    free::{candidates, first_free, refuse_collision},
    own::Own,
    prefix,
    unfit::Unfit,
};

/// The bridge's subnet of one IP version.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Chosen {
    pub(crate) subnet: IpNet,
    /// The bridge's address. None for a network without a gateway.
    pub(crate) gateway: Option<IpAddr>,
    /// The address's origin (IFA_PROTO), if it exists.
    pub(crate) present: Option<Option<u8>>,
    /// Whether the bridge has an address of the subnet, used or not.
    pub(crate) has_address: bool,
}

impl Chosen {
    /// The bridge's address with its prefix length.
    pub(crate) fn address(&self) -> Option<IpNet> {
        self.gateway.map(|gateway| IpNet::new_assert(gateway, self.subnet.prefix_len()))
    }
}

/// Chooses the subnet: the bridge's existing one, otherwise the wanted one or the first free one.
pub(crate) fn choose(
    connection: &Connection,
    standing: Option<&Link>,
    own: &Own,
    wanted: &Wanted,
) -> Result<Chosen, Error> {
    let name = wanted.bridge.as_str();
    let (own, has_ipv6) = (&own.v4, prefix::has_ipv6(own));
    let present = own.iter().find_map(|address| match address.address {
        IpNet::V4(net) if wanted.subnet.is_none_or(|subnet| net.trunc() == subnet) => {
            Some((net, address.protocol))
        }
        _ => None,
    });
    let own_gateway = wanted.own_gateways().v4;
    let wants_none = own_gateway == Gateway::None;
    let is_ours = standing.is_some_and(Link::is_our_bridge);
    if let (true, true, Some(address)) = (wants_none, is_ours, own.first()) {
        return Err(Unfit::HasGateway { bridge: name.to_owned(), address: address.address }.into());
    }
    if !wants_none && own.is_empty() && has_ipv6 && nat::mode(name)?.is_some() {
        let (standing, flag) = ("has containers without IPv4", "with --ipv4=false");
        return Err(Unfit::OtherKind { bridge: name.to_owned(), standing, flag }.into());
    }
    let subnet = match (present, wanted.subnet) {
        (Some((net, _)), _) => net.trunc(),
        (None, Some(subnet)) => subnet,
        (None, None) if wants_none && standing.is_some() => {
            return Err(Unfit::UnknownSubnet(name.to_owned()).into());
        }
        (None, None) if own.is_empty() => {
            let further = wanted.further.iter().filter_map(|one| match one.subnet {
                IpNet::V4(subnet) => Some(subnet),
                IpNet::V6(_) => None,
            });
            first_free(connection, &further.collect::<Vec<_>>())?
        }
        // The address has another family or kind; reported below.
        (None, None) => candidates().next().unwrap_or_default(),
    };
    if let (None, Some(other), false) = (present, own.first(), wants_none) {
        let (bridge, address) = (name.to_owned(), other.address);
        return Err(Unfit::OtherAddress { bridge, address, subnet: subnet.into() }.into());
    }
    // If the address exists, this was checked when it was added. Reading all addresses takes longer
    // the more containers run.
    if present.is_none() && wanted.subnet.is_some() && !wanted.unmanaged {
        refuse_collision(connection, subnet)?;
    }
    let has_address = present.is_some();
    // Another program's bridge may have an address, which is not used then.
    let present = present.filter(|_| !wants_none);
    let standing = present.map(|(net, _)| net.addr().into());
    let gateway = bridge::gateway(name, subnet.into(), own_gateway, standing)?;
    Ok(Chosen { subnet: subnet.into(), gateway, present: present.map(|(_, protocol)| protocol), has_address })
}

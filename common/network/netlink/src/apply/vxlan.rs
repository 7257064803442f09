//! The VXLAN port that connects a bridge to the same bridge on other hosts (RFC 7348).

use std::net::IpAddr;

use nix::errno::Errno;
use rtnetlink::{
    LinkMessageBuilder, LinkVxlan,
    packet_route::{RouteNetlinkMessage, link::InfoVxlan},
};

use super::{CREATE, Ours, delete, find, set_alias};
use crate::{Connection, Error, Mac, mark};

/// The properties of a VXLAN.
pub(super) struct Vxlan<'a> {
    pub(super) name: &'a str,
    pub(super) mac: Mac,
    pub(super) id: u32,
    pub(super) port: u16,
    pub(super) local: IpAddr,
    pub(super) by: Option<&'a str>,
    pub(super) master: &'a str,
    pub(super) mtu: u32,
}

/// Makes the VXLAN. One with our mark exists already and is shared by all containers of the bridge.
pub(super) fn add(wanted: &Vxlan<'_>) -> Result<(), Error> {
    let Vxlan { name, mac, id, port, local, by, master, mtu } = *wanted;
    if let Ours::Here(connection, link) = find(None, name, mac)? {
        return match link.master {
            Some(_) => Ok(()),
            None => super::attach(&connection, &link, master),
        };
    }
    let connection = Connection::open(None)?;
    let what = format!("{name:?} on bridge {master:?}");
    let index = |name: &str| -> Result<u32, Error> {
        let link = connection.link(name)?;
        Ok(link.ok_or_else(|| connection.error("create link", &what, Errno::ENODEV))?.index)
    };
    let (bridge, by) = (index(master)?, by.map(index).transpose()?);
    let of = |builder: LinkMessageBuilder<LinkVxlan>| {
        let builder = by.into_iter().fold(builder, LinkMessageBuilder::<LinkVxlan>::dev);
        match local {
            IpAddr::V4(local) => builder.local(local),
            IpAddr::V6(local) => builder.local6(local),
        }
    };
    let link = of(LinkVxlan::new(name, id).port(port))
        // The VXLAN knows all hosts from its forwarding entries. It does not learn, and answers for
        // its neighbours itself.
        .append_info_data(InfoVxlan::Learning(false))
        .append_info_data(InfoVxlan::Proxy(true))
        .address(mac.0.to_vec())
        .mtu(mtu)
        .controller(bridge)
        .build();
    connection.change("create link", format!("{name:?}"), &RouteNetlinkMessage::NewLink(link), CREATE)?;
    set_alias(name, mac, mark::shared())
}

pub(super) fn remove(name: &str, mac: Mac) -> Result<(), Error> {
    if !mac.is_of_host(name) {
        return Ok(());
    }
    match find(None, name, mac)? {
        Ours::Here(connection, link) if link.alias.is_none() || link.is_marked() => {
            delete(&connection, &link)
        }
        _ => Ok(()),
    }
}

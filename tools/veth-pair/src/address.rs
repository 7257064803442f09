//! The address of the container.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::Path,
};

use anyhow::{Result, bail};
use document::members;
use ipnet::{IpNet, Ipv4Net};
use lease::Lease;
use netlink::{Connection, Link, arp, veth_name};
use toolkit::{Context, hint};

use crate::INTERFACE;

pub(crate) fn v4(subnet: IpNet) -> Result<Ipv4Net> {
    match subnet {
        IpNet::V4(subnet) => Ok(subnet),
        IpNet::V6(subnet) => bail!("subnet {subnet} is not an IPv4 subnet"),
    }
}

/// The next free address. The bridge's own addresses, such as the gateway, are left out.
pub(crate) fn plan(
    context: &Context,
    on: &members::Bridge,
    connection: &Connection,
    bridge: &Link,
) -> Result<Lease> {
    let subnet = v4(on.subnet)?;
    let range = on.ip_range.map_or(Ok(subnet), v4)?;
    if !subnet.contains(&range) {
        bail!("range {range} is not in subnet {subnet}");
    }
    // A bridge that is planned has no index, and no address yet.
    let addresses = match bridge.index {
        0 => Vec::new(),
        index => connection.addresses(Some(index))?,
    };
    let mut reserved: Vec<Ipv4Addr> = addresses
        .iter()
        .map(|address| address.address.addr())
        .chain([on.gateway])
        .filter_map(|address| match address {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        })
        .collect();
    let is_foreign = bridge.index != 0 && !bridge.is_our_bridge();
    // If in doubt, the address is in use.
    let in_use = |id: &str| {
        let record = context.scope.run_dir.join(format!("{id}.json"));
        let namespace = Path::new("/run/netns").join(id);
        let gone = |path: &Path| path.try_exists().is_ok_and(|exists| !exists);
        let no_link = || connection.link(&veth_name(id, INTERFACE)).is_ok_and(|link| link.is_none());
        !(gone(&record) && gone(&namespace) && no_link())
    };
    loop {
        let planned = lease::plan(&context.scope.run_dir, subnet, range, &reserved, &context.id, in_use);
        let lease = planned.map_err(|error| match error {
            lease::Error::UsedUp { .. } => hint(
                error,
                match on.ip_range {
                    Some(_) => "unwind a container, or use a larger --ip-range or --subnet",
                    None => "unwind a container, or use another bridge with a larger --subnet",
                },
            ),
            error => error.into(),
        })?;
        // Another run directory has leases of its own: what it gave stands in the table.
        match nat::address_holder(lease.address)? {
            // On a bridge of others, somebody whom we do not know may have it.
            None if is_foreign && arp::is_in_use(bridge, lease.address)? => reserved.push(lease.address),
            Some(holder) if holder != context.id && Some(&holder) != lease.instead_of.as_ref() => {
                reserved.push(lease.address);
            }
            _ => return Ok(lease),
        }
    }
}

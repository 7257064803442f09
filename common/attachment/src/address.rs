//! The address of the container.

use std::{net::IpAddr, path::Path};

use document::members;
use ipnet::IpNet;
use lease::Lease;
use netlink::{Connection, Link, arp, ndp, veth_name};
use operation::Error;

use crate::{Container, container::FIRST, unfit::Unfit};

/// Where an address comes from.
pub(crate) struct Source<'a> {
    pub(crate) container: &'a Container<'a>,
    pub(crate) on: &'a members::Bridge,
    /// The subnet, the part of it that is leased, and the gateway.
    pub(crate) subnet: IpNet,
    pub(crate) range: Option<IpNet>,
    pub(crate) gateway: IpAddr,
    pub(crate) connection: &'a Connection,
    /// The bridge as it stands. One that is planned has no index, and no address yet.
    pub(crate) bridge: &'a Link,
}

impl Source<'_> {
    /// The lease of `wanted`, or of the next free address. The bridge's own addresses, such as the gateway, are left out.
    pub(crate) fn lease(&self, wanted: Option<IpAddr>) -> Result<Lease, Error> {
        let subnet = self.subnet;
        let range = self.range.unwrap_or(subnet);
        if !subnet.contains(&range) {
            return Err(Unfit::RangeOutside { range, subnet }.into());
        }
        let mut reserved = self.reserved()?;
        if let Some(address) = wanted {
            return self.exactly(address, &reserved);
        }
        let run_dir = &self.container.scope.run_dir;
        loop {
            let planned =
                lease::plan(run_dir, subnet, range, &reserved, self.container.id, |id| self.in_use(id));
            let lease = planned.map_err(|error| match error {
                lease::Error::UsedUp { .. } => Error::caused_by(error).with_hint(match self.range {
                    Some(_) => "unwind a container, or use a larger --ip-range or --subnet",
                    None => "unwind a container, or use another bridge with a larger --subnet",
                }),
                error => error.into(),
            })?;
            match self.taken(&lease)? {
                Some(_) => reserved.push(lease.address),
                None => return Ok(lease),
            }
        }
    }

    fn reserved(&self) -> Result<Vec<IpAddr>, Error> {
        let addresses = match self.bridge.index {
            0 => Vec::new(),
            index if self.subnet.addr().is_ipv4() => self.connection.addresses(Some(index))?,
            index => self.connection.addresses6(Some(index))?,
        };
        Ok(addresses.iter().map(|address| address.address.addr()).chain([self.gateway]).collect())
    }

    /// The lease of this one address.
    fn exactly(&self, address: IpAddr, reserved: &[IpAddr]) -> Result<Lease, Error> {
        let subnet = self.subnet;
        if !subnet.contains(&address) {
            return Err(Unfit::AddressOutside { address, subnet }.into());
        }
        if !lease::has_room(subnet, IpNet::from(address), subnet.network()) {
            return Err(Unfit::NotOfAHost { address, subnet }.into());
        }
        let taken = |by: String| Error::from(Unfit::AddressTaken { address, by });
        if reserved.contains(&address) {
            return Err(taken(format!("bridge {:?}", self.on.name)));
        }
        let run_dir = &self.container.scope.run_dir;
        let range = IpNet::from(address);
        let lease = match lease::plan(run_dir, subnet, range, &[], self.container.id, |id| self.in_use(id)) {
            Err(lease::Error::UsedUp { .. }) => {
                let holder = lease::holder(run_dir, subnet, address)?;
                return Err(taken(format!("container {:?}", holder.unwrap_or_default())));
            }
            planned => planned?,
        };
        match self.taken(&lease)? {
            Some(by) => Err(taken(by)),
            None => Ok(lease),
        }
    }

    /// Whether the container may still use its address. If in doubt, it is in use.
    fn in_use(&self, id: &str) -> bool {
        let record = self.container.scope.run_dir.join(format!("{id}.json"));
        let namespace = Path::new("/run/netns").join(id);
        let gone = |path: &Path| path.try_exists().is_ok_and(|exists| !exists);
        let no_link = || self.connection.link(&veth_name(id, FIRST)).is_ok_and(|link| link.is_none());
        !(gone(&record) && gone(&namespace) && no_link())
    }

    /// Who has the address, whatever the leases of this run directory say.
    fn taken(&self, lease: &Lease) -> Result<Option<String>, Error> {
        let address = lease.address;
        let is_foreign = self.bridge.index != 0 && !self.bridge.is_our_bridge();
        // Another run directory has leases of its own: what it gave stands in the table.
        Ok(match nat::address_holder(address)? {
            // On a bridge of others, somebody whom we do not know may have it.
            None if is_foreign && self.answers(address)? => {
                Some(format!("a station on bridge {:?}", self.on.name))
            }
            Some(holder) if holder != self.container.id && Some(&holder) != lease.instead_of.as_ref() => {
                Some(format!("container {holder:?}"))
            }
            _ => None,
        })
    }

    /// Whether somebody on the bridge has the address.
    fn answers(&self, address: IpAddr) -> Result<bool, Error> {
        Ok(match address {
            IpAddr::V4(address) => arp::is_in_use(self.bridge, address)?,
            IpAddr::V6(address) => ndp::is_in_use(self.bridge, address)?,
        })
    }
}

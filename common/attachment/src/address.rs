//! The address of the container.

use std::{net::IpAddr, path::Path};

use document::members;
use ipnet::IpNet;
use lease::Lease;
use netlink::{Connection, Link, arp, ndp, veth_name};
use operation::Error;

use crate::{Container, container::FIRST, unfit::Unfit};

/// The subnet and bridge that an address is leased for.
pub(crate) struct Source<'a> {
    pub(crate) container: &'a Container<'a>,
    pub(crate) on: &'a members::Bridge,
    /// The subnet. `range` is the part of it to lease from, `gateway` the bridge's address.
    pub(crate) subnet: IpNet,
    pub(crate) range: Option<IpNet>,
    pub(crate) gateway: IpAddr,
    pub(crate) connection: &'a Connection,
    /// The bridge. A planned one has index 0 and no address yet.
    pub(crate) bridge: &'a Link,
}

impl Source<'_> {
    /// Plans the lease of `wanted`, or of the next free address. The bridge's own addresses, such
    /// as the gateway, are never leased.
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

    /// Plans the lease of this one address.
    fn exactly(&self, address: IpAddr, reserved: &[IpAddr]) -> Result<Lease, Error> {
        let subnet = self.subnet;
        if !subnet.contains(&address) {
            return Err(Unfit::AddressOutside { address, subnet }.into());
        }
        if !lease::has_room(subnet, IpNet::from(address), subnet.network()) {
            return Err(Unfit::NotOfAHost { address, subnet }.into());
        }
        if let (Some(_), Some(range)) = (&self.on.vxlan, self.range.filter(|range| !range.contains(&address)))
        {
            return Err(Unfit::OtherHosts { address, range }.into());
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

    /// Whether the container may still use its address. True if in doubt.
    fn in_use(&self, id: &str) -> bool {
        let record = self.container.scope.run_dir.join(format!("{id}.json"));
        let namespace = Path::new("/run/netns").join(id);
        let gone = |path: &Path| path.try_exists().is_ok_and(|exists| !exists);
        let no_link = || self.connection.link(&veth_name(id, FIRST)).is_ok_and(|link| link.is_none());
        !(gone(&record) && gone(&namespace) && no_link())
    }

    /// The container that has the address, even if this run directory has no lease of it.
    fn taken(&self, lease: &Lease) -> Result<Option<String>, Error> {
        let address = lease.address;
        let is_foreign = self.bridge.index != 0 && !self.bridge.is_our_bridge();
        // Another run directory has leases of its own. Their addresses are in the nf_tables table.
        Ok(match nat::address_holder(address)? {
            // On another program's bridge, an unknown station may have it.
            None if is_foreign && self.answers(address)? => {
                Some(format!("a station on bridge {:?}", self.on.name))
            }
            Some(holder) if holder != self.container.id && Some(&holder) != lease.instead_of.as_ref() => {
                Some(format!("container {holder:?}"))
            }
            _ => None,
        })
    }

    /// Whether a station on the bridge has the address.
    fn answers(&self, address: IpAddr) -> Result<bool, Error> {
        Ok(match address {
            IpAddr::V4(address) => arp::is_in_use(self.bridge, address)?,
            IpAddr::V6(address) => ndp::is_in_use(self.bridge, address)?,
        })
    }
}

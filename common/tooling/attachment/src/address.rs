//! The address of the container.

use std::{net::IpAddr, path::Path};

use document::members::On;
use ipnet::IpNet;
use lease::Lease;
use netlink::{Connection, Link, arp, ndp, veth_name};
use operation::Error;

use crate::{
    Container,
    container::{FIRST, what},
    unfit::Unfit,
};

/// The subnet and the link of the host that an address is leased for.
pub(crate) struct Source<'a> {
    pub(crate) container: &'a Container<'a>,
    pub(crate) on: &'a On,
    /// The subnet. `range` is the part of it to lease from, `gateway` is never leased.
    pub(crate) subnet: IpNet,
    pub(crate) range: Option<IpNet>,
    pub(crate) gateway: Option<IpAddr>,
    pub(crate) connection: &'a Connection,
    /// The bridge or the parent. A planned one has index 0 and no address yet.
    pub(crate) link: &'a Link,
    /// Whether unknown stations may have addresses, so that they are asked.
    pub(crate) probed: bool,
}

impl Source<'_> {
    /// Plans the lease of `wanted`, or of the next free address. The gateway and the link's own
    /// addresses are never leased.
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
        let addresses = match self.link.index {
            0 => Vec::new(),
            index if self.subnet.addr().is_ipv4() => self.connection.addresses(Some(index))?,
            index => self.connection.addresses6(Some(index))?,
        };
        Ok(addresses.iter().map(|address| address.address.addr()).chain(self.gateway).collect())
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
        let has_other_hosts = self.on.bridge().is_some_and(|bridge| bridge.vxlan.is_some());
        if let Some(range) = self.range.filter(|range| has_other_hosts && !range.contains(&address)) {
            return Err(Unfit::OtherHosts { address, range }.into());
        }
        let taken = |by: String| Error::from(Unfit::AddressTaken { address, by });
        if reserved.contains(&address) {
            return Err(taken(match Some(address) == self.gateway {
                true if self.on.bridge().is_none() => "the gateway".to_owned(),
                _ => what(self.on),
            }));
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
        let is_probed = self.probed && self.link.index != 0;
        // Another run directory has leases of its own. Their addresses are in the nf_tables table.
        Ok(match nat::address_holder(address)? {
            None if is_probed && self.answers(address)? => Some(format!("a station on {}", what(self.on))),
            Some(holder) if holder != self.container.id && Some(&holder) != lease.instead_of.as_ref() => {
                Some(format!("container {holder:?}"))
            }
            _ => None,
        })
    }

    /// Whether a station has the address.
    fn answers(&self, address: IpAddr) -> Result<bool, Error> {
        Ok(match address {
            IpAddr::V4(address) => arp::is_in_use(self.link, address)?,
            IpAddr::V6(address) => ndp::is_in_use(self.link, address)?,
        })
    }
}

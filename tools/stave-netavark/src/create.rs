//! `create`: completes a network that podman is about to store, and refuses what `setup` would refuse.

use std::{collections::BTreeMap, net::IpAddr, path::Path};

use anyhow::{Context, Result, bail};
use attachment::{named::FileRoute, overlap};
use ipnet::IpNet;
use netlink::Connection;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    input,
    work::{self, Kind},
};

/// podman's question: a network, what others have already, and where to choose from.
#[derive(Deserialize)]
pub(crate) struct Asked {
    network: Network,
    #[serde(default)]
    used: Used,
    options: Pools,
}

/// A network in podman's format. What is not named here stays as it is.
#[derive(Serialize, Deserialize)]
struct Network {
    #[serde(default)]
    name: String,
    #[serde(default)]
    id: String,
    #[serde(default)]
    driver: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    network_interface: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    created: Option<Value>,
    #[serde(default)]
    subnets: Option<Vec<Subnet>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    routes: Option<Vec<FileRoute>>,
    #[serde(default)]
    ipv6_enabled: bool,
    #[serde(default)]
    internal: bool,
    #[serde(default)]
    dns_enabled: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    network_dns_servers: Option<Vec<IpAddr>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    options: Option<BTreeMap<String, String>>,
    #[serde(default)]
    ipam_options: Option<BTreeMap<String, String>>,
    #[serde(flatten)]
    other: Map<String, Value>,
}

#[derive(Serialize, Deserialize)]
struct Subnet {
    subnet: IpNet,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gateway: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lease_range: Option<Range>,
}

/// The addresses that podman leases.
#[derive(Serialize, Deserialize)]
struct Range {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    start_ip: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    end_ip: Option<IpAddr>,
}

/// What other networks and the host have.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Used {
    interfaces: Vec<String>,
    names: BTreeMap<String, String>,
    subnets: Vec<IpNet>,
}

#[derive(Deserialize)]
struct Pools {
    #[serde(default)]
    subnet_pools: Vec<Pool>,
    #[serde(default)]
    default_interface_name: String,
    /// Whether the subnets must be free on this host.
    #[serde(default)]
    check_used_subnets: bool,
}

/// Subnets of this size to choose from.
#[derive(Deserialize)]
struct Pool {
    base: IpNet,
    size: u8,
}

/// Completes the network. Returns it in podman's format.
pub(crate) fn create(file: Option<&Path>) -> Result<Value> {
    let Asked { mut network, used, options } = input::read(file)?;
    network.refuse_names(&used)?;
    network.rename_options();
    let kind = Kind::of(&network.driver)?;
    let connection = Connection::open(None)?;
    network.choose_interface(kind, &used, &options, &connection)?;
    for (key, value) in network.options.iter().flatten() {
        work::option(kind, key, value)?;
    }
    network.choose_ipam(kind)?;
    // The bridge of another program has a network of its own, and others of podman's networks may be on it.
    let is_shared = network.is_unmanaged();
    let mut taken = if is_shared { Vec::new() } else { used.subnets };
    network.check_subnets(&taken)?;
    if options.check_used_subnets && !is_shared {
        taken.extend(on_this_host(&connection)?);
    }
    network.choose_subnets(kind, &options, &taken)?;
    for route in network.routes.iter_mut().flatten() {
        route.destination = route.destination.trunc();
        work::route(route)?;
    }
    if kind != Kind::Bridge {
        // Nothing there could answer.
        network.dns_enabled = false;
    }
    if !network.dns_enabled && network.network_dns_servers.as_ref().is_some_and(|servers| !servers.is_empty())
    {
        bail!("network_dns_servers: DNS is not enabled on the network");
    }
    network.created.get_or_insert_with(|| json!(jiff::Timestamp::now().to_string()));
    Ok(serde_json::to_value(network)?)
}

/// The subnets of this host's interfaces, and those to which its routes lead.
fn on_this_host(connection: &Connection) -> Result<Vec<IpNet>> {
    let addresses = connection.addresses(None)?.into_iter().chain(connection.addresses6(None)?);
    let addresses = addresses.map(|one| one.address.trunc());
    let routes = connection.routes(None)?.into_iter().chain(connection.routes6(None)?);
    let routes = routes.map(|route| route.destination).filter(|to| to.prefix_len() >= netlink::WAY_OUT);
    Ok(addresses.chain(routes).collect())
}

impl Network {
    fn refuse_names(&self, used: &Used) -> Result<()> {
        let name = &self.name;
        if name.is_empty() {
            bail!("the network has no name");
        }
        if !operation::is_name(name, usize::MAX) {
            bail!(
                "network name {name:?}: a name has letters, digits, `_`, `.` and `-`, and begins with a letter or digit"
            );
        }
        if self.id.is_empty() {
            bail!("network {name:?} has no id");
        }
        if used.names.contains_key(name) {
            bail!("network {name:?} exists already");
        }
        Ok(())
    }

    /// Takes over Docker's names of options.
    fn rename_options(&mut self) {
        let Some(options) = &mut self.options else { return };
        if let Some(mtu) = options.remove("com.docker.network.driver.mtu") {
            options.insert("mtu".to_owned(), mtu);
        }
        if let Some(name) =
            options.remove("com.docker.network.bridge.name").filter(|_| self.driver == "bridge")
        {
            self.network_interface = Some(name);
        }
    }

    /// Whether the bridge is another program's.
    fn is_unmanaged(&self) -> bool {
        self.options.as_ref().and_then(|options| options.get("mode")).is_some_and(|mode| mode == "unmanaged")
    }

    /// The bridge is a new one, unless it is another program's. A parent is there already, and without a name it is that of the default route.
    fn choose_interface(
        &mut self,
        kind: Kind,
        used: &Used,
        pools: &Pools,
        connection: &Connection,
    ) -> Result<()> {
        let given = self.network_interface.take().filter(|name| !name.is_empty());
        let is_used = |name: &str| used.interfaces.iter().any(|other| other == name);
        self.network_interface = match (kind, given) {
            (Kind::Bridge, Some(name)) if is_used(&name) && !self.is_unmanaged() => {
                bail!("bridge {name:?} is in use")
            }
            (Kind::Bridge, None) => {
                let stem = Some(&*pools.default_interface_name).filter(|stem| !stem.is_empty());
                let stem = stem.unwrap_or("podman");
                let mut number = 0;
                loop {
                    let name = format!("{stem}{number}");
                    if !is_used(&name) && connection.link(&name)?.is_none() {
                        break Some(name);
                    }
                    number += 1;
                }
            }
            (Kind::Macvlan | Kind::Ipvlan, Some(name)) if connection.link(&name)?.is_none() => {
                bail!("parent {name:?} does not exist")
            }
            (_, given) => given,
        };
        Ok(())
    }

    fn choose_ipam(&mut self, kind: Kind) -> Result<()> {
        let ipam = self.ipam_options.get_or_insert_default();
        let has_subnets = self.subnets.as_ref().is_some_and(|subnets| !subnets.is_empty());
        let driver = match ipam.get("driver").map(String::as_str).filter(|driver| !driver.is_empty()) {
            None if kind != Kind::Bridge && !has_subnets => "dhcp",
            given => given.unwrap_or("host-local"),
        };
        work::refuse_ipam(kind, driver).with_context(|| format!("network {:?}", self.name))?;
        if driver == work::NO_ADDRESSES && has_subnets {
            bail!("ipam driver \"none\" has no subnets");
        }
        ipam.insert("driver".to_owned(), driver.to_owned());
        Ok(())
    }

    /// Checks the subnets that are given.
    fn check_subnets(&mut self, taken: &[IpNet]) -> Result<()> {
        let is_unmanaged = self.is_unmanaged();
        let subnets = self.subnets.get_or_insert_default();
        for at in 0..subnets.len() {
            let subnet = subnets[at].subnet.trunc();
            subnets[at].subnet = subnet;
            let is_same_version = |other: &Subnet| other.subnet.addr().is_ipv4() == subnet.addr().is_ipv4();
            if is_unmanaged && subnets[..at].iter().any(is_same_version) {
                bail!("an unmanaged bridge has one subnet of each IP version, and {subnet} is a second one");
            }
            if subnet.prefix_len() + 2 > subnet.max_prefix_len() {
                bail!("subnet {subnet} has no room for a gateway and a container");
            }
            if let Some(other) = subnets[..at].iter().find(|other| overlap(&other.subnet, &subnet)) {
                bail!("subnets {} and {subnet} overlap", other.subnet);
            }
            if let Some(other) = taken.iter().find(|other| overlap(other, &subnet)) {
                bail!("subnet {subnet} overlaps {other}, which is in use");
            }
            let Subnet { gateway, lease_range, .. } = &subnets[at];
            let (start, end) =
                lease_range.as_ref().map_or((None, None), |range| (range.start_ip, range.end_ip));
            for (what, address) in [("gateway", *gateway), ("start_ip", start), ("end_ip", end)] {
                if let Some(address) = address.filter(|address| !subnet.contains(address)) {
                    bail!("{what} {address} is not in subnet {subnet}");
                }
            }
            if start.zip(end).is_some_and(|(start, end)| start > end) {
                bail!("the range of subnet {subnet} ends before it begins");
            }
        }
        Ok(())
    }

    /// Adds the subnets that are missing, and gateways.
    fn choose_subnets(&mut self, kind: Kind, pools: &Pools, taken: &[IpNet]) -> Result<()> {
        let subnets = self.subnets.get_or_insert_default();
        let has_v4 = |subnets: &[Subnet]| subnets.iter().any(|one| one.subnet.addr().is_ipv4());
        let has_v6 = |subnets: &[Subnet]| subnets.iter().any(|one| one.subnet.addr().is_ipv6());
        // As in netavark, `ipv6_enabled` means both versions.
        if kind == Kind::Bridge && (subnets.is_empty() || self.ipv6_enabled && !has_v4(subnets)) {
            let free = pools.free(false, taken)?.context("no free IPv4 subnet in the pools")?;
            subnets.push(Subnet { subnet: free, gateway: None, lease_range: None });
        }
        if kind == Kind::Bridge && self.ipv6_enabled && !has_v6(subnets) {
            let subnet = match pools.free(true, taken)? {
                Some(subnet) => subnet,
                None => attachment::random_prefix()?.into(),
            };
            subnets.push(Subnet { subnet, gateway: None, lease_range: None });
        }
        self.ipv6_enabled |= has_v6(subnets);
        // Without names and without a way out, nothing needs the bridge's address.
        if !self.internal || self.dns_enabled {
            for one in subnets.iter_mut().filter(|one| one.gateway.is_none()) {
                one.gateway = Some(lease::gateway(one.subnet));
            }
        }
        Ok(())
    }
}

impl Pools {
    /// The first subnet of the pools of this IP version that overlaps none of `taken`.
    fn free(&self, v6: bool, taken: &[IpNet]) -> Result<Option<IpNet>> {
        for Pool { base, size } in self.subnet_pools.iter().filter(|pool| pool.base.addr().is_ipv6() == v6) {
            let mut subnets =
                base.trunc().subnets(*size).with_context(|| format!("pool {base} of size {size}"))?;
            if let Some(free) = subnets.find(|subnet| !taken.iter().any(|other| overlap(other, subnet))) {
                return Ok(Some(free));
            }
        }
        Ok(None)
    }
}

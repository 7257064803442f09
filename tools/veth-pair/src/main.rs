//! Joins a container's network namespace to its bridge.
//!
//! # Does
//! Leases an address of the bridge's subnet. Makes a veth pair: one side is a port of the bridge, the other is `eth0` in the
//! namespace. Gives `eth0` the address and a default route through the gateway.
//! # Reads
//! `network`; the leases below `$STAVE_RUN/leases`.
//! # Adds
//! `network.cni`: a CNI 1.1.0 result.
//! # Undoes
//! The veth pair, with its address and route; the lease.
//! # Needs
//! root (CAP_NET_ADMIN, CAP_SYS_ADMIN).

mod pair;

use std::{net::Ipv4Addr, process::ExitCode};

use anyhow::{Result, anyhow, bail};
use clap::Parser;
use document::{Document, Instance, members};
use ipnet::{IpNet, Ipv4Net};
use lease::Lease;
use nat::NatOperation;
use netlink::{Connection, Link, LinkOperation, Mac, Mark, arp, veth_name};
use operation::Scope;
use pair::Pair;
use toolkit::{Common, Context, Filter, Plan, hint};

/// The name of the interface in the container.
const INTERFACE: &str = "eth0";

/// What the kernel gives a new bridge, in bytes.
const MTU: u32 = 1500;

/// Make a veth pair between a network namespace and its bridge, with an address and a default route
#[derive(Parser)]
#[command(name = "veth-pair", version)]
struct VethPair {
    /// The MTU of the interface in bytes; by default that of the way out, on a bridge of others that of the bridge
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(68..=65535))]
    mtu: Option<u32>,
    #[command(flatten)]
    common: Common,
}

operation::any_of! {
    /// What this tool does.
    enum Op {
        Lease(Lease),
        Address(NatOperation),
        Link(LinkOperation),
    }
}

impl Filter for VethPair {
    type Adds = members::Attachment;
    type Operation = Op;
    const LOCK: Option<&'static str> = Some("network");
    const READS: &'static [&'static str] = &["network"];

    fn common(&self) -> &Common {
        &self.common
    }

    fn restore(scope: &Scope) -> Result<()> {
        if nat::is_gone()? {
            nat::restore(toolkit::recorded(scope)?, scope);
        }
        Ok(())
    }

    fn plan(&self, context: &Context, document: &Document) -> Result<Plan<Self>> {
        let network = document.require::<members::Network>()?;
        if network.cni.is_some() {
            bail!("the container has an interface already");
        }
        let name = &network.bridge.name;
        let connection = Connection::open(None)?;
        let bridge = match connection.link(name)? {
            Some(bridge) => bridge,
            None if context.planned => planned_bridge(name),
            None => {
                let what = "make it again with netns-bridge --repair";
                return Err(hint(anyhow!("no bridge {name:?}"), what));
            }
        };
        let guards = bridge.mac == Some(Mac::derive("", name));
        let lease = plan_lease(context, &network, &connection, &bridge)?;
        let leased = lease.address;
        let address = NatOperation::Address {
            address: lease.address,
            holder: context.id.clone(),
            instead_of: lease.instead_of.clone(),
        };
        let instance = document.get::<Instance>()?.map(|instance| instance.to_string());
        let subnet = v4(network.bridge.subnet)?;
        let cidr = IpNet::from(Ipv4Net::new(leased, subnet.prefix_len())?);
        let pair = Pair {
            here: (veth_name(&context.id, INTERFACE), Mac::derive(&context.id, "host")),
            inside: Mac::from(leased),
            mtu: match self.mtu {
                Some(mtu) => mtu,
                // A bridge of ours takes the lowest of its ports'.
                None if guards => connection.mtu_of_the_way_out()?.unwrap_or(bridge.mtu),
                None => bridge.mtu,
            },
            address: cidr,
            mark: Mark::new(&context.id, instance.as_deref()),
            guards,
        };
        let operations = [lease.into(), address.into()]
            .into_iter()
            .chain(pair.operations(&network).map(Op::from))
            .collect();
        Ok(Plan { adds: members::Attachment { cni: pair.result(&network, &bridge) }, operations })
    }

    fn forget(document: &mut Document) -> Result<()> {
        if let Some(network) = document.get::<members::Network>()? {
            document.set(&members::Network { cni: None, ..network })?;
        }
        Ok(())
    }
}

/// The bridge as netns-bridge is going to make it.
fn planned_bridge(name: &str) -> Link {
    Link {
        index: 0,
        name: name.to_owned(),
        mac: Some(Mac::derive("", name)),
        mtu: MTU,
        up: true,
        master: None,
        hairpin: false,
        bridge: true,
        alias: None,
    }
}

fn v4(subnet: IpNet) -> Result<Ipv4Net> {
    match subnet {
        IpNet::V4(subnet) => Ok(subnet),
        IpNet::V6(subnet) => bail!("subnet {subnet} is not an IPv4 subnet"),
    }
}

/// The next free address. The bridge's own addresses, such as the gateway, are left out.
fn plan_lease(
    context: &Context,
    network: &members::Network,
    connection: &Connection,
    bridge: &Link,
) -> Result<Lease> {
    let subnet = v4(network.bridge.subnet)?;
    // A bridge that is planned has no index, and no address yet.
    let addresses = match bridge.index {
        0 => Vec::new(),
        index => connection.addresses(Some(index))?,
    };
    let mut reserved: Vec<Ipv4Addr> = addresses
        .iter()
        .map(|address| address.address.addr())
        .chain([network.bridge.gateway])
        .filter_map(|address| match address {
            std::net::IpAddr::V4(address) => Some(address),
            std::net::IpAddr::V6(_) => None,
        })
        .collect();
    let is_foreign = bridge.index != 0 && bridge.mac != Some(Mac::derive("", &bridge.name));
    // If in doubt, the address is in use.
    let in_use = |id: &str| {
        let record = context.scope.run_dir.join(format!("{id}.json"));
        let namespace = std::path::Path::new("/run/netns").join(id);
        let gone = |path: &std::path::Path| path.try_exists().is_ok_and(|exists| !exists);
        let no_link = || connection.link(&veth_name(id, INTERFACE)).is_ok_and(|link| link.is_none());
        !(gone(&record) && gone(&namespace) && no_link())
    };
    loop {
        let planned = lease::plan(&context.scope.run_dir, subnet, &reserved, &context.id, in_use);
        let lease = planned.map_err(|error| match error {
            lease::Error::UsedUp { .. } => {
                hint(error, "unwind a container, or use another bridge with a larger --subnet")
            }
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

fn main() -> ExitCode {
    let exit = toolkit::filter::<VethPair>();
    nat::close();
    exit
}

//! Joins a container's network namespace to its bridge.
//!
//! # Does
//! Leases an address of the bridge's subnet. Makes a veth pair: one side is a port of the bridge, the other is `eth0` in the
//! namespace. Gives `eth0` the address and a default route through the gateway. The port drops packets from and to 127.0.0.0/8;
//! on a bridge of others the bridge does. There, an address is leased only if nobody answers for it.
//! # Reads
//! `network`; the leases below `$STAVE_RUN/leases`.
//! # Adds
//! An element of `networks`; for versions before 0.2 also `network.cni`.
//! # Undoes
//! The veth pair, with its address and route; the lease.
//! # Needs
//! root (CAP_NET_ADMIN, CAP_SYS_ADMIN).

mod address;
mod pair;

use std::process::ExitCode;

use anyhow::{Result, anyhow, bail};
use clap::Parser;
use document::{Document, Instance, members};
use ipnet::{IpNet, Ipv4Net};
use lease::Lease;
use nat::NatOperation;
use netlink::{Connection, Link, LinkOperation, Mac, Mark, veth_name};
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
    type Adds = members::Attached;
    type Operation = Op;
    const LOCK: Option<&'static str> = Some("network");
    const READS: &'static [&'static str] = &["network"];

    fn common(&self) -> &Common {
        &self.common
    }

    fn restore(scope: &Scope) -> Result<()> {
        nat::restore(scope, || toolkit::recorded(scope))
    }

    fn plan(&self, context: &Context, document: &Document) -> Result<Plan<Self>> {
        let network = document.require::<members::Network>()?;
        if network.cni.is_some() {
            bail!("the container has an interface already");
        }
        let Some(on) = network.bridge.as_ref() else {
            let what = "netns-bridge notes one; bridge-attach needs none";
            return Err(hint(anyhow!("no bridge in `network`"), what));
        };
        let name = &on.name;
        let connection = Connection::open(None)?;
        let bridge = match connection.link(name)? {
            Some(bridge) => bridge,
            None if context.planned => planned_bridge(name),
            None => {
                let what = "make it again with netns-bridge --repair";
                return Err(hint(anyhow!("no bridge {name:?}"), what));
            }
        };
        let guards = bridge.is_our_bridge();
        let lease = address::plan(context, on, &connection, &bridge)?;
        let leased = lease.address;
        let address = NatOperation::Address {
            address: lease.address,
            holder: context.id.clone(),
            instead_of: lease.instead_of.clone(),
        };
        let instance = document.get::<Instance>()?.map(|instance| instance.to_string());
        let subnet = address::v4(on.subnet)?;
        let cidr = IpNet::from(Ipv4Net::new(leased, subnet.prefix_len())?);
        let pair = Pair {
            here: (veth_name(&context.id, INTERFACE), Mac::derive(&context.id, "host")),
            inside: Mac::from(leased),
            mtu: match self.mtu {
                Some(mtu) => mtu,
                // A bridge of ours takes the lowest of its ports'.
                None if guards => {
                    let from = (bridge.index != 0).then_some((bridge.index, leased));
                    connection.mtu_of_the_way_out(from)?.unwrap_or(bridge.mtu)
                }
                None => bridge.mtu,
            },
            address: cidr,
            mark: Mark::new(&context.id, instance.as_deref()),
            guards,
        };
        let operations = [lease.into(), address.into()]
            .into_iter()
            .chain(pair.operations(&network.namespace, on).map(Op::from))
            .collect();
        let attachment = members::Attachment {
            name: name.clone(),
            interface: INTERFACE.to_owned(),
            bridge: on.clone(),
            cni: pair.result(&network.namespace, on, &bridge),
            other: Default::default(),
        };
        Ok(Plan { adds: members::Attached::new(&network, attachment), operations })
    }

    fn forget(document: &mut Document) -> Result<()> {
        if let Some(network) = document.get::<members::Network>()? {
            document.set(&members::Network { cni: None, ..network })?;
        }
        // A step that did not come to be done has added nothing; one of before version 0.2 knows no `networks`.
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

fn main() -> ExitCode {
    let exit = toolkit::filter::<VethPair>();
    nat::close();
    exit
}

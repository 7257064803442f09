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

use std::{net::Ipv4Addr, process::ExitCode};

use anyhow::{Result, anyhow, bail};
use clap::Parser;
use document::{Document, members};
use ipnet::{IpNet, Ipv4Net};
use lease::Lease;
use netlink::{Connection, Link, LinkOperation, Mac, Peer, veth_name};
use toolkit::{Common, Context, Filter, Plan, hint};

/// The name of the interface in the container.
const INTERFACE: &str = "eth0";

/// What the kernel gives a new bridge, in bytes.
const MTU: u32 = 1500;

/// Make a veth pair between a network namespace and its bridge, with an address and a default route
#[derive(Parser)]
#[command(name = "veth-pair", version)]
struct VethPair {
    #[command(flatten)]
    common: Common,
}

operation::any_of! {
    /// What this tool does.
    enum Op {
        Lease(Lease),
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
        let lease = plan_lease(context, &network, &connection, &bridge)?;
        let subnet = v4(network.bridge.subnet)?;
        let address = IpNet::from(Ipv4Net::new(lease.address, subnet.prefix_len())?);
        let pair = Pair {
            here: (veth_name(&context.id, INTERFACE), Mac::derive(&context.id, "host")),
            inside: Mac::derive(&context.id, INTERFACE),
            mtu: bridge.mtu,
            address,
        };
        let operations =
            std::iter::once(lease.into()).chain(pair.operations(&network).map(Op::from)).collect();
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
    let reserved: Vec<Ipv4Addr> = addresses
        .iter()
        .map(|address| address.address.addr())
        .chain([network.bridge.gateway])
        .filter_map(|address| match address {
            std::net::IpAddr::V4(address) => Some(address),
            std::net::IpAddr::V6(_) => None,
        })
        .collect();
    // If in doubt, the address is in use.
    let in_use = |id: &str| {
        let record = context.scope.run_dir.join(format!("{id}.json"));
        let namespace = std::path::Path::new("/run/netns").join(id);
        let gone = |path: &std::path::Path| path.try_exists().is_ok_and(|exists| !exists);
        let no_link = || connection.link(&veth_name(id, INTERFACE)).is_ok_and(|link| link.is_none());
        !(gone(&record) && gone(&namespace) && no_link())
    };
    lease::plan(&context.scope.run_dir, subnet, &reserved, &context.id, in_use).map_err(|error| match error {
        lease::Error::UsedUp { .. } => {
            hint(error, "unwind a container, or use another bridge with a larger --subnet")
        }
        error => error.into(),
    })
}

/// The pair to make.
struct Pair {
    here: (String, Mac),
    inside: Mac,
    mtu: u32,
    address: IpNet,
}

impl Pair {
    fn operations(&self, network: &members::Network) -> impl Iterator<Item = LinkOperation> {
        let (name, mac) = self.here.clone();
        let inside = self.inside;
        let (link, namespace) = (INTERFACE.to_owned(), Some(network.namespace.clone()));
        [
            LinkOperation::VethAdd {
                name: name.clone(),
                mac,
                master: network.bridge.name.clone(),
                mtu: self.mtu,
                peer: Peer { name: link.clone(), mac: inside, namespace: network.namespace.clone() },
            },
            LinkOperation::Ipv6Off { link: name.clone(), mac },
            LinkOperation::Hairpin { link: name.clone(), mac },
            LinkOperation::LinkUp { namespace: None, link: name, mac },
            LinkOperation::LinkUp { namespace: namespace.clone(), link: link.clone(), mac: inside },
            LinkOperation::AddressAdd {
                namespace: namespace.clone(),
                link: link.clone(),
                mac: Some(inside),
                address: self.address,
                protocol: None,
            },
            LinkOperation::RouteAdd {
                namespace,
                destination: IpNet::from(Ipv4Net::default()),
                gateway: network.bridge.gateway,
                link,
                mac: inside,
            },
        ]
        .into_iter()
    }

    /// The CNI result (CNI SPEC.md, "ADD Success").
    fn result(&self, network: &members::Network, bridge: &Link) -> members::CniResult {
        let interface = |name: &str, mac: Option<Mac>, sandbox| members::CniInterface {
            name: name.to_owned(),
            mac: mac.map(|mac| mac.to_string()),
            mtu: Some(self.mtu),
            sandbox,
        };
        let gateway = Some(network.bridge.gateway);
        let sandbox = Some(network.namespace.to_string_lossy().into_owned());
        members::CniResult {
            cni_version: "1.1.0".into(),
            interfaces: vec![
                interface(&bridge.name, bridge.mac, None),
                interface(&self.here.0, Some(self.here.1), None),
                interface(INTERFACE, Some(self.inside), sandbox),
            ],
            ips: vec![members::CniIp { address: self.address, gateway, interface: Some(2) }],
            routes: vec![members::CniRoute { dst: IpNet::from(Ipv4Net::default()), gw: gateway }],
            dns: serde_json::json!({}),
            other: serde_json::Map::new(),
        }
    }
}

fn main() -> ExitCode {
    toolkit::filter::<VethPair>()
}

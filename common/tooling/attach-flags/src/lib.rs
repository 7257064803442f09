//! The command lines of bridge-attach, macvlan-attach and ipvlan-attach, as far as they have them in common,
//! and the filter of the latter two.

mod parent;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Result, anyhow};
use attachment::{Asked, Closed, Further, Gateway, Gateways, Route, named::Named};
use clap::Args;
use document::{
    Document, Member, Step,
    members::{Attachment, Egress, Networks},
};
use ipnet::{Ipv4Net, Ipv6Net};
use netlink::Mac;
use toolkit::hint;

pub use parent::{Attach, Driver};

/// The flags for the container's side.
#[derive(Debug, Clone, Args)]
pub struct Inside {
    /// Name of the interface in the container; default: the first free one of eth0, eth1, …
    #[arg(long, value_name = "NAME", value_parser = attachment::parse_name)]
    pub interface: Option<String>,
    /// IPv4 address of the container; default: the next free one; repeatable
    #[arg(long, value_name = "ADDRESS")]
    ip: Vec<Ipv4Addr>,
    /// IPv6 address of the container, on a network with IPv6; repeatable
    #[arg(long, value_name = "ADDRESS")]
    ip6: Vec<Ipv6Addr>,
    /// Hardware address of the interface; default: derived from the address
    #[arg(long, value_name = "MAC", value_parser = unicast)]
    mac_address: Option<Mac>,
    /// The network with the highest priority (-900 to 900) has the default route; among equals, the first
    #[arg(long, alias = "gw-priority", value_name = "NUMBER", default_value_t = 0, allow_negative_numbers = true, value_parser = clap::value_parser!(i32).range(-900..=900))]
    gateway_priority: i32,
    /// Metric of the default route, instead of the one that follows from the priority
    #[arg(long, value_name = "NUMBER", conflicts_with = "gateway_priority")]
    metric: Option<u32>,
    /// Give the container no default route by this network, or with "=4" or "=6" none of this version of IP
    #[arg(long, value_name = "VERSION", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    no_default_route: Option<Closed>,
    /// Another name of the container for the others on this network, which name-serve answers; repeatable
    #[arg(long = "alias", value_name = "NAME", value_parser = names::parse_alias)]
    aliases: Vec<String>,
    /// Add a route, such as "10.8.0.0/16 via 172.17.0.9"; default next hop: the gateway. Instead of "via
    /// ADDRESS": "blackhole", "unreachable" or "prohibit"; "metric NUMBER" at the end; repeatable
    #[arg(long = "route", value_name = "ROUTE")]
    routes: Vec<Route>,
    /// MTU of the interface in bytes; default: that of the default route; on a bridge that Stave did not make,
    /// the bridge's
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(attachment::MTU))]
    mtu: Option<u32>,
}

/// The flags for the network's subnets.
#[derive(Debug, Clone, Args)]
pub struct Subnets {
    /// With `false`, the network has IPv6 only
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    pub ipv4: bool,
    /// Subnet of the bridge; default: the existing one, or the first free one of 172.17.0.0/16,
    /// 172.18.0.0/16, …
    #[arg(long, value_name = "CIDR", value_parser = attachment::parse_subnet)]
    pub subnet: Option<Ipv4Net>,
    /// Lease addresses only from this part of the subnet
    #[arg(long, value_name = "CIDR", value_parser = attachment::parse_range)]
    pub ip_range: Option<Ipv4Net>,
    /// Address of the bridge, the containers' gateway; default: the existing one, or the first of the subnet.
    /// One for each IP version. "none": the bridge has no address, and the containers no default route
    #[arg(long = "gateway", value_name = "ADDRESS|none")]
    gateways: Vec<Gateway>,
    /// IPv6 subnet of the bridge
    #[arg(long, value_name = "CIDR", value_parser = attachment::parse_subnet6)]
    pub subnet6: Option<Ipv6Net>,
    /// Lease IPv6 addresses only from this part of the subnet
    #[arg(long, value_name = "CIDR", value_parser = attachment::parse_range6)]
    pub ip6_range: Option<Ipv6Net>,
    /// A further subnet of one of these IP versions, of which the container has an address, too: "10.2.0.0/24",
    /// with "gateway ADDRESS" or "range CIDR" after it, if they are wanted; repeatable
    #[arg(long = "further-subnet", value_name = "SUBNET")]
    pub further: Vec<Further>,
    /// Isolate the network from all others: its containers reach only each other and this host
    #[arg(long)]
    pub internal: bool,
}

/// Parses a hardware address, which must be unicast.
fn unicast(text: &str) -> Result<Mac, String> {
    let mac: Mac = text.parse().map_err(|error: netlink::InvalidMac| error.to_string())?;
    match mac.0[0] & 1 == 0 && mac.0 != [0; 6] {
        true => Ok(mac),
        false => Err(format!("{text} is not the address of one interface")),
    }
}

impl Inside {
    /// The wanted properties of the container's side, after these attachments.
    ///
    /// # Errors
    /// When an attachment has a default route that comes before all.
    pub fn asked(&self, named: Option<&Named>, attachments: &[Attachment]) -> Result<Asked> {
        let routes = named.iter().flat_map(|named| &named.routes).chain(&self.routes);
        let further = self.ip.iter().skip(1).map(|address| IpAddr::from(*address));
        let further6 = self.ip6.iter().skip(1).map(|address| IpAddr::from(*address));
        // A priority that is given replaces the metric of the network's file. The kernel takes each metric
        // once, so that a network whose file repeats one goes behind.
        let by_file = named.and_then(|named| named.metric).filter(|_| self.gateway_priority == 0);
        let is_taken = |metric: u32| attachments.iter().any(|one| one.metric() == u64::from(metric));
        let metric = self.metric.or_else(|| (by_file?..).find(|metric| !is_taken(*metric)));
        let priority = match metric {
            Some(_) => (self.gateway_priority, 0),
            None => attachment::priority(self.gateway_priority, attachments)?,
        };
        Ok(Asked {
            name: named.map(|named| named.name.clone()),
            mtu: self.mtu.or(named.and_then(|named| named.mtu)),
            address: self.ip.first().copied().map(Into::into),
            address6: self.ip6.first().copied().map(Into::into),
            further: further.chain(further6).collect(),
            mac: self.mac_address,
            priority: Some(priority),
            metric,
            no_default_route: match named {
                Some(named) if named.no_default_route => Closed::Both,
                _ => self.no_default_route.unwrap_or_default(),
            },
            routers: Vec::new(),
            routes: routes.cloned().collect(),
            aliases: self.aliases.clone(),
            makes_bridge: None,
        })
    }
}

impl Subnets {
    /// The wanted gateways.
    ///
    /// # Errors
    /// When two have the same IP version, or a flag needs IPv4 and there is none.
    pub fn gateways(&self) -> Result<Gateways> {
        let found = attachment::gateways(&self.gateways, self.ipv4, self.subnet, self.ip_range);
        found.map_err(|wrong| anyhow!(wrong))
    }

    /// The names of the flags that are given.
    pub fn given(&self) -> impl Iterator<Item = &'static str> {
        let own = [
            (!self.ipv4).then_some("--ipv4"),
            self.subnet.map(|_| "--subnet"),
            self.ip_range.map(|_| "--ip-range"),
            self.gateways.first().map(|_| "--gateway"),
            self.subnet6.map(|_| "--subnet6"),
            self.ip6_range.map(|_| "--ip6-range"),
            self.further.first().map(|_| "--further-subnet"),
            self.internal.then_some("--internal"),
        ];
        own.into_iter().flatten()
    }
}

/// Refuses a flag that describes a network, if the network's file does that.
///
/// # Errors
/// When a flag is given.
pub fn refuse_flags(named: &Named, given: &mut dyn Iterator<Item = &'static str>) -> Result<()> {
    let Some(flag) = given.next() else { return Ok(()) };
    let error = anyhow!("{:?} says what network {:?} is: {flag} is not for it", named.path, named.name);
    Err(hint(error, format!("leave out {flag}; network-create has it")))
}

/// Refuses another network for a container that is restricted to a list.
///
/// # Errors
/// When it is.
pub fn refuse_restricted(document: &Document) -> Result<()> {
    if document.get::<Egress>()?.is_none() {
        return Ok(());
    }
    let error = anyhow!("the container is restricted to a list, which applies to the networks that it has");
    Err(hint(error, "put egress-allow after all network tools"))
}

/// Whether `--undo` of an attachment to `network` means this step. None means any network.
pub fn is_meant(step: &Step, network: Option<&str>) -> bool {
    let Some(network) = network else { return true };
    let list = step.adds.get(Networks::NAME).and_then(|list| list.as_array());
    let mut names = list.into_iter().flatten().filter_map(|one| one["name"].as_str());
    // An attachment that was not completed has no members.
    list.is_none() || names.any(|name| name == network)
}

//! Makes a network that has a name.
//!
//! # Does
//! Chooses a subnet, and writes `$STAVE_ROOT/networks/NAME.json`. `bridge-attach NAME` makes the bridge with the first container.
//! The file has podman's form, and a file of podman's or a `NAME.conflist` of CNI in this directory is a network as well.
//! # Reads
//! No document; the files of other networks.
//! # Adds
//! Nothing; prints the network.
//! # Undoes
//! Nothing: `network-rm NAME` removes it.
//! # Needs
//! Write access to `$STAVE_ROOT`.

use std::{net::IpAddr, process::ExitCode};

use attachment::named::{self, File, Named};
use clap::Parser;
use document::{members::GatewayMode, record::Lock};
use ipnet::{Ipv4Net, Ipv6Net};
use serde_json::Value;
use toolkit::{prelude::*, rows};

/// Make a network that has a name
#[derive(Parser)]
#[command(name = "network-create", version)]
struct NetworkCreate {
    /// The network's name
    #[arg(value_name = "NAME", value_parser = named::parse_network)]
    name: String,
    /// The name of its bridge; by default the network's, if an interface can have it
    #[arg(long, value_name = "NAME", value_parser = attachment::parse_name)]
    bridge: Option<String>,
    /// Its subnet; by default the first of 172.17.0.0/16, 172.18.0.0/16 and so on that no interface, no route and no other
    /// network uses
    #[arg(long, value_name = "CIDR", value_parser = attachment::parse_subnet)]
    subnet: Option<Ipv4Net>,
    /// Lease addresses of this part of the subnet only
    #[arg(long, value_name = "CIDR", value_parser = attachment::parse_range)]
    ip_range: Option<Ipv4Net>,
    /// The address of its bridge, which is the gateway of its containers; by default the first of the subnet. One for each version of IP
    #[arg(long = "gateway", value_name = "ADDRESS")]
    gateways: Vec<IpAddr>,
    /// IPv6 as well: a random subnet of those that everybody may use (fd00::/8)
    #[arg(long)]
    ipv6: bool,
    /// Its subnet of IPv6
    #[arg(long, value_name = "CIDR", value_parser = attachment::parse_subnet6)]
    subnet6: Option<Ipv6Net>,
    /// Lease addresses of this part of the subnet of IPv6 only
    #[arg(long, value_name = "CIDR", value_parser = attachment::parse_range6)]
    ip6_range: Option<Ipv6Net>,
    /// How its containers are reached from outside: `nat`, by published ports on the host's addresses, or `routed`, by ping and
    /// published ports on their own addresses, which others route to
    #[arg(long, value_name = "MODE", default_value = "nat", value_parser = toolkit::one_of::<GatewayMode>(GatewayMode::NAMES))]
    gateway_mode: GatewayMode,
    /// No way leads out of the network, or into it: its containers reach each other and this host
    #[arg(long)]
    internal: bool,
    /// With `false`, its containers do not reach each other, except by published ports
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    icc: bool,
    /// The MTU of its interfaces in bytes; by default that of the way out
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(68..=65535))]
    mtu: Option<u32>,
    /// A note for people and scripts: KEY=VALUE; repeatable
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<String>,
    #[command(flatten)]
    common: Common,
}

impl NetworkCreate {
    /// The network, on subnets that no other one has.
    fn file(&self, context: &toolkit::Context) -> Result<File> {
        let root = &context.scope.root;
        let bridge = self.bridge.clone().unwrap_or_else(|| named::bridge_of(&self.name));
        let mut others = Vec::new();
        for name in Named::list(root)? {
            // One that cannot be used is told when it is.
            let Ok(Some(other)) = Named::find(root, &name) else { continue };
            if other.name == self.name {
                bail!("network {:?} exists: {:?}", self.name, other.path);
            }
            if other.network.bridge == bridge {
                let error = anyhow!("bridge {bridge:?} is that of network {:?}", other.name);
                return Err(hint(error, "choose another with --bridge"));
            }
            others.push(other);
        }
        let (subnet, subnet6) = named::subnets(self.subnet, self.ipv6, self.subnet6, &others)?;
        let mut file = File::new(&self.name, &bridge);
        let gateways = attachment::Gateways::of(&self.gateways).map_err(|wrong| anyhow!(wrong))?;
        let (gateway, range) = (gateways.v4.map(Into::into), self.ip_range.map(Into::into));
        file.subnets.push(named::subnet(subnet.into(), gateway, range)?);
        let (gateway, range) = (gateways.v6.map(Into::into), self.ip6_range.map(Into::into));
        match subnet6 {
            Some(subnet6) => file.subnets.push(named::subnet(subnet6.into(), gateway, range)?),
            None if range.is_some() => bail!("--ip6-range needs --ipv6 or --subnet6"),
            None if gateway.is_some() => bail!("a --gateway of IPv6 needs --ipv6 or --subnet6"),
            None => {}
        }
        file.ipv6_enabled = subnet6.is_some();
        file.internal = self.internal;
        let options = [
            self.mtu.map(|mtu| ("mtu", mtu.to_string())),
            (!self.icc).then(|| ("icc", "false".to_owned())),
            (self.gateway_mode == GatewayMode::Routed).then(|| ("gateway_mode", "routed".to_owned())),
        ];
        file.options = options.into_iter().flatten().map(|(key, value)| (key.to_owned(), value)).collect();
        for label in &self.labels {
            let (key, value) = label.split_once('=').unwrap_or((label, ""));
            file.labels.insert(key.to_owned(), value.to_owned());
        }
        file.id = named::new_id()?;
        Ok(file)
    }
}

impl Report for NetworkCreate {
    fn common(&self) -> &Common {
        &self.common
    }

    fn explain(&self, context: &toolkit::Context) -> Result<Vec<String>> {
        let file = self.file(context)?;
        let path = file.path(&context.scope.root);
        let text = operation::words(["echo", &serde_json::to_string(&file)?]);
        Ok(vec![format!("{text} > {}", operation::quote(&path.to_string_lossy()))])
    }

    fn report(&self, context: &toolkit::Context) -> Result<Value> {
        let _lock = Lock::take(&context.scope.run_dir, "network")?;
        let file = self.file(context)?;
        file.create(&context.scope.root)?;
        Ok(serde_json::to_value(file)?)
    }

    fn shown(&self, report: &Value) -> Option<String> {
        Some(rows::word(&report["name"]) + "\n")
    }
}

fn main() -> ExitCode {
    toolkit::report::<NetworkCreate>()
}

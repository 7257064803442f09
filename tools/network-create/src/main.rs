//! Makes a named network.
//!
//! # Does
//! Chooses a subnet, and writes `$STAVE_ROOT/networks/NAME.json`. `bridge-attach NAME` makes the bridge with
//! the first container. With `--driver macvlan` or `ipvlan`, the network is the wire of a link of the host, and
//! `macvlan-attach NAME` or `ipvlan-attach NAME` attaches containers. The file has podman's form. A file of podman's or a CNI `NAME.conflist` in this
//! directory is a network as well.
//! # Reads
//! No document. Reads the files of other networks.
//! # Adds
//! Nothing; prints the network.
//! # Undoes
//! Nothing. `network-rm NAME` removes the network.
//! # Needs
//! Write access to `$STAVE_ROOT`.

mod bridge;
mod options;
mod parent;

use std::{net::IpAddr, process::ExitCode};

use attachment::{
    Gateway,
    named::{self, File, Kind, Named},
};
use clap::Parser;
use document::{members::GatewayMode, record::Lock};
use ipnet::{IpNet, Ipv6Net};
use serde_json::Value;
use toolkit::{prelude::*, rows};

/// Make a named network
#[derive(Parser)]
#[command(name = "network-create", version)]
struct NetworkCreate {
    /// The network's name
    #[arg(value_name = "NAME", value_parser = named::parse_new_network)]
    name: String,
    /// How the containers are connected: by a bridge, or each by a macvlan or ipvlan on a link of the host
    #[arg(short, long, value_name = "DRIVER", default_value = "bridge", value_parser = ["bridge", "macvlan", "ipvlan"])]
    driver: String,
    /// mtu=BYTES, metric=NUMBER or no_default_route=true; of a macvlan or ipvlan also parent=LINK, by default that of
    /// the default route, and mode=MODE; of a bridge also isolate=true, and Docker's options com.docker.network.*;
    /// repeatable
    #[arg(short, long = "opt", value_name = "KEY=VALUE", value_parser = toolkit::pair)]
    options: Vec<(String, String)>,
    /// The name of the bridge; by default the network's name, if it is valid for an interface
    #[arg(long, value_name = "NAME", value_parser = attachment::parse_name)]
    bridge: Option<String>,
    /// With `false`, the network has IPv6 only
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    ipv4: bool,
    /// The subnet; by default the first of 172.17.0.0/16, 172.18.0.0/16 and so on that no interface, route or other
    /// network uses. Repeatable: containers have an address of each
    #[arg(long = "subnet", value_name = "CIDR", value_parser = attachment::parse_any_subnet)]
    subnets: Vec<IpNet>,
    /// Lease only addresses of this part of the subnet; one for each subnet
    #[arg(long = "ip-range", value_name = "CIDR", value_parser = attachment::parse_any_range)]
    ranges: Vec<IpNet>,
    /// The bridge's address, the gateway of the containers; by default the subnet's first; one for each
    /// subnet. For a macvlan or ipvlan, the router on the host's network. "none": no gateway
    #[arg(long = "gateway", value_name = "ADDRESS|none")]
    gateways: Vec<Gateway>,
    /// Who gives out the addresses: Stave ("default" or "host-local"), or for a macvlan or ipvlan nobody ("none"
    /// or "null")
    #[arg(long, value_name = "WHO", default_value = "default", value_parser = ["default", "host-local", "none", "null"])]
    ipam_driver: String,
    /// Add IPv6, with a random unique local subnet (fd00::/8)
    #[arg(long)]
    ipv6: bool,
    /// The IPv6 subnet; --subnet accepts it as well
    #[arg(long, value_name = "CIDR", value_parser = attachment::parse_subnet6)]
    subnet6: Option<Ipv6Net>,
    /// Lease only addresses of this part of the IPv6 subnet; --ip-range accepts it as well
    #[arg(long, value_name = "CIDR", value_parser = attachment::parse_range6)]
    ip6_range: Option<Ipv6Net>,
    /// How containers are reached: `nat`, by ports of the host, or `routed`, at their own addresses
    #[arg(long, value_name = "MODE", default_value = "nat", value_parser = toolkit::one_of::<GatewayMode>(GatewayMode::NAMES))]
    gateway_mode: GatewayMode,
    /// Answer on this link of the host for the containers' IPv6 addresses (NDP proxy); needs a routed network
    #[arg(long, value_name = "LINK", value_parser = attachment::parse_name)]
    ndp_proxy: Option<String>,
    /// Let nothing out of the network or into it; containers reach each other and this host
    #[arg(long)]
    internal: bool,
    /// With `false`, containers do not reach each other, except by published ports
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    icc: bool,
    /// The MTU of the interfaces in bytes; by default that of the route out
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(attachment::MTU))]
    mtu: Option<u32>,
    /// Join the network to the same one on other hosts by the VXLAN with this number; see net-peers
    #[arg(long, value_name = "NUMBER", requires = "vxlan_local", value_parser = clap::value_parser!(u32).range(1..1 << 24))]
    vxlan: Option<u32>,
    /// The address of this host for the other hosts
    #[arg(long, value_name = "ADDRESS", requires = "vxlan")]
    vxlan_local: Option<IpAddr>,
    /// The UDP port of the VXLAN; by default 4789
    #[arg(long, value_name = "PORT", requires = "vxlan", value_parser = clap::value_parser!(u16).range(1..))]
    vxlan_port: Option<u16>,
    /// Add a label KEY=VALUE; repeatable
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<String>,
    #[command(flatten)]
    common: Common,
}

impl NetworkCreate {
    /// The network, on subnets that no other network uses.
    fn file(&self, context: &toolkit::Context) -> Result<File> {
        let root = &context.scope.root;
        let bridge = self.bridge()?;
        let mut others = Vec::new();
        for name in Named::list(root)? {
            // A file that cannot be used is reported when it is used.
            let Ok(Some(other)) = Named::find(root, &name) else { continue };
            if other.name == self.name {
                bail!("network {:?} exists: {:?}", self.name, other.path);
            }
            if matches!(other.network, Kind::Bridge(_)) && other.link() == bridge && self.driver == "bridge" {
                let error = anyhow!("bridge {bridge:?} is that of network {:?}", other.name);
                return Err(hint(error, "choose another with --bridge"));
            }
            others.push(other);
        }
        let mut file = match self.driver.as_str() {
            "bridge" => self.on_bridge(&bridge, &others)?,
            _ => self.on_parent(&others)?,
        };
        for label in &self.labels {
            let (key, value) = label.split_once('=').unwrap_or((label, ""));
            file.labels.insert(key.to_owned(), value.to_owned());
        }
        file.id = operation::random_name()?;
        file.refuse_unusable()?;
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

pub(crate) fn main() -> ExitCode {
    toolkit::report::<NetworkCreate>()
}

//! Why a container cannot be attached, with a hint for the user.

use std::{net::IpAddr, path::PathBuf};

use ipnet::IpNet;
use operation::Error;

/// A requested property that does not fit the existing state.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // The texts say it.
pub(crate) enum Unfit {
    #[error("create network namespace {0:?}: File exists")]
    NamespaceExists(PathBuf),
    #[error("bridge {bridge:?} has gateway mode {standing}, not {wanted}")]
    OtherMode { bridge: String, standing: &'static str, wanted: &'static str },
    #[error("bridge {bridge:?} {standing}")]
    OtherKind { bridge: String, standing: &'static str, flag: &'static str },
    #[error("range {range} is not in subnet {subnet}")]
    RangeOutside { range: IpNet, subnet: IpNet },
    #[error("range {range} of subnet {subnet} has no address for a container")]
    NoRoom { range: IpNet, subnet: IpNet },
    #[error("bridge {bridge:?} has address {address}, outside of subnet {subnet}")]
    OtherAddress { bridge: String, address: IpNet, subnet: IpNet },
    #[error("bridge {bridge:?} has no address in subnet {subnet}")]
    FurtherSubnet { bridge: String, subnet: IpNet },
    #[error("subnet {subnet} overlaps {special}, which is reserved")]
    Special { subnet: IpNet, special: IpNet },
    #[error("bridge {bridge:?} has address {standing}, not {wanted}")]
    OtherGateway { bridge: String, standing: IpAddr, wanted: IpAddr },
    #[error("all subnets to choose from, 172.17.0.0/16 to 192.168.240.0/20, are in use")]
    NoSubnet,
    #[error("subnet {subnet} collides with {what}")]
    Collision { subnet: IpNet, what: String },
    #[error("interface {0:?} is not a bridge")]
    NoBridge(String),
    #[error("bridge {0:?} is down")]
    Down(String),
    #[error("no bridge {0:?}")]
    BridgeGone(String),
    #[error("address {address} is not in subnet {subnet}")]
    AddressOutside { address: IpAddr, subnet: IpNet },
    #[error("address {address} of subnet {subnet} is not one of a container")]
    NotOfAHost { address: IpAddr, subnet: IpNet },
    #[error("address {address} is taken by {by}")]
    AddressTaken { address: IpAddr, by: String },
    #[error("next hop {gateway} of route {destination} is not in subnet {subnet}")]
    FarGateway { gateway: IpAddr, destination: IpNet, subnet: IpNet },
    #[error("interface {interface:?} is taken by network {by:?}")]
    InterfaceTaken { interface: String, by: String },
    #[error("{0} is no address of this host")]
    NotOfThisHost(IpAddr),
    #[error("address {address} is for another host: this one has {range}")]
    OtherHosts { address: IpAddr, range: IpNet },
    #[error("no interface {0:?}")]
    NoLink(String),
    #[error("only a routed network with IPv6 has addresses to answer for (--ndp-proxy)")]
    NothingToProxy,
    #[error("bridge {0:?} does not lead to other hosts")]
    NoVxlan(String),
    #[error("bridge {0:?} leads to other hosts")]
    HasVxlan(String),
    #[error("bridge {0:?} has no IPv6")]
    NoIpv6(String),
    #[error("bridge {bridge:?} has address {address}, and no gateway is wanted")]
    HasGateway { bridge: String, address: IpNet },
    #[error("bridge {0:?} has no gateway")]
    NoGateway(String),
    #[error("bridge {0:?} has no address that gives its subnet")]
    UnknownSubnet(String),
    #[error("route {0} has no next hop: the network has no gateway")]
    NoNextHop(IpNet),
    #[error("link {0:?} has no IPv4 address that gives its subnet")]
    NoSubnetOfParent(String),
    #[error("there is no default route that gives the parent")]
    NoParent,
    #[error("link {0:?}, which would carry VLAN {1}, is down")]
    CarrierDown(String, u16),
    #[error("network namespace {0:?} is this host's own")]
    OwnNamespace(PathBuf),
    #[error("address {0} is wanted twice")]
    TwiceWanted(IpAddr),
    #[error("bridge {0:?} is Stave's own: this host is its gateway")]
    Managed(String),
    #[error("link {0:?} is not connected to a network")]
    NoWire(String),
    #[error("link {link:?} is a port of {master:?}")]
    Port { link: String, master: String },
    #[error("link {name:?} is not VLAN {id} on {parent:?}")]
    OtherVlan { name: String, id: u16, parent: String },
    #[error("a {0} has the hardware address of its parent")]
    ParentsMac(String),
    #[error("the MTU {0} is too small for IPv6, which needs 1280 bytes")]
    SmallMtu(u32),
    #[error("the MTU {mtu} is larger than that of link {parent:?}, {most}")]
    LargeMtu { mtu: u32, parent: String, most: u32 },
    #[error("the network has no IPv6 subnet")]
    NoSubnet6,
    #[error("the network's containers get no address")]
    NoAddresses,
    #[error("the network has no IPv4")]
    NoIpv4,
    #[error("the container is on {0} already")]
    Twice(String),
    #[error("the default route by {0:?} comes before every --gateway-priority")]
    NoPriority(String),
    #[error("an internal network has no way out for --gateway-priority")]
    InternalPriority,
    #[error("a network without a gateway has no way out for --gateway-priority")]
    NoWayOut,
}

impl Unfit {
    /// What the user can do. None if the message says it.
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NamespaceExists(path) => {
                let id = path.file_name().unwrap_or_default().to_string_lossy();
                format!("unwind {id}, or choose another --id")
            }
            Self::OtherMode { standing, .. } => {
                format!("use it with --gateway-mode {standing}, or another --bridge")
            }
            Self::OtherKind { flag, .. } => format!("use it {flag}, or another bridge"),
            Self::OtherAddress { address, .. } => {
                format!("use it with --subnet {}, or another --bridge", address.trunc())
            }
            Self::OtherGateway { standing, .. } => {
                format!("use it with --gateway {standing}, or another bridge")
            }
            Self::Down(name) => format!("ip link set {name} up"),
            Self::CarrierDown(name, _) => format!("ip link set {name} up"),
            Self::Port { master, .. } => format!("use --parent {master}"),
            Self::LargeMtu { most, .. } => format!("use --mtu {most}, or less"),
            other => other.advice()?.to_owned(),
        })
    }

    /// The hint, if it is always the same.
    fn advice(&self) -> Option<&'static str> {
        Some(match self {
            Self::RangeOutside { .. } => "choose a part of the subnet",
            Self::NoSubnet => "choose one with --subnet",
            Self::Collision { .. } | Self::Special { .. } => "choose another with --subnet",
            Self::BridgeGone(_) => "make it again with netns-bridge --repair",
            Self::AddressTaken { .. } => "choose another with --ip, or leave it out",
            Self::InterfaceTaken { .. } => "choose another with --interface, or leave it out",
            Self::NotOfThisHost(_) => {
                "the network's file says by which address other hosts reach this one"
            }
            Self::OtherHosts { .. } => "choose another with --ip, or leave it out",
            Self::NothingToProxy => "add --gateway-mode routed and --subnet6",
            Self::FurtherSubnet { .. } | Self::NoVxlan(_) => "unwind the containers that are on it, or use another bridge",
            Self::HasVxlan(_) => "name its network instead of the bridge",
            Self::NoIpv6(_) => "bridge-attach --ipv6 makes a bridge that has it",
            Self::NoPriority(_) => {
                "use netns-add and bridge-attach instead of netns-bridge and veth-pair"
            }
            Self::HasGateway { .. } => "use it without --gateway none, or another bridge",
            Self::NoGateway(_) => "use it with --gateway none, or another bridge",
            Self::UnknownSubnet(_) | Self::NoSubnetOfParent(_) => {
                "give it with --subnet, or --subnet6 without IPv4"
            }
            Self::NoNextHop(_) => "write \"via ADDRESS\" after it",
            Self::NoParent => "choose one with --parent",
            Self::OwnNamespace(_) => "netns-add makes one for the container",
            Self::Managed(_) => "use it without --unmanaged, or another bridge",
            Self::ParentsMac(_) => "leave out --mac-address",
            Self::SmallMtu(_) => "use --mtu 1280 or more, or a network without IPv6",
            Self::NoSubnet6 => "add --subnet6",
            Self::NoRoom { .. }
            | Self::NoWire(_)
            | Self::OtherVlan { .. }
            | Self::NoWayOut
            | Self::NoAddresses
            | Self::NoIpv4
            | Self::NoBridge(_)
            | Self::NoLink(_)
            | Self::TwiceWanted(_)
            | Self::AddressOutside { .. }
            | Self::NotOfAHost { .. }
            | Self::FarGateway { .. }
            | Self::Twice(_)
            | Self::InternalPriority
            // Their hints name what is there.
            | Self::NamespaceExists(..)
            | Self::OtherMode { .. }
            | Self::OtherKind { .. }
            | Self::OtherAddress { .. }
            | Self::OtherGateway { .. }
            | Self::Down(..)
            | Self::CarrierDown(..)
            | Self::Port { .. }
            | Self::LargeMtu { .. } => return None,
        })
    }
}

impl From<Unfit> for Error {
    fn from(unfit: Unfit) -> Self {
        let hint = unfit.hint();
        let error = Self::caused_by(unfit);
        match hint {
            Some(hint) => error.with_hint(hint),
            None => error,
        }
    }
}

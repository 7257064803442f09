//! The pair that is to be made: its operations, and what is told of it.

use document::members;
use ipnet::{IpNet, Ipv4Net};
use netlink::{Link, LinkOperation, Mac, Mark, PROTOCOL, Peer};

use crate::INTERFACE;

/// The pair that is to be made.
pub(crate) struct Pair {
    /// The name and the hardware address of the side that stays here.
    pub(crate) here: (String, Mac),
    /// The hardware address of the other side.
    pub(crate) inside: Mac,
    pub(crate) mtu: u32,
    pub(crate) address: IpNet,
    pub(crate) mark: Mark,
    /// Whether the bridge is ours: then its ports guard the host's loopback.
    pub(crate) guards: bool,
}

impl Pair {
    /// What makes it.
    pub(crate) fn operations(&self, network: &members::Network) -> impl Iterator<Item = LinkOperation> {
        let (name, mac) = self.here.clone();
        let there = self.inside;
        let (link, namespace) = (INTERFACE.to_owned(), Some(network.namespace.clone()));
        let bridge = network.bridge.name.clone();
        let guard = self.guards.then(|| LinkOperation::GuardLoopback { link: name.clone(), mac, bridge });
        let outside = [
            LinkOperation::VethAdd {
                name: name.clone(),
                mac,
                master: network.bridge.name.clone(),
                mtu: self.mtu,
                peer: Peer { name: link.clone(), mac: there, namespace: network.namespace.clone() },
                mark: Some(self.mark.clone()),
            },
            LinkOperation::Ipv6Off { link: name.clone(), mac },
            LinkOperation::Hairpin { link: name.clone(), mac },
        ];
        let inside = [
            LinkOperation::LinkUp { namespace: None, link: name, mac },
            LinkOperation::LinkUp { namespace: namespace.clone(), link: link.clone(), mac: there },
            LinkOperation::AddressAdd {
                namespace: namespace.clone(),
                link: link.clone(),
                mac: Some(there),
                address: self.address,
                protocol: Some(PROTOCOL),
            },
            LinkOperation::RouteAdd {
                namespace,
                destination: IpNet::from(Ipv4Net::default()),
                gateway: network.bridge.gateway,
                link,
                mac: there,
                protocol: Some(PROTOCOL),
            },
        ];
        outside.into_iter().chain(guard).chain(inside)
    }

    /// The CNI result (CNI SPEC.md, "ADD Success").
    pub(crate) fn result(&self, network: &members::Network, bridge: &Link) -> members::CniResult {
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

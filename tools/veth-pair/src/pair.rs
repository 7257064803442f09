//! The pair that is to be made: its operations, and what is told of it.

use std::path::Path;

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
    pub(crate) fn operations(
        &self,
        namespace: &Path,
        on: &members::Bridge,
    ) -> impl Iterator<Item = LinkOperation> {
        let (name, mac) = self.here.clone();
        let there = self.inside;
        let (link, inside) = (INTERFACE.to_owned(), Some(namespace.to_owned()));
        let bridge = on.name.clone();
        let guard = self.guards.then(|| LinkOperation::GuardLoopback { link: name.clone(), mac, bridge });
        let outside = [
            LinkOperation::VethAdd {
                name: name.clone(),
                mac,
                master: on.name.clone(),
                mtu: self.mtu,
                peer: Peer { name: link.clone(), mac: there, namespace: namespace.to_owned() },
                mark: Some(self.mark.clone()),
            },
            LinkOperation::Ipv6Off { link: name.clone(), mac },
            LinkOperation::Hairpin { link: name.clone(), mac },
        ];
        let made = [
            LinkOperation::LinkUp { namespace: None, link: name, mac },
            LinkOperation::LinkUp { namespace: inside.clone(), link: link.clone(), mac: there },
            LinkOperation::AddressAdd {
                namespace: inside.clone(),
                link: link.clone(),
                mac: Some(there),
                address: self.address,
                protocol: Some(PROTOCOL),
            },
            LinkOperation::RouteAdd {
                namespace: inside,
                destination: IpNet::from(Ipv4Net::default()),
                gateway: on.gateway,
                link,
                mac: there,
                protocol: Some(PROTOCOL),
            },
        ];
        outside.into_iter().chain(guard).chain(made)
    }

    /// The CNI result (CNI SPEC.md, "ADD Success").
    pub(crate) fn result(&self, namespace: &Path, on: &members::Bridge, bridge: &Link) -> members::CniResult {
        let interface = |name: &str, mac: Option<Mac>, sandbox| members::CniInterface {
            name: name.to_owned(),
            mac: mac.map(|mac| mac.to_string()),
            mtu: Some(self.mtu),
            sandbox,
        };
        let gateway = Some(on.gateway);
        let sandbox = Some(namespace.to_string_lossy().into_owned());
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

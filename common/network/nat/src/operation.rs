use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netlink::{
    Connection, Error, NLM_F_CREATE, NLM_F_EXCL, errno_of,
    netfilter::{self, Kind, Netfilter},
};
use nix::errno::Errno;
use operation::{Condition, Scope, words};
use serde::{Deserialize, Serialize};

use crate::{
    Mapping, Mode, OpenPort, Protocol, TABLE,
    adopt::adopt,
    conntrack, mapping,
    reconcile::{Standing, commit, missing, of_element, surplus, transact},
    ruleset::Element,
    table::{self, Closed},
    user,
    user::User,
};

/// A change to the table `inet stave`; each one is a single transaction of nf_tables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all_fields = "camelCase")]
pub enum NatOperation {
    /// Makes sure that the table exists and contains this bridge: masquerade for its subnet. Undo removes the bridge's
    /// elements, and with the last bridge the table.
    #[serde(rename = "nat-bridge")]
    Bridge {
        /// The bridge.
        bridge: String,
        /// Its subnet.
        subnet: Ipv4Net,
        /// Its subnet of IPv6.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        subnet6: Option<Ipv6Net>,
        /// The container that claims it. None where the claims are below the run directory alone, as an earlier version had
        /// them.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        user: Option<User>,
        /// Whether the host forwarded nothing before: then it forwards for nobody but our bridges, as long as one stands.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        closed: bool,
        /// The same of IPv6.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        closed6: bool,
        /// How its containers are reached.
        #[serde(flatten)]
        mode: Mode,
    },
    /// Claims an address for a container, for all run directories.
    #[serde(rename = "nat-address")]
    Address {
        /// The address.
        address: IpAddr,
        /// The container's id.
        holder: String,
        /// The id of a container that is gone and whose address is taken over.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        instead_of: Option<String>,
    },
    /// Publishes ports: elements of the maps, marked with the container's id.
    #[serde(rename = "nat-publish")]
    Publish {
        /// The container's id.
        holder: String,
        /// The ports.
        mappings: Vec<Mapping>,
    },
    /// Opens ports of a container on its own address: elements of a set, marked with the container's id.
    #[serde(rename = "nat-open")]
    Open {
        /// The container's id.
        holder: String,
        /// The ports.
        ports: Vec<OpenPort>,
    },
}

/// `nft add KIND inet stave NAME '{ … }'`.
fn nft_add(kind: &str, name: &str, inside: &str) -> String {
    words(["nft", "add", kind, "inet", TABLE, name, &format!("{{ {inside} }}")])
}

fn explain_table(closed: Closed) -> Vec<String> {
    let mut lines = vec![words(["nft", "add", "table", "inet", TABLE])];
    lines.extend(table::SETS.map(|set| nft_add(set.kind(), set.name, &set.to_string())));
    lines.extend(table::CHAINS.iter().map(|chain| nft_add("chain", chain.name, &chain.to_string())));
    lines.extend(
        table::rules(closed)
            .iter()
            .map(|rule| words(["nft", "add", "rule", "inet", TABLE, rule.chain, &rule.to_string()])),
    );
    lines
}

fn explain_element(element: &Element) -> String {
    nft_add("element", element.set, &element.to_string())
}

/// The subnets of a bridge.
fn subnets(subnet: Ipv4Net, subnet6: Option<Ipv6Net>) -> Vec<IpNet> {
    [IpNet::from(subnet)].into_iter().chain(subnet6.map(IpNet::from)).collect()
}

impl NatOperation {
    /// Whether the host forwarded nothing before.
    pub(crate) fn closed(&self) -> Closed {
        match self {
            Self::Bridge { closed, closed6, .. } => Closed { v4: *closed, v6: *closed6 },
            _ => Closed::default(),
        }
    }

    /// What it adds to the sets and maps.
    pub(crate) fn elements(&self) -> Vec<Element> {
        match self {
            Self::Bridge { bridge, subnet, subnet6, user, mode, .. } => {
                let claim = user.iter().map(|user| user.element(bridge));
                table::bridge_elements(bridge, &subnets(*subnet, *subnet6), *mode)
                    .into_iter()
                    .chain(claim)
                    .collect()
            }
            Self::Address { address, holder, .. } => vec![table::address_element(*address, holder)],
            Self::Publish { holder, mappings } => {
                mappings.iter().map(|mapping| table::mapping_element(mapping, holder)).collect()
            }
            Self::Open { holder, ports } => {
                ports.iter().map(|port| table::open_element(port, holder)).collect()
            }
        }
    }
}

impl operation::Operation for NatOperation {
    fn explain(&self) -> Vec<String> {
        match self {
            Self::Bridge { .. } => {
                let elements = self.elements();
                explain_table(self.closed()).into_iter().chain(elements.iter().map(explain_element)).collect()
            }
            Self::Address { .. } | Self::Open { .. } => self.elements().iter().map(explain_element).collect(),
            Self::Publish { mappings, .. } => {
                let elements = self.elements();
                let forget =
                    mappings.iter().filter(|mapping| mapping.protocol == Protocol::Udp).map(|mapping| {
                        let forget = |port: &str| format!("conntrack -D -p udp --orig-port-dst {port}");
                        match (mapping.host_port, mapping.last()) {
                            (first, last) if first == last => forget(&first.to_string()),
                            (first, last) => {
                                format!("for port in $(seq {first} {last}); do {}; done", forget("$port"))
                            }
                        }
                    });
                elements.iter().map(explain_element).chain(forget).collect()
            }
        }
    }

    fn apply(&mut self, scope: &Scope) -> Result<(), operation::Error> {
        let closed = self.closed();
        let made = match self {
            Self::Bridge { bridge, subnet, subnet6, user, mode, .. } => {
                let subnets = subnets(*subnet, *subnet6);
                let standing = Standing { bridge, subnets: &subnets, user: user.as_ref(), mode: *mode };
                transact("add", |socket| missing(socket, standing, closed))
            }
            Self::Address { address, holder, instead_of } => {
                user::claim_address(*address, holder, instead_of.as_deref())
            }
            Self::Publish { holder, mappings } => publish(holder, mappings),
            Self::Open { .. } => transact("add", |socket| {
                let mut changes = Vec::new();
                for element in self.elements() {
                    if !mapping::look_up(socket, &element)?.is_some_and(|standing| standing.is(&element)) {
                        changes.push(of_element(Kind::NewElement, NLM_F_CREATE | NLM_F_EXCL, &element));
                    }
                }
                Ok(changes)
            }),
        };
        // Without a claim in the table it is not known whether another container needs what stands there.
        let is_claimed = !matches!(self, Self::Bridge { user: None, .. });
        if made.is_err() && netfilter::is_in_doubt() && is_claimed {
            // The kernel may have done it all the same. The error that counts is the first.
            let _ = self.undo(scope);
        }
        Ok(made?)
    }

    fn undo(&self, scope: &Scope) -> Result<(), operation::Error> {
        match self {
            Self::Bridge { bridge, subnet, subnet6, user, mode, .. } => {
                let shared = match user {
                    Some(User { claims, holder, .. }) => {
                        scope.contain(claims)?;
                        let failed =
                            |source| Error::new("list", format!("claims {claims:?}"), errno_of(&source));
                        operation::holds_another(claims, holder).map_err(failed)?
                    }
                    None => false,
                };
                let of_others = match subnet6 {
                    Some(_) => {
                        Connection::open(None)?.link(bridge)?.is_some_and(|link| !link.is_our_bridge())
                    }
                    None => false,
                };
                Ok(transact("remove", |socket| {
                    let subnets = subnets(*subnet, *subnet6);
                    let standing = Standing { bridge, subnets: &subnets, user: user.as_ref(), mode: *mode };
                    surplus(socket, standing, shared, of_others)
                })?)
            }
            Self::Address { address, holder, .. } => Ok(user::release_address(*address, holder)?),
            Self::Publish { mappings, .. } => Ok(withdraw(&self.elements(), mappings)?),
            // Its address is not used again soon: connections to it need not be forgotten.
            Self::Open { .. } => Ok(withdraw(&self.elements(), &[])?),
        }
    }

    fn check(&self, _: &Scope) -> Result<Condition, operation::Error> {
        let failed = |source| Error::new("look for", format!("table inet {TABLE}"), source);
        let socket = Netfilter::of_this_thread().map_err(failed)?;
        match self {
            Self::Bridge { bridge, subnet, subnet6, user, mode, .. } => {
                let subnets = subnets(*subnet, *subnet6);
                let standing = Standing { bridge, subnets: &subnets, user: user.as_ref(), mode: *mode };
                match missing(&socket, standing, self.closed()) {
                    Ok(changes) => Ok(changes
                        .into_iter()
                        .next()
                        .map_or(Condition::Present, |change| Condition::Missing(change.object))),
                    Err(refusal) if refusal.errno == Errno::EEXIST => Ok(Condition::Different(format!(
                        "table inet {TABLE} is not as this version makes it"
                    ))),
                    Err(refusal) => Err(failed(refusal).into()),
                }
            }
            Self::Address { .. } | Self::Publish { .. } | Self::Open { .. } => {
                for element in self.elements() {
                    let object = format!("element {} {{ {element} }} of table inet {TABLE}", element.set);
                    match mapping::look_up(&socket, &element).map_err(failed)? {
                        Some(standing) if standing.is(&element) => {}
                        Some(_) => return Ok(Condition::Different(object)),
                        None => return Ok(Condition::Missing(object)),
                    }
                }
                Ok(Condition::Present)
            }
        }
    }
}

fn publish(holder: &str, mappings: &[Mapping]) -> Result<(), Error> {
    let failed = |source| Error::new("add", format!("elements of table inet {TABLE}"), source);
    adopt().map_err(failed)?;
    let socket = Netfilter::of_this_thread().map_err(failed)?;
    let add = |mapping| {
        let element = table::mapping_element(mapping, holder);
        of_element(Kind::NewElement, NLM_F_CREATE | NLM_F_EXCL, &element)
    };
    // The kernel compares keys of one map. The same port may be in another: in a run, or at one address.
    if let Some((mapping, _)) = mapping::taken_but_by(Some(holder), mappings, &mapping::runs()?)? {
        return Err(Error::new("add", add(mapping).object, Errno::EEXIST));
    }
    let changes: Vec<_> = mappings.iter().map(add).collect();
    match commit(&socket, None, &changes) {
        // Some of them may be ours: if a part was lost, it is made again.
        Err((_, refusal)) if refusal.errno == Errno::EEXIST => publish_rest(&socket, holder, mappings)?,
        Err((object, refusal)) => return Err(Error::new("add", object, refusal)),
        Ok(()) => {}
    }
    mappings
        .iter()
        .try_for_each(|mapping| conntrack::forget_before(&socket, mapping))
        .map_err(|source| Error::new("forget", "connections to the published ports", source))
}

/// Adds the missing ones.
fn publish_rest(socket: &Netfilter, holder: &str, mappings: &[Mapping]) -> Result<(), Error> {
    let mut changes = Vec::new();
    for mapping in mappings {
        let element = table::mapping_element(mapping, holder);
        let change = of_element(Kind::NewElement, NLM_F_CREATE | NLM_F_EXCL, &element);
        let standing = mapping::look_up(socket, &element);
        match standing.map_err(|source| Error::new("look for", change.object.clone(), source))? {
            Some(standing) if standing.is(&element) => {}
            _ => changes.push(change),
        }
    }
    commit(socket, None, &changes).map_err(|(object, refusal)| Error::new("add", object, refusal))
}

/// Removes the elements, and what the kernel remembers of connections to the ports.
fn withdraw(elements: &[Element], mappings: &[Mapping]) -> Result<(), Error> {
    transact("remove", |socket| {
        let mut changes = Vec::new();
        for element in elements {
            // Elements of others with the same key stay.
            if mapping::look_up(socket, element)?.is_some_and(|standing| standing.is(element)) {
                changes.push(of_element(Kind::DelElement, 0, element));
            }
        }
        Ok(changes)
    })?;
    let failed = |source| Error::new("forget", "connections to the published ports", source);
    let socket = Netfilter::of_this_thread().map_err(failed)?;
    mappings.iter().try_for_each(|mapping| conntrack::forget_after(&socket, mapping)).map_err(failed)
}

use std::{collections::HashMap, net::IpAddr, path::PathBuf};

use ipnet::{IpNet, Ipv6Net};
use netlink::{
    Connection, Error, NLM_F_CREATE, NLM_F_EXCL, Refusal, errno_of,
    expression::octets,
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

/// A change to the table `inet stave`. Each change is one nf_tables transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all_fields = "camelCase")]
pub enum NatOperation {
    /// Makes sure that the table exists and contains this bridge, and masquerades its subnet. Undo
    /// removes the bridge's elements. With the last bridge, it removes the table.
    #[serde(rename = "nat-bridge")]
    Bridge {
        /// The bridge.
        bridge: String,
        /// The IPv4 subnet. Of a network without IPv4, the IPv6 subnet.
        subnet: IpNet,
        /// The IPv6 subnet beside an IPv4 subnet.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        subnet6: Option<Ipv6Net>,
        /// The container that claims the bridge. None for an earlier version, whose claims are only
        /// below the run directory.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        user: Option<User>,
        /// Whether the host did not forward IPv4 before. Then it forwards for our bridges only, as
        /// long as one exists.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        closed: bool,
        /// Like `closed`, for IPv6.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        closed6: bool,
        /// How the containers on the bridge can be reached.
        #[serde(flatten)]
        mode: Mode,
    },
    /// Claims an address for a container. The claim holds for all run directories of the host.
    #[serde(rename = "nat-address")]
    Address {
        /// The address.
        address: IpAddr,
        /// The container's id.
        holder: String,
        /// The id of the former container whose address is taken over.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        instead_of: Option<String>,
    },
    /// Publishes ports: adds map elements marked with the container's id.
    #[serde(rename = "nat-publish")]
    Publish {
        /// The container's id.
        holder: String,
        /// The ports.
        mappings: Vec<Mapping>,
    },
    /// Opens ports on the container's own address: adds set elements marked with the container's
    /// id.
    #[serde(rename = "nat-open")]
    Open {
        /// The container's id.
        holder: String,
        /// The ports.
        ports: Vec<OpenPort>,
    },
    /// Opens another container's ports for a container, on a bridge that isolates its containers.
    /// The operation does nothing when one of the two has another address by now, or when nobody
    /// claims the link. Undo leaves the elements: they are removed with either container's address,
    /// or by undo of [`NatOperation::Links`].
    #[serde(rename = "nat-link")]
    Link {
        /// The id of the container that has the link.
        holder: String,
        /// Its address.
        from: IpAddr,
        /// The id of the other container.
        to: String,
        /// The ports, with the other container's address.
        ports: Vec<OpenPort>,
        /// The directory of the claims on the link. Each link that the container has to the other
        /// one claims it. None for an earlier version, which has no such claims. Then undo removes
        /// the elements.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        while_claimed: Option<PathBuf>,
    },
    /// All links that a container has to another one. Undo closes them, whichever operation opened
    /// them, at the addresses that the two have by then. Behind a claim on the link
    /// ([`operation::Shared`]), that is the undo of the last link.
    #[serde(rename = "nat-links")]
    Links {
        /// The id of the container that has the links.
        id: String,
        /// The id of the other container.
        to: String,
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
fn subnets(subnet: IpNet, subnet6: Option<Ipv6Net>) -> Vec<IpNet> {
    [subnet].into_iter().chain(subnet6.map(IpNet::from)).collect()
}

impl NatOperation {
    /// Which IP versions the host did not forward before.
    pub(crate) fn closed(&self) -> Closed {
        match self {
            Self::Bridge { closed, closed6, .. } => Closed { v4: *closed, v6: *closed6 },
            _ => Closed::default(),
        }
    }

    /// The containers of a link, each with the address that the link is about.
    pub(crate) fn linked(&self) -> impl Iterator<Item = (IpAddr, &str)> {
        let both = match self {
            Self::Link { holder, from, to, ports, .. } => {
                ports.first().map(|port| [(*from, holder.as_str()), (port.container_ip, to.as_str())])
            }
            _ => None,
        };
        both.into_iter().flatten()
    }

    /// Whether the operation may have an effect: it is no link, or somebody claims the link.
    pub(crate) fn is_claimed(&self) -> Result<bool, Refusal> {
        match self {
            Self::Link { while_claimed: Some(claims), .. } => {
                Ok(operation::holds_another(claims, "").map_err(|source| errno_of(&source))?)
            }
            _ => Ok(true),
        }
    }

    /// Whether it is a link that nobody claims, or between containers of which one has another
    /// address by now.
    fn is_over(&self, socket: &Netfilter) -> Result<bool, Refusal> {
        if !self.is_claimed()? {
            return Ok(true);
        }
        for (address, id) in self.linked() {
            let standing = mapping::look_up(socket, &table::address_element(address, id))?;
            if standing.and_then(|standing| standing.comment).as_deref() != Some(id) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The elements that the operation adds.
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
            Self::Link { from, ports, .. } => {
                ports.iter().map(|port| table::linked_element(*from, port)).collect()
            }
            Self::Links { .. } => Vec::new(),
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
            Self::Address { .. } | Self::Open { .. } | Self::Link { .. } | Self::Links { .. } => {
                self.elements().iter().map(explain_element).collect()
            }
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
            Self::Links { .. } => Ok(()),
            Self::Open { .. } | Self::Link { .. } => transact("add", |socket| {
                let mut changes = Vec::new();
                if self.is_over(socket)? {
                    return Ok(changes);
                }
                for element in self.elements() {
                    if !mapping::look_up(socket, &element)?.is_some_and(|standing| standing.is(&element)) {
                        changes.push(of_element(Kind::NewElement, NLM_F_CREATE | NLM_F_EXCL, &element));
                    }
                }
                Ok(changes)
            }),
        };
        // Without a claim in the table, it is unknown whether another container needs the elements.
        let is_claimed = !matches!(self, Self::Bridge { user: None, .. });
        if made.is_err() && netfilter::is_in_doubt() && is_claimed {
            // The kernel may have carried the change out. The first error is the one to report.
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
                let subnets = subnets(*subnet, *subnet6);
                let has_ipv6 = subnets.iter().any(|subnet| subnet.addr().is_ipv6());
                let of_others = has_ipv6
                    && Connection::open(None)?.link(bridge)?.is_some_and(|link| !link.is_our_bridge());
                Ok(transact("remove", |socket| {
                    let standing = Standing { bridge, subnets: &subnets, user: user.as_ref(), mode: *mode };
                    surplus(socket, standing, shared, of_others)
                })?)
            }
            Self::Address { address, holder, .. } => Ok(user::release_address(*address, holder)?),
            Self::Publish { mappings, .. } => Ok(withdraw(&self.elements(), mappings)?),
            Self::Links { id, to } => Ok(close(id, to)?),
            Self::Link { while_claimed: Some(_), .. } => Ok(()),
            // The container's address is not reused soon, so its connections need not be removed.
            Self::Open { .. } | Self::Link { .. } => Ok(withdraw(&self.elements(), &[])?),
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
            Self::Address { .. }
            | Self::Publish { .. }
            | Self::Open { .. }
            | Self::Link { .. }
            | Self::Links { .. } => {
                if self.is_over(&socket).map_err(failed)? {
                    return Ok(Condition::Present);
                }
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
    // The kernel compares keys within one map only. Another map may have the same port: in a range,
    // or on one address.
    if let Some((mapping, _)) = mapping::taken_but_by(Some(holder), mappings, &mapping::runs()?)? {
        return Err(Error::new("add", add(mapping).object, Errno::EEXIST));
    }
    let changes: Vec<_> = mappings.iter().map(add).collect();
    match commit(&socket, None, &changes) {
        // Some of the elements may be ours. If a part was lost, add the rest.
        Err((_, refusal)) if refusal.errno == Errno::EEXIST => publish_rest(&socket, holder, mappings)?,
        Err((object, refusal)) => return Err(Error::new("add", object, refusal)),
        Ok(()) => {}
    }
    mappings
        .iter()
        .try_for_each(|mapping| conntrack::forget_before(&socket, mapping))
        .map_err(|source| Error::new("forget", "connections to the published ports", source))
}

/// Adds the missing elements.
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

/// Removes the elements of all links from addresses of the container `id` to those of the container
/// `to`.
fn close(id: &str, to: &str) -> Result<(), Error> {
    transact("remove", |socket| {
        let links = mapping::links(socket)?;
        if links.is_empty() {
            return Ok(Vec::new());
        }
        let mut has: HashMap<_, _> = mapping::elements(socket, table::ADDRESSES.name)?.into_iter().collect();
        has.extend(mapping::elements(socket, table::ADDRESSES6.name)?);
        let is_of = |address: IpAddr, id: &str| {
            has.get(&octets(address)).is_some_and(|holder| holder.as_deref() == Some(id))
        };
        let between = links.iter().filter(|(from, port)| is_of(*from, id) && is_of(port.container_ip, to));
        Ok(between
            .map(|(from, port)| of_element(Kind::DelElement, 0, &table::linked_element(*from, port)))
            .collect())
    })
}

/// Removes the elements, and the tracked connections to the ports.
fn withdraw(elements: &[Element], mappings: &[Mapping]) -> Result<(), Error> {
    transact("remove", |socket| {
        let mut changes = Vec::new();
        for element in elements {
            // An element of another container with the same key stays.
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

use ipnet::Ipv4Net;
use netlink::{
    Error, NLM_F_CREATE, NLM_F_EXCL,
    netfilter::{Kind, Netfilter},
};
use nix::errno::Errno;
use operation::{Condition, Scope, words};
use serde::{Deserialize, Serialize};

use crate::{
    Mapping, Protocol, TABLE, conntrack, mapping,
    reconcile::{Change, commit, missing, surplus, transact},
    ruleset::Element,
    table,
};

/// A change to the table `ip stave`; each one is a single transaction of nf_tables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all_fields = "camelCase")]
pub enum NatOperation {
    /// Makes sure that the table stands, with this bridge in it: masquerade for its subnet. Undone, the bridge's
    /// elements go, and the table with the last bridge.
    #[serde(rename = "nat-bridge")]
    Bridge {
        /// The bridge.
        bridge: String,
        /// Its subnet.
        subnet: Ipv4Net,
    },
    /// Publishes ports: elements of the maps, marked with the container's id.
    #[serde(rename = "nat-publish")]
    Publish {
        /// The container's id.
        holder: String,
        /// The ports.
        mappings: Vec<Mapping>,
    },
}

/// `nft add KIND ip stave NAME '{ … }'`.
fn nft_add(kind: &str, name: &str, inside: &str) -> String {
    words(["nft", "add", kind, "ip", TABLE, name, &format!("{{ {inside} }}")])
}

fn explain_table() -> Vec<String> {
    let mut lines = vec![words(["nft", "add", "table", "ip", TABLE])];
    lines.extend(table::SETS.map(|set| nft_add(set.kind(), set.name, &set.to_string())));
    lines.extend(table::CHAINS.iter().map(|chain| nft_add("chain", chain.name, &chain.to_string())));
    lines.extend(
        table::rules()
            .iter()
            .map(|rule| words(["nft", "add", "rule", "ip", TABLE, rule.chain, &rule.to_string()])),
    );
    lines
}

fn explain_element(element: &Element) -> String {
    nft_add("element", element.set, &element.to_string())
}

impl operation::Operation for NatOperation {
    fn explain(&self) -> Vec<String> {
        match self {
            Self::Bridge { bridge, subnet } => {
                let elements = table::bridge_elements(bridge, *subnet);
                explain_table().into_iter().chain(elements.iter().map(explain_element)).collect()
            }
            Self::Publish { holder, mappings } => {
                let elements = mappings.iter().map(|mapping| table::mapping_element(mapping, holder));
                let forget =
                    mappings.iter().filter(|mapping| mapping.protocol == Protocol::Udp).map(|mapping| {
                        words([
                            "conntrack",
                            "-D",
                            "-p",
                            "udp",
                            "--orig-port-dst",
                            &mapping.host_port.to_string(),
                        ])
                    });
                elements.map(|element| explain_element(&element)).chain(forget).collect()
            }
        }
    }

    fn apply(&mut self, _: &Scope) -> Result<(), operation::Error> {
        match self {
            Self::Bridge { bridge, subnet } => {
                Ok(transact("add", |socket| missing(socket, bridge, *subnet))?)
            }
            Self::Publish { holder, mappings } => Ok(publish(holder, mappings)?),
        }
    }

    fn undo(&self, _: &Scope) -> Result<(), operation::Error> {
        match self {
            Self::Bridge { bridge, subnet } => {
                Ok(transact("remove", |socket| surplus(socket, bridge, *subnet))?)
            }
            Self::Publish { holder, mappings } => Ok(withdraw(holder, mappings)?),
        }
    }

    fn check(&self, _: &Scope) -> Result<Condition, operation::Error> {
        let failed = |source| Error::new("look for", format!("table ip {TABLE}"), source);
        let socket = Netfilter::of_this_thread().map_err(failed)?;
        match self {
            Self::Bridge { bridge, subnet } => match missing(&socket, bridge, *subnet) {
                Ok(changes) => Ok(changes
                    .into_iter()
                    .next()
                    .map_or(Condition::Present, |change| Condition::Missing(change.object))),
                Err(refusal) if refusal.errno == Errno::EEXIST => {
                    Ok(Condition::Different(format!("table ip {TABLE} is not as this version makes it")))
                }
                Err(refusal) => Err(failed(refusal).into()),
            },
            Self::Publish { holder, mappings } => {
                for mapping in mappings {
                    let element = table::mapping_element(mapping, holder);
                    let object = format!("element {} {{ {element} }} of table ip {TABLE}", element.set);
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
    let failed = |source| Error::new("add", format!("elements of table ip {TABLE}"), source);
    let socket = Netfilter::of_this_thread().map_err(failed)?;
    let add = |mapping| {
        let element = table::mapping_element(mapping, holder);
        Change::element(Kind::NewElement, NLM_F_CREATE | NLM_F_EXCL, &element)
    };
    let changes: Vec<_> = mappings.iter().map(add).collect();
    match commit(&socket, None, &changes) {
        // Some of them may be ours: a part of them was lost, and is made again.
        Err((_, refusal)) if refusal.errno == Errno::EEXIST => publish_rest(&socket, holder, mappings)?,
        Err((object, refusal)) => return Err(Error::new("add", object, refusal)),
        Ok(()) => {}
    }
    mappings
        .iter()
        .try_for_each(|mapping| conntrack::forget_before(&socket, mapping))
        .map_err(|source| Error::new("forget", "connections to the published ports", source))
}

/// Adds those that are not there yet.
fn publish_rest(socket: &Netfilter, holder: &str, mappings: &[Mapping]) -> Result<(), Error> {
    let mut changes = Vec::new();
    for mapping in mappings {
        let element = table::mapping_element(mapping, holder);
        let change = Change::element(Kind::NewElement, NLM_F_CREATE | NLM_F_EXCL, &element);
        let standing = mapping::look_up(socket, &element);
        match standing.map_err(|source| Error::new("look for", change.object.clone(), source))? {
            Some(standing) if standing.is(&element) => {}
            _ => changes.push(change),
        }
    }
    commit(socket, None, &changes).map_err(|(object, refusal)| Error::new("add", object, refusal))
}

fn withdraw(holder: &str, mappings: &[Mapping]) -> Result<(), Error> {
    transact("remove", |socket| {
        let mut changes = Vec::new();
        for mapping in mappings {
            let element = table::mapping_element(mapping, holder);
            // What somebody else put under the same key stays.
            if mapping::look_up(socket, &element)?.is_some_and(|standing| standing.is(&element)) {
                changes.push(Change::element(Kind::DelElement, 0, &element));
            }
        }
        Ok(changes)
    })?;
    let failed = |source| Error::new("forget", "connections to the published ports", source);
    let socket = Netfilter::of_this_thread().map_err(failed)?;
    mappings.iter().try_for_each(|mapping| conntrack::forget_after(&socket, mapping)).map_err(failed)
}

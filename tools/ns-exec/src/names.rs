//! Names of other hosts: flags for `/etc/hosts` and `/etc/resolv.conf`, named as in Docker.

use std::net::IpAddr;

use clap::Args;
use runtime::{hosts::Entry, resolv_conf::Settings};
use toolkit::prelude::*;

#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Names {
    /// Add a name for an address; host-gateway is the host's address as the container reaches it; repeatable
    #[arg(long, value_name = "NAME:ADDRESS|host-gateway", conflicts_with = "join")]
    add_host: Vec<Entry>,
    /// Use this name server instead of the host's; repeatable
    #[arg(long, value_name = "ADDRESS", conflicts_with = "join")]
    dns: Vec<IpAddr>,
    /// Use this search domain instead of the host's; "." for none; repeatable
    #[arg(long, value_name = "DOMAIN", value_parser = word, conflicts_with = "join")]
    dns_search: Vec<String>,
    /// Set an option of resolv.conf(5), such as ndots:2; repeatable
    #[arg(long, visible_alias = "dns-opt", value_name = "OPTION", value_parser = word, conflicts_with = "join")]
    dns_option: Vec<String>,
}

/// Checks that a value is one word, so that it fits on a line.
fn word(text: &str) -> Result<String, String> {
    match text.is_empty() || text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        true => Err("it is one word".to_owned()),
        false => Ok(text.to_owned()),
    }
}

impl Names {
    /// Returns the entries for `/etc/hosts`. `gateway` says how the container reaches the host.
    pub(crate) fn hosts(&self, gateway: Gateway) -> Result<Vec<(IpAddr, String)>> {
        let entry = |entry: &Entry| match gateway {
            Gateway::None if entry.address.is_none() => bail!(
                "--add-host {}:host-gateway: the container has no network that leads to the host",
                entry.name
            ),
            Gateway::At(address) => Ok(entry.with(Some(address))),
            Gateway::None | Gateway::Loopback => Ok(entry.with(None)),
        };
        self.add_host.iter().map(entry).collect()
    }

    pub(crate) fn settings(&self) -> Settings {
        Settings {
            servers: self.dns.clone(),
            search: self.dns_search.clone(),
            options: self.dns_option.clone(),
        }
    }

    /// Whether any of the flags is given.
    pub(crate) fn are_given(&self) -> bool {
        !self.add_host.is_empty() || self.settings() != Settings::default()
    }
}

/// How a container reaches the host.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Gateway {
    /// The container cannot reach the host.
    None,
    /// Over the loopback interface: the container is in the host's network.
    Loopback,
    /// At this address.
    At(IpAddr),
}

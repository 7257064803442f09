//! Joins a network that spans several hosts.
//!
//! # Does
//! Leases a part of the network's subnet for this host in etcd, and writes the network's file, so that
//! `bridge-attach NAME` makes a bridge with a VXLAN. Publishes in etcd the address of this host and its
//! containers on the network. Keeps what the other hosts publish in `$STAVE_RUN/peers`, and sets the
//! VXLAN's entries from it. Nothing is broadcast to other hosts. It runs until SIGTERM, SIGINT or SIGHUP.
//! All its state is in the records and in etcd, so it may be killed at any moment: what it has published is
//! valid until its lease expires, and containers keep running.
//! # Reads
//! No document; the records of the containers, the network's file.
//! # Adds
//! Nothing; `$STAVE_ROOT/networks/NAME.json`, `$STAVE_RUN/peers/BRIDGE.json`; with `--wireguard-key` a
//! WireGuard link.
//! # Undoes
//! With `--leave`, what this host has published, the list of the other hosts, and the WireGuard link.
//! # Needs
//! root (CAP_NET_ADMIN); etcd 3.4 or newer.

#[cfg(test)]
mod gateway;
mod join;
mod key;
mod own;
mod shape;
mod stay;
mod told;

use std::{net::IpAddr, path::PathBuf, process::ExitCode, time::Duration};

use attachment::named;
use clap::Parser;
use etcd::{Client, Trust};
use ipnet::{Ipv4Net, Ipv6Net};
use serde_json::Value;
use toolkit::prelude::*;

/// Join a network that spans several hosts
#[derive(Parser)]
#[command(name = "net-peers", version)]
pub(crate) struct NetPeers {
    /// Name of the network, the same on all hosts
    #[arg(value_name = "NAME", value_parser = named::parse_network)]
    name: String,
    /// URL of an etcd server, such as http://10.0.0.1:2379; repeatable
    #[arg(long = "etcd", value_name = "URL", required = true)]
    endpoints: Vec<String>,
    /// Trust the CA certificates in this file instead of the system's
    #[arg(long, value_name = "FILE")]
    etcd_ca: Option<PathBuf>,
    /// Client certificate for etcd
    #[arg(long, value_name = "FILE", requires = "etcd_key")]
    etcd_cert: Option<PathBuf>,
    /// Key of the client certificate
    #[arg(long, value_name = "FILE", requires = "etcd_cert")]
    etcd_key: Option<PathBuf>,
    /// Prefix of all keys in etcd
    #[arg(long, value_name = "KEY", default_value = "/stave")]
    etcd_prefix: String,
    /// Name of this host; default: its host name
    #[arg(long, value_name = "NAME", value_parser = named::parse_network)]
    host: Option<String>,
    /// Address of this host for the other hosts; default: the source address of packets to etcd
    #[arg(long, value_name = "ADDRESS")]
    address: Option<IpAddr>,
    /// IPv4 subnet of the whole network; needed on the first host
    #[arg(long, value_name = "CIDR", value_parser = attachment::parse_subnet)]
    subnet: Option<Ipv4Net>,
    /// IPv6 subnet of the whole network
    #[arg(long, value_name = "CIDR", value_parser = attachment::parse_subnet6, requires = "subnet")]
    subnet6: Option<Ipv6Net>,
    /// Prefix length of each host's part; default: 8 more than the subnet's
    #[arg(long, value_name = "LENGTH", requires = "subnet", value_parser = clap::value_parser!(u8).range(1..=30))]
    part: Option<u8>,
    /// VXLAN network identifier (VNI); default: derived from the name
    #[arg(long, value_name = "NUMBER", requires = "subnet", value_parser = clap::value_parser!(u32).range(1..1 << 24))]
    vxlan: Option<u32>,
    /// UDP port of the VXLAN; default: 4789
    #[arg(long, value_name = "PORT", requires = "subnet", value_parser = clap::value_parser!(u16).range(1..))]
    vxlan_port: Option<u16>,
    /// Seconds without a message after which this host counts as dead
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(2..=86_400))]
    ttl: u32,
    /// Encrypt packets between the hosts with WireGuard and the private key in this file; all hosts or none
    #[arg(long, value_name = "FILE")]
    wireguard_key: Option<PathBuf>,
    /// The UDP port of WireGuard on this host
    #[arg(long, value_name = "PORT", default_value_t = 51820, value_parser = clap::value_parser!(u16).range(1..))]
    wireguard_port: u16,
    /// Return the part of the subnet, and leave the network
    #[arg(long)]
    leave: bool,
    #[command(flatten)]
    common: Common,
}

impl NetPeers {
    fn client(&self) -> Result<Client> {
        for endpoint in &self.endpoints {
            if !endpoint.starts_with("http://") && !endpoint.starts_with("https://") {
                let error = anyhow!("--etcd {endpoint}: no address of a web server");
                return Err(hint(error, format!("try http://{endpoint}")));
            }
        }
        let own = self.etcd_cert.clone().zip(self.etcd_key.clone());
        let trust = Trust { ca: self.etcd_ca.clone(), own };
        // A watch is made again after a long silence, because the connection may be lost.
        Ok(Client::new(&self.endpoints, &trust, Duration::from_secs(self.ttl.into()))?)
    }
}

impl Report for NetPeers {
    fn common(&self) -> &Common {
        &self.common
    }

    fn explain(&self, _: &toolkit::Context) -> Result<Vec<String>> {
        let keys = told::Keys::new(&self.etcd_prefix, &self.name);
        let etcdctl = |rest: &[&str]| {
            let all = ["etcdctl", "--endpoints", &self.endpoints.join(",")];
            operation::words(all.into_iter().chain(rest.iter().copied()).map(str::to_owned))
        };
        let (all, host) = (keys.all(), join::host(self)?);
        Ok(match self.leave {
            true => vec![
                etcdctl(&["del", &keys.host(&host)]),
                etcdctl(&["del", "--prefix", &keys.containers(&host)]),
            ],
            false => vec![
                etcdctl(&["lease", "grant", &self.ttl.to_string()]),
                etcdctl(&["put", "--lease", "LEASE", &keys.host(&host), "ADDRESS"]),
                etcdctl(&["watch", "--prefix", all]),
            ],
        })
    }

    fn report(&self, context: &toolkit::Context) -> Result<Value> {
        match self.leave {
            true => join::leave(self, &context.scope)?,
            false => stay::stay(self, &context.scope)?,
        }
        Ok(Value::Null)
    }

    fn text(&self, _: &Value) -> Option<String> {
        Some(String::new())
    }
}

pub(crate) fn main() -> ExitCode {
    toolkit::report::<NetPeers>()
}

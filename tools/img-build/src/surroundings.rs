//! Flags about what RUN has.

use std::net::IpAddr;

use builder::{Network, Surroundings};
use clap::{Args, ValueEnum};
use operation::quantity::size;
use runtime::spec::Ulimit;

#[derive(Debug, Clone, Args)]
pub(crate) struct RunFlags {
    /// Give RUN this network; by default one of the build's own, with a way out
    #[arg(long, value_name = "MODE", default_value = "default")]
    network: Mode,
    /// Give a name to an address, in the /etc/hosts of RUN: NAME:ADDRESS; repeatable
    #[arg(long, value_name = "NAME:ADDRESS", value_parser = host)]
    add_host: Vec<(String, IpAddr)>,
    /// The size of /dev/shm for RUN; 64m by default
    #[arg(long, value_name = "SIZE", value_parser = size)]
    shm_size: Option<u64>,
    /// Set a limit of the processes of RUN, such as nofile=1024:4096; repeatable
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    ulimit: Vec<Ulimit>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Mode {
    Default,
    None,
    Host,
}

/// `NAME:ADDRESS` or `NAME=ADDRESS`; an IPv6 address may have brackets.
fn host(text: &str) -> Result<(String, IpAddr), String> {
    let (name, address) = text
        .split_once('=')
        .or_else(|| text.split_once(':'))
        .filter(|(name, _)| !name.is_empty() && !name.contains(char::is_whitespace))
        .ok_or("it is NAME:ADDRESS")?;
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    match bare.parse() {
        Ok(address) => Ok((name.to_owned(), address)),
        Err(_) => Err(format!("{address:?} is not an address")),
    }
}

impl RunFlags {
    pub(crate) fn network(&self) -> Network {
        match self.network {
            Mode::Default => Network::Own,
            Mode::None => Network::None,
            Mode::Host => Network::Host,
        }
    }

    pub(crate) fn surroundings(&self) -> Surroundings {
        Surroundings {
            hosts: self.add_host.clone(),
            shared_memory: self.shm_size,
            limits: self.ulimit.iter().map(|limit| limit.0.clone()).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_as_docker_takes_them() {
        for (text, expected) in [
            ("a:10.0.0.1", Some("10.0.0.1")),
            ("a=10.0.0.1", Some("10.0.0.1")),
            ("a:::1", Some("::1")),
            ("a:[fe80::1]", Some("fe80::1")),
            ("a", None),
            (":10.0.0.1", None),
            ("a b:10.0.0.1", None),
            ("a:host-gateway", None),
        ] {
            let found = host(text).ok().map(|(_, address)| address.to_string());
            assert_eq!(found.as_deref(), expected, "{text}");
        }
    }
}

//! Flags for the environment of RUN.

use builder::{Network, Surroundings};
use clap::{Args, ValueEnum};
use operation::quantity::size;
use runtime::{hosts::Entry, spec::Ulimit};

#[derive(Debug, Clone, Args)]
pub(crate) struct RunFlags {
    /// The network of RUN; by default the build's own, with access to the outside
    #[arg(long, value_name = "MODE", default_value = "default")]
    network: Mode,
    /// Map a name to an address, or to this host's, in the /etc/hosts of RUN; repeatable
    #[arg(long, value_name = "NAME:ADDRESS|host-gateway")]
    add_host: Vec<Entry>,
    /// The size of /dev/shm for RUN; 64m by default
    #[arg(long, value_name = "SIZE", value_parser = size)]
    shm_size: Option<u64>,
    /// Set a resource limit for RUN, such as nofile=1024:4096; repeatable
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    ulimit: Vec<Ulimit>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Mode {
    Default,
    None,
    Host,
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
            limits: self.ulimit.iter().map(|limit| limit.0).collect(),
        }
    }
}

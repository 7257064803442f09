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
    /// Permit `RUN --network=host` in the Dockerfile and in ONBUILD of its base images
    #[arg(long, value_name = "RIGHT")]
    allow: Vec<Right>,
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

/// What a Dockerfile may not do by itself, as BuildKit names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Right {
    #[value(name = "network.host")]
    HostNetwork,
}

impl RunFlags {
    /// Whether a RUN may ask for the host's network. With `--network host`, all have it.
    pub(crate) fn host_network(&self) -> bool {
        self.network() == Network::Host || self.allow.contains(&Right::HostNetwork)
    }

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

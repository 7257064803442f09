//! The arguments of tools that talk to a registry.

use std::path::PathBuf;

/// How to reach a registry, and when to give up. Flattened into the arguments of `img-pull` and `img-push`. `TIMEOUT` is how many
/// seconds a server may be silent where the user does not say.
#[derive(Debug, Clone, clap::Args)]
pub struct Transfer<const TIMEOUT: u64> {
    /// Allow plain HTTP, and certificates that nobody vouches for
    #[arg(long)]
    pub insecure: bool,
    /// Trust these certificates (PEM) beside the system's
    #[arg(long, value_name = "FILE")]
    pub cacert: Option<PathBuf>,
    /// Take credentials from this file
    #[arg(long, value_name = "FILE")]
    pub authfile: Option<PathBuf>,
    /// How often to try again while nothing moves
    #[arg(long, value_name = "N", default_value_t = 6)]
    pub retries: u32,
    /// How long a server may say nothing, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = TIMEOUT, value_parser = clap::value_parser!(u64).range(1..=DAY))]
    pub timeout: u64,
    /// Abort a connection on which less passes than so many bytes a second, and try again; 0 never does
    #[arg(long, value_name = "BYTES", default_value_t = 256)]
    pub speed_limit: u64,
    /// Over how long a time less must pass, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=DAY))]
    pub speed_time: u64,
    /// How many layers to transfer at once
    #[arg(short, long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub jobs: u8,
}

/// In seconds.
const DAY: u64 = 86_400;

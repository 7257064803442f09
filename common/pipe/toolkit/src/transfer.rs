//! The arguments of tools that talk to a registry.

use std::path::PathBuf;

/// How to reach a registry, and when to abort. Flattened into the arguments of `img-pull` and `img-push`. `TIMEOUT` is the
/// default of `--timeout`.
#[derive(Debug, Clone, clap::Args)]
pub struct Transfer<const TIMEOUT: u64> {
    /// Allow plain HTTP, and accept any certificate
    #[arg(long)]
    pub insecure: bool,
    /// Also trust the certificates in this PEM file
    #[arg(long, value_name = "FILE")]
    pub cacert: Option<PathBuf>,
    /// Read credentials from this file
    #[arg(long, value_name = "FILE")]
    pub authfile: Option<PathBuf>,
    /// Retry this many times without progress
    #[arg(long, value_name = "N", default_value_t = 6)]
    pub retries: u32,
    /// Abort a connection when the server sends nothing for this many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = TIMEOUT, value_parser = clap::value_parser!(u64).range(1..=DAY))]
    pub timeout: u64,
    /// Abort and retry a connection slower than this many bytes a second; 0 for no limit
    #[arg(long, value_name = "BYTES", default_value_t = 256)]
    pub speed_limit: u64,
    /// Measure the speed over this many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=DAY))]
    pub speed_time: u64,
    /// Transfer this many layers at once
    #[arg(short, long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub jobs: u8,
}

/// In seconds.
const DAY: u64 = 86_400;

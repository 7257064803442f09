//! The arguments of tools that write what shall outlast a power cut.

use anyhow::{Result, bail};

/// The variable that stands for `--no-sync`.
const VARIABLE: &str = "STAVE_SYNC";

/// The arguments of the tools that write the image store, or a file that a user names. Flattened into each such tool's own
/// beside [`Common`](crate::Common).
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Writing {
    /// Do not wait for the disk, for throw-away stores; the same as STAVE_SYNC=no
    #[arg(long)]
    no_sync: bool,
}

impl Writing {
    /// Whether success is reported only once a power cut can take nothing of what was made.
    ///
    /// # Errors
    /// When `STAVE_SYNC` is set to something else than `yes` and `no`.
    pub fn is_synced(&self) -> Result<bool> {
        let variable = std::env::var_os(VARIABLE).unwrap_or_default();
        let wanted = match variable.to_str() {
            Some("" | "yes") => true,
            Some("no") => false,
            _ => bail!("read {VARIABLE}: it is {variable:?}, and must be yes or no"),
        };
        Ok(wanted && !self.no_sync)
    }
}

//! The arguments of tools whose output must survive a power cut.

use anyhow::{Result, bail};

/// The environment variable that replaces `--no-sync`.
const VARIABLE: &str = "STAVE_SYNC";

/// The arguments of tools that write to the image store or to a file that the user names. Such a tool
/// flattens them into its own, beside [`Common`](crate::Common).
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Writing {
    /// Do not wait for the disk, for throw-away stores; the same as STAVE_SYNC=no
    #[arg(long)]
    no_sync: bool,
}

impl Writing {
    /// Whether to wait for the disk before reporting success, so that the result survives a power cut.
    ///
    /// # Errors
    /// When `STAVE_SYNC` is neither `yes` nor `no`.
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

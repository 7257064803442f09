//! Flags for a container with a monitor whose process ends or becomes unhealthy, named as in Docker.

use std::{str::FromStr, time::Duration};

use clap::Args;
use document::members::Image;
use life::{CheckFlags, Restart};
use operation::quantity::size;
use serde_json::Value;
use toolkit::prelude::*;

use super::settings::seconds;

#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Lifetime {
    #[arg(
        help = "With -d or --monitor, start the command again when it has ended: no, on-failure[:N], always or unless-stopped",
        long,
        value_name = "POLICY",
        default_value = "no",
        hide_default_value = true,
        conflicts_with = "join"
    )]
    pub(crate) restart: Restart,
    /// With -d or --monitor, start a new log file at max-size=SIZE (8m by default, -1 for never), and keep
    /// max-file=N files (2 by default); repeatable
    #[arg(long, value_name = "NAME=VALUE", conflicts_with_all = ["join", "log"])]
    pub(crate) log_opt: Vec<LogOption>,
    /// With -d or --monitor, check the container's health with this shell command instead of the image's
    #[arg(long, value_name = "COMMAND", conflicts_with = "join")]
    health_cmd: Option<String>,
    /// Time between two checks; 30s by default
    #[arg(long, value_name = "TIME", value_parser = seconds, conflicts_with = "join")]
    health_interval: Option<Duration>,
    /// Time limit of a check; 30s by default
    #[arg(long, value_name = "TIME", value_parser = seconds, conflicts_with = "join")]
    health_timeout: Option<Duration>,
    /// Time after the start in which failures do not count; 0s by default
    #[arg(long, value_name = "TIME", value_parser = seconds, conflicts_with = "join")]
    health_start_period: Option<Duration>,
    /// Time between two checks in that period; 5s by default
    #[arg(long, value_name = "TIME", value_parser = seconds, conflicts_with = "join")]
    health_start_interval: Option<Duration>,
    /// Number of consecutive failures that make the container unhealthy; 3 by default
    #[arg(long, value_name = "N", conflicts_with = "join")]
    health_retries: Option<u64>,
    /// Do not check the container's health, even if the image has a check
    #[arg(long, conflicts_with_all = ["join", "health_cmd"])]
    no_healthcheck: bool,
}

impl Lifetime {
    /// Returns the image's health check, with the parts that the flags replace.
    pub(crate) fn healthcheck(&self, image: Option<&Image>) -> Result<Option<Value>> {
        let flags = CheckFlags {
            none: self.no_healthcheck,
            command: self.health_cmd.clone(),
            interval: self.health_interval,
            timeout: self.health_timeout,
            start_period: self.health_start_period,
            start_interval: self.health_start_interval,
            retries: self.health_retries,
        };
        let whole = image.map(|image| image.configuration.whole());
        life::health_of_image(whole, &flags).map_err(|problem| anyhow!("{problem}"))
    }

    /// Rejects these flags for a container without a monitor.
    pub(crate) fn in_foreground(&self) -> Result<()> {
        let flag = match self.health_cmd {
            _ if self.restart != Restart::No => "--restart",
            _ if !self.log_opt.is_empty() => "--log-opt",
            Some(_) => "--health-cmd",
            None => return Ok(()),
        };
        Err(hint(anyhow!("{flag} has no effect on a command in the foreground"), "give -d or --monitor too"))
    }
}

/// An option of the log, as Docker's driver json-file has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogOption {
    /// The size of a file in bytes.
    Size(u64),
    /// The number of files.
    Files(u32),
}

/// The most files of a log. Each of them is recorded.
const MOST_FILES: u32 = 100;

impl FromStr for LogOption {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some(("max-size", "-1")) => Ok(Self::Size(u64::MAX)),
            Some(("max-size", value)) => match size(value)? {
                0 => Err("max-size is at least 1 byte".to_owned()),
                bytes => Ok(Self::Size(bytes)),
            },
            Some(("max-file", value)) => match value.parse() {
                Ok(files @ 1..=MOST_FILES) => Ok(Self::Files(files)),
                _ => Err(format!("max-file is a number from 1 to {MOST_FILES}")),
            },
            _ => Err("there are max-size=SIZE and max-file=N".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_a_log() {
        assert_eq!("max-size=10m".parse(), Ok(LogOption::Size(10 << 20)));
        assert_eq!("max-size=-1".parse(), Ok(LogOption::Size(u64::MAX)));
        assert_eq!("max-file=5".parse(), Ok(LogOption::Files(5)));
        for wrong in ["max-size=0", "max-size=x", "max-file=0", "max-file=101", "compress=true", "max-file"] {
            assert!(wrong.parse::<LogOption>().is_err(), "{wrong}");
        }
    }
}

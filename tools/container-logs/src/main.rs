//! Prints the output of a container.
//!
//! # Does
//! Reads the container's log, the older part first. What its process wrote to standard output goes to
//! standard output, and what it wrote to standard error goes to standard error. With `-f` it follows the log
//! until the container ends.
//! # Reads
//! No document. Reads the record, the log, and its index.
//! # Adds
//! Nothing.
//! # Undoes
//! Nothing.
//! # Needs
//! Read access to the log.

mod filter;
mod follow;

use std::process::ExitCode;

use clap::Parser;
use document::Id;
use filter::{Filter, Tail};
use life::{Container, Point};
use serde_json::Value;
use toolkit::prelude::*;

/// Print the output of a container, even if it has ended
#[derive(Parser)]
#[command(name = "container-logs", version)]
struct ContainerLogs {
    /// The container, by its id or its name
    #[arg(value_name = "ID")]
    container: Id,
    /// Follow the log until the container ends
    #[arg(short, long)]
    follow: bool,
    /// Print only output after this time: 2026-01-02T15:04:05Z, 2026-01-02 in the local time zone, seconds since
    /// 1970, or a time ago such as 10m
    #[arg(long, value_name = "TIME")]
    since: Option<Point>,
    /// Print only output before this time
    #[arg(long, value_name = "TIME")]
    until: Option<Point>,
    /// Print only this number of lines at the end, or all
    #[arg(
        short = 'l',
        long,
        value_name = "N|all",
        default_value = "all",
        hide_default_value = true,
        allow_negative_numbers = true
    )]
    tail: Tail,
    /// Print the time before each line
    #[arg(short, long)]
    timestamps: bool,
    #[command(flatten)]
    common: Common,
}

impl Report for ContainerLogs {
    fn common(&self) -> &Common {
        &self.common
    }

    fn explain(&self, context: &Context) -> Result<Vec<String>> {
        let container = Container::read(&context.scope, &self.container)?;
        let follow = if self.follow { "-f " } else { "" };
        let path = container.operation.log.unwrap_or_default();
        Ok(vec![format!("tail {follow}-n +1 {}", operation::quote(&path.to_string_lossy()))])
    }

    fn report(&self, context: &Context) -> Result<Value> {
        let container = life::attended(&context.scope, &self.container)?;
        // `stave run --log-driver none` names this file.
        let log = container.log().filter(|log| log.path != std::path::Path::new("/dev/null"));
        let Some(log) = log else {
            let error = anyhow!("container \"{}\" has no log", self.container);
            return Err(hint(error, "its output went to the program that started it, or nowhere"));
        };
        let filter =
            Filter { since: self.since, until: self.until, tail: self.tail, timestamps: self.timestamps };
        if filter.needs_times() && !log.indexed {
            bail!("{:?} was named by --log, and has no times: --since, --until and -t need them", log.path);
        }
        follow::print(&context.scope, &container, &log, filter, self.follow)?;
        Ok(Value::Null)
    }

    fn text(&self, _: &Value) -> Option<String> {
        Some(String::new())
    }
}

pub(crate) fn main() -> ExitCode {
    toolkit::report::<ContainerLogs>()
}

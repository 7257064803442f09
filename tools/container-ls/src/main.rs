//! Lists the containers that have a record.
//!
//! # Does
//! Reads the records below `$STAVE_RUN` and checks whether each container's process is running. Changes nothing.
//! # Reads
//! No document; from each record `id`, `instance`, `image`, `network`, `ports`, `process`.
//! # Adds
//! Nothing; prints one JSON array, or with `--table` and `--format` text for people and scripts.
//! # Undoes
//! Nothing.
//! # Needs
//! Read access to the records.

mod container;

use std::process::ExitCode;

use clap::Parser;
use container::Container;
use document::{Id, record};
use serde_json::Value;
use toolkit::{prelude::*, rows};

/// List containers: what runs in them, their addresses, and how they ended
#[derive(Parser)]
#[command(name = "container-ls", version)]
struct ContainerLs {
    /// Containers to list; all by default
    #[arg(value_name = "ID")]
    ids: Vec<Id>,
    /// List only containers whose process is running
    #[arg(long)]
    running: bool,
    /// Print a table instead of JSON
    #[arg(long)]
    table: bool,
    /// Print TEXT for each container, one line each. {id}, {instance}, {image}, {command}, {created}, {state}, {status},
    /// {health}, {restarts}, {limits}, {exitStatus}, {pid}, {ip}, {ports}, {log} and {stopSignal} in it are replaced
    #[arg(long, value_name = "TEXT", conflicts_with = "table")]
    format: Option<String>,
    #[command(flatten)]
    common: Common,
}

impl Report for ContainerLs {
    fn common(&self) -> &Common {
        &self.common
    }

    fn explain(&self, _: &toolkit::Context) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn report(&self, context: &toolkit::Context) -> Result<Value> {
        let run_dir = &context.scope.run_dir;
        let ids = if self.ids.is_empty() { record::list(run_dir)? } else { self.ids.clone() };
        let mut containers = Vec::new();
        for id in ids {
            match record::read(run_dir, &id)? {
                Some(document) => containers.push(Container::new(&context.scope, &id, &document)?),
                None if self.ids.contains(&id) => bail!("no container \"{id}\" in {}", run_dir.display()),
                // It was unwound after the directory was read.
                None => {}
            }
        }
        containers.retain(|container| !self.running || container.is_running());
        Ok(serde_json::to_value(containers)?)
    }

    fn text(&self, report: &Value) -> Option<String> {
        match (&self.format, self.table) {
            (Some(format), _) => Some(rows::lines(format, report)),
            (None, true) => Some(container::table(report)),
            (None, false) => None,
        }
    }

    fn shown(&self, report: &Value) -> Option<String> {
        Some(container::table(report))
    }
}

fn main() -> ExitCode {
    toolkit::report::<ContainerLs>()
}

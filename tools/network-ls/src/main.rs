//! Lists the networks that have a name.
//!
//! # Does
//! Reads the files below `$STAVE_ROOT/networks`, and which containers are attached from their records. Changes nothing.
//! # Reads
//! No document; from each record `networks`.
//! # Adds
//! Nothing; prints one JSON array, or with `--table` text for people.
//! # Undoes
//! Nothing.
//! # Needs
//! Read access to `$STAVE_ROOT` and the records.

use std::process::ExitCode;

use attachment::named::{self, Named};
use clap::Parser;
use document::record;
use serde_json::{Value, json};
use toolkit::{prelude::*, rows};

/// List the networks that have a name, and the containers on them
#[derive(Parser)]
#[command(name = "network-ls", version)]
struct NetworkLs {
    /// Networks to list; all by default
    #[arg(value_name = "NAME", value_parser = named::parse_network)]
    names: Vec<String>,
    /// Print a table instead of JSON
    #[arg(long)]
    table: bool,
    #[command(flatten)]
    common: Common,
}

impl Report for NetworkLs {
    fn common(&self) -> &Common {
        &self.common
    }

    fn explain(&self, _: &toolkit::Context) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn report(&self, context: &toolkit::Context) -> Result<Value> {
        let (root, run_dir) = (&context.scope.root, &context.scope.run_dir);
        let mut attached: Vec<(String, String)> = Vec::new();
        for id in record::list(run_dir)? {
            let Some(document) = record::read(run_dir, &id)? else { continue };
            attached.extend(document.attachments()?.into_iter().map(|one| (one.name, id.to_string())));
        }
        let names = if self.names.is_empty() { Named::list(root)? } else { self.names.clone() };
        let mut rows = Vec::new();
        for name in names {
            let Some(found) = Named::find(root, &name)? else { bail!("no network {name:?}") };
            let on = attached.iter().filter(|(network, _)| *network == name).map(|(_, id)| id);
            let subnets = [
                found.network.subnet.map(|net| net.to_string()),
                found.network.subnet6.map(|net| net.to_string()),
            ];
            rows.push(json!({
                "name": name,
                "bridge": found.network.bridge,
                "subnets": subnets.into_iter().flatten().collect::<Vec<_>>(),
                "internal": found.network.internal,
                "file": found.path,
                "containers": on.collect::<Vec<_>>(),
            }));
        }
        Ok(Value::Array(rows))
    }

    fn text(&self, report: &Value) -> Option<String> {
        self.table.then(|| self.shown(report)).flatten()
    }

    fn shown(&self, report: &Value) -> Option<String> {
        let mut lines = vec![["NETWORK", "BRIDGE", "SUBNETS", "CONTAINERS"].map(str::to_owned)];
        let all = report.as_array().into_iter().flatten();
        lines.extend(
            all.map(|row| ["name", "bridge", "subnets", "containers"].map(|key| rows::word(&row[key]))),
        );
        Some(rows::table(&lines))
    }
}

fn main() -> ExitCode {
    toolkit::report::<NetworkLs>()
}

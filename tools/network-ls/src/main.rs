//! Lists the named networks.
//!
//! # Does
//! Reads the files below `$STAVE_ROOT/networks`, and from the records which containers are attached. Changes
//! nothing.
//! # Reads
//! No document. Reads `networks` from each record.
//! # Adds
//! Nothing; prints a JSON array, or text with `--table`, `--ids` and `--format`.
//! # Undoes
//! Nothing.
//! # Needs
//! Read access to `$STAVE_ROOT` and the records.

use std::process::ExitCode;

use attachment::named::{self, Kind, Named};
use clap::Parser;
use document::record;
use serde_json::{Value, json};
use toolkit::{
    listing::{Filters, Format, Row},
    prelude::*,
    rows,
};

/// The fields of `docker network ls`, with their headings.
const HEADINGS: [(&str, &str); 5] = [
    ("ID", "NETWORK ID"),
    ("Name", "NAME"),
    ("Driver", "DRIVER"),
    ("Scope", "SCOPE"),
    ("Internal", "INTERNAL"),
];

/// List the named networks, and the containers on them
#[derive(Parser)]
#[command(name = "network-ls", version)]
struct NetworkLs {
    /// The networks to list; by default all
    #[arg(value_name = "NAME", value_parser = named::parse_network)]
    names: Vec<String>,
    /// Print a table instead of JSON
    #[arg(long)]
    table: bool,
    /// Print only names, one a line
    #[arg(long, conflicts_with = "table")]
    ids: bool,
    /// Print TEXT for each network, one a line, with {name}, {driver}, {bridge}, {parent}, {subnets}, {internal}, {file}
    /// and {containers} replaced; or a template of `docker network ls`: {{.Name}}, {{json .}}
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["table", "ids"])]
    format: Option<Format>,
    /// List only these networks: dangling, driver, id or name; repeatable
    #[arg(long, value_name = "KEY=VALUE", value_parser = toolkit::pair)]
    filter: Vec<(String, String)>,
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
        let filters = Filters::new(&self.filter, &["dangling", "driver", "id", "name"])?;
        let mut rows = Vec::new();
        for name in names {
            let Some(found) = Named::find(root, &name)? else { bail!("no network {name:?}") };
            let on: Vec<_> =
                attached.iter().filter(|(network, _)| *network == name).map(|(_, id)| id).collect();
            let driver = found.driver();
            let is_listed = filters.name("name", &name)?
                && filters.truth("dangling", on.is_empty())?
                && filters.any("id", |start| name.starts_with(start))
                && filters.any("driver", |wanted| wanted == driver);
            if !is_listed {
                continue;
            }
            let (bridge, parent) = match found.network {
                Kind::Bridge(_) => (Some(found.link()), None),
                Kind::Parent(_) => (None, Some(found.link())),
            };
            rows.push(json!({
                "name": name,
                "driver": driver,
                "bridge": bridge,
                "parent": parent,
                "subnets": found.subnets().map(|net| net.to_string()).collect::<Vec<_>>(),
                "internal": found.is_internal(),
                "file": found.path,
                "containers": on,
            }));
        }
        Ok(Value::Array(rows))
    }

    fn text(&self, report: &Value) -> Option<String> {
        if self.ids {
            return Some(rows::lines("{name}", report));
        }
        self.table.then(|| self.shown(report)).flatten()
    }

    fn formatted(&self, report: &Value) -> Result<Option<String>> {
        let Some(format) = &self.format else { return Ok(None) };
        let docker = |row: &Value| {
            let fields = json!({"ID": row["name"], "Name": row["name"], "Driver": row["driver"], "Scope": "local",
                "Internal": row["internal"].to_string()});
            Row { fields, ..Row::default() }
        };
        let text = format.rows(&rows::good(report).collect::<Vec<_>>(), &HEADINGS, docker)?;
        Ok(text.or_else(|| self.shown(report)))
    }

    fn shown(&self, report: &Value) -> Option<String> {
        let mut lines = vec![["NETWORK", "DRIVER", "LINK", "SUBNETS", "CONTAINERS"].map(str::to_owned)];
        let all = report.as_array().into_iter().flatten();
        let link = |row: &Value| if row["bridge"].is_null() { "parent" } else { "bridge" };
        lines.extend(all.map(|row| {
            ["name", "driver", link(row), "subnets", "containers"].map(|key| rows::word(&row[key]))
        }));
        Some(rows::table(&lines))
    }
}

fn main() -> ExitCode {
    toolkit::report::<NetworkLs>()
}

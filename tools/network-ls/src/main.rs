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
    listing::{Listing, Row},
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

/// The help of `--format`.
const FORMAT: &str = "Print TEXT for each network, one a line, with {name}, {driver}, {bridge}, {parent}, {subnets}, \
    {internal}, {file} and {containers} replaced; or a template of `docker network ls`: {{.Name}}, \
    {{json .}}";

/// List the named networks, and the containers on them
#[derive(Parser)]
#[command(
    name = "network-ls",
    version,
    mut_arg("format", |format| format.help(FORMAT)),
    mut_arg("filter", |filter| filter.help("List only these networks: dangling, driver, id or name; repeatable")),
)]
struct NetworkLs {
    /// The networks to list; by default all
    #[arg(value_name = "NAME", value_parser = named::parse_network)]
    names: Vec<String>,
    #[command(flatten)]
    listing: Listing,
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
        let filters = self.listing.filters(&["dangling", "driver", "id", "name"])?;
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
        self.listing.text(report, || self.shown(report))
    }

    fn formatted(&self, report: &Value) -> Result<Option<String>> {
        let docker = |row: &Value| {
            let fields = json!({"ID": row["name"], "Name": row["name"], "Driver": row["driver"], "Scope": "local",
                "Internal": row["internal"].to_string()});
            Row { fields, ..Row::default() }
        };
        self.listing.formatted(report, &HEADINGS, docker, || self.shown(report))
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

pub(crate) fn main() -> ExitCode {
    toolkit::report::<NetworkLs>()
}

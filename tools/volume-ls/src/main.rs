//! Lists the volumes.
//!
//! # Does
//! Reads `$STAVE_ROOT/volumes`. Changes nothing.
//! # Reads
//! No document.
//! # Adds
//! Nothing; prints a JSON array, or text with `--table`, `--ids` and `--format`.
//! # Undoes
//! Nothing.
//! # Needs
//! Read access to `$STAVE_ROOT`.

use std::process::ExitCode;

use clap::Parser;
use serde_json::{Map, Value, json};
use toolkit::{
    listing::{Listing, Row, labels_in_a_line},
    prelude::*,
    rows,
};

/// The fields of `docker volume ls`, with their headings.
const HEADINGS: [(&str, &str); 5] = [
    ("Driver", "DRIVER"),
    ("Name", "VOLUME NAME"),
    ("Scope", "SCOPE"),
    ("Mountpoint", "MOUNTPOINT"),
    ("Labels", "LABELS"),
];

/// The help of `--format`.
const FORMAT: &str = "Print TEXT for each volume, one a line, with {name}, {path}, {created}, {labels}, {containers} and \
    {size} replaced; or a template of `docker volume ls`: {{.Name}}, {{json .}}";

/// List the volumes, and the containers that use them
#[derive(Parser)]
#[command(
    name = "volume-ls",
    version,
    mut_arg("format", |format| format.help(FORMAT)),
    mut_arg("filter", |filter| filter.help("List only these volumes: dangling, driver, label or name; repeatable")),
)]
struct VolumeLs {
    /// The volumes to list; by default all
    #[arg(value_name = "NAME", value_parser = volume::parse_name)]
    names: Vec<String>,
    /// Also count the bytes of each volume's files
    #[arg(long)]
    size: bool,
    #[command(flatten)]
    listing: Listing,
    #[command(flatten)]
    common: Common,
}

impl Report for VolumeLs {
    fn common(&self) -> &Common {
        &self.common
    }

    fn explain(&self, _: &toolkit::Context) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn report(&self, context: &toolkit::Context) -> Result<Value> {
        let scope = &context.scope;
        let filters = self.listing.filters(&["dangling", "driver", "label", "name"])?;
        let names = if self.names.is_empty() { volume::list(scope)? } else { self.names.clone() };
        let mut rows = Vec::new();
        for name in names {
            let Some(found) = volume::find(scope, &name)? else {
                // It may have been removed since the directory was read.
                if self.names.is_empty() {
                    continue;
                }
                bail!("no volume {name:?}");
            };
            let mut row = serde_json::to_value(&found)?;
            let is_listed = filters.name("name", &name)?
                && filters.truth("dangling", found.containers.is_empty())?
                && filters.labels(&labels(&row))
                && filters.any("driver", |driver| driver == "local");
            if !is_listed {
                continue;
            }
            if self.size {
                row["size"] = json!(volume::size(&found)?);
            }
            rows.push(row);
        }
        Ok(Value::Array(rows))
    }

    fn text(&self, report: &Value) -> Option<String> {
        self.listing.text(report, || self.shown(report))
    }

    fn formatted(&self, report: &Value) -> Result<Option<String>> {
        let docker = |row: &Value| {
            let labels = labels(row);
            let fields = json!({"Driver": "local", "Name": row["name"], "Scope": "local",
                "Mountpoint": row["path"], "Labels": labels_in_a_line(&labels)});
            Row { fields, labels }
        };
        self.listing.formatted(report, &HEADINGS, docker, || self.shown(report))
    }

    fn shown(&self, report: &Value) -> Option<String> {
        let [name, created, containers] =
            [("VOLUME", "name"), ("CREATED", "created"), ("CONTAINERS", "containers")];
        Some(match self.size {
            true => table([name, created, containers, ("BYTES", "size")], report),
            false => table([name, created, containers], report),
        })
    }
}

/// A table with these headings and members.
fn table<const N: usize>(columns: [(&str, &str); N], report: &Value) -> String {
    let mut lines = vec![columns.map(|(heading, _)| heading.to_owned())];
    let all = report.as_array().into_iter().flatten();
    lines.extend(all.map(|row| columns.map(|(_, member)| rows::word(&row[member]))));
    rows::table(&lines)
}

/// The labels in a row.
fn labels(row: &Value) -> Map<String, Value> {
    row["labels"].as_object().cloned().unwrap_or_default()
}

pub(crate) fn main() -> ExitCode {
    toolkit::report::<VolumeLs>()
}

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
    listing::{Filters, Format, Row, labels_in_a_line},
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

/// List the volumes, and the containers that use them
#[derive(Parser)]
#[command(name = "volume-ls", version)]
struct VolumeLs {
    /// The volumes to list; by default all
    #[arg(value_name = "NAME", value_parser = volume::parse_name)]
    names: Vec<String>,
    /// Also count the bytes of each volume's files
    #[arg(long)]
    size: bool,
    /// Print a table instead of JSON
    #[arg(long)]
    table: bool,
    /// Print only names, one a line
    #[arg(long, conflicts_with = "table")]
    ids: bool,
    /// Print TEXT for each volume, one a line, with {name}, {path}, {created}, {labels}, {containers} and {size}
    /// replaced; or a template of `docker volume ls`: {{.Name}}, {{json .}}
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["table", "ids"])]
    format: Option<Format>,
    /// List only these volumes: dangling, driver, label or name; repeatable
    #[arg(long, value_name = "KEY=VALUE", value_parser = toolkit::pair)]
    filter: Vec<(String, String)>,
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
        let filters = Filters::new(&self.filter, &["dangling", "driver", "label", "name"])?;
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
        if self.ids {
            return Some(rows::lines("{name}", report));
        }
        self.table.then(|| self.shown(report)).flatten()
    }

    fn formatted(&self, report: &Value) -> Result<Option<String>> {
        let Some(format) = &self.format else { return Ok(None) };
        let docker = |row: &Value| {
            let labels = labels(row);
            let fields = json!({"Driver": "local", "Name": row["name"], "Scope": "local",
                "Mountpoint": row["path"], "Labels": labels_in_a_line(&labels)});
            Row { fields, labels }
        };
        let text = format.rows(&rows::good(report).collect::<Vec<_>>(), &HEADINGS, docker)?;
        Ok(text.or_else(|| self.shown(report)))
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

fn main() -> ExitCode {
    toolkit::report::<VolumeLs>()
}

//! Lists the containers that have a record.
//!
//! # Does
//! Reads the records below `$STAVE_RUN` and checks whether each container's process is running. After a restart of
//! the machine, reads the second records in `$STAVE_ROOT`. Prints a line for each record that cannot be read. Changes
//! nothing.
//! # Reads
//! No document. Reads `id`, `name`, `instance`, `image`, `network`, `ports` and `process` from each record.
//! # Adds
//! Nothing; prints a JSON array, or with `--table`, `--ids`, `--format` and `--tree` text, or a picture with
//! `--svg`. `--format` takes our `{member}`, and Docker's templates with the fields of `docker ps`, or with
//! `--records` those of `docker inspect`.
//! # Undoes
//! Nothing.
//! # Needs
//! Read access to the records.

mod container;
mod docker;
mod inspected;
mod mounted;
mod sizes;
mod tree;

use std::process::ExitCode;

use self::container::Container;
use clap::Parser;
use document::{Document, Id, name};
use serde::Deserialize;
use serde_json::Value;
use sizes::Sizes;
use toolkit::{
    listing::{Format, Row},
    prelude::*,
    rows,
};

/// List containers: their commands, addresses, and states
#[derive(Parser)]
#[command(name = "container-ls", version)]
struct ContainerLs {
    /// The containers to list; by default all
    #[arg(value_name = "ID")]
    ids: Vec<Id>,
    /// List only containers whose process is running
    #[arg(long)]
    running: bool,
    /// List only this number of containers: those that were made last
    #[arg(long, value_name = "N", conflicts_with_all = ["records", "tree", "svg"])]
    last: Option<usize>,
    /// Also count the bytes that the container has written, and those of its root file system
    #[arg(long, conflicts_with_all = ["tree", "svg"])]
    size: bool,
    /// Print a table instead of JSON
    #[arg(long)]
    table: bool,
    /// Print only ids, one a line
    #[arg(long = "ids", conflicts_with_all = ["table", "format"])]
    only_ids: bool,
    /// Print commands in full
    #[arg(long)]
    no_trunc: bool,
    /// Print TEXT for each container, one a line, with {id}, {name}, {instance}, {image}, {command}, {created},
    /// {state}, {status}, {health}, {restarts}, {limits}, {exitStatus}, {pid}, {ip}, {ports}, {log},
    /// {stopSignal}, {labels}, {networks} and {mounts} replaced; or a template of `docker ps`: {{.Names}},
    /// {{json .}}, table {{.ID}}\t{{.Status}}
    #[arg(long, value_name = "TEXT", conflicts_with = "table")]
    format: Option<Format>,
    /// List only these containers: ancestor, before, exited, expose, health, id, label, name, network,
    /// publish, since, status or volume; repeatable
    #[arg(long, value_name = "KEY=VALUE", value_parser = toolkit::pair)]
    filter: Vec<(String, String)>,
    /// Print the records: the documents of the containers. With --format, a template has the fields of
    /// `docker inspect`
    #[arg(long, conflicts_with_all = ["table", "running", "only_ids", "filter"])]
    records: bool,
    /// Draw each container as a tree: layers, files, mounts, networks, ports, process, snapshots and forks
    #[arg(long, conflicts_with_all = ["table", "format", "records", "running", "only_ids", "filter"])]
    tree: bool,
    /// Draw the tree as a picture (SVG)
    #[arg(long, conflicts_with_all = ["table", "format", "records", "running", "only_ids", "filter"])]
    svg: bool,
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
        let scope = &context.scope;
        let ids = if self.ids.is_empty() { life::every(scope)? } else { self.ids.clone() };
        let mut drawn = Vec::new();
        let mut rows = rows::each("container-ls", &ids, |id| match life::known(scope, id)? {
            Some(document) if self.tree || self.svg => {
                drawn.push(tree::Drawn::new(scope, id, &document)?);
                Ok(Value::Null)
            }
            Some(document) if self.records => Ok(serde_json::from_str(&document.to_line())?),
            Some(document) => {
                let container = Container::new(scope, id, &document, self.size)?;
                let is_shown = !self.running || container.is_running();
                Ok(if is_shown { serde_json::to_value(container)? } else { Value::Null })
            }
            None if self.ids.contains(id) => bail!("no container \"{id}\" in {}", scope.run_dir.display()),
            // The container was unwound after the directory was read, or its second record is of another run
            // directory.
            None => Ok(Value::Null),
        });
        rows.as_array_mut().into_iter().for_each(|rows| rows.retain(|row| !row.is_null()));
        let nodes =
            tree::grow(&drawn).into_iter().map(serde_json::to_value).collect::<Result<Vec<_>, _>>()?;
        rows.as_array_mut().into_iter().for_each(|rows| rows.extend(nodes.iter().cloned()));
        Ok(self.newest(context, self.filtered(context, rows)?))
    }

    fn verdict(&self, report: &Value) -> Result<()> {
        rows::verdict(report)
    }

    fn text(&self, report: &Value) -> Option<String> {
        if self.records {
            return Some(format!("{}\n", Value::Array(rows::good(report).cloned().collect())));
        }
        if self.only_ids {
            return Some(rows::lines("{id}", report));
        }
        self.table.then(|| container::table(report, self.no_trunc))
    }

    fn formatted(&self, report: &Value) -> Result<Option<String>> {
        if self.tree || self.svg {
            let nodes = rows::good(report).map(tree::Node::deserialize).collect::<Result<Vec<_>, _>>()?;
            return Ok(Some(if self.svg { tree::svg(&nodes) } else { tree::text(&nodes) }));
        }
        let Some(format) = &self.format else { return Ok(None) };
        let good: Vec<&Value> = rows::good(report).collect();
        if !self.records {
            let table = || container::table(report, self.no_trunc);
            let text = format.rows(&good, &docker::HEADINGS, |row| docker::row(row, self.no_trunc))?;
            return Ok(Some(text.unwrap_or_else(table)));
        }
        if matches!(format, Format::Members(_)) {
            return format.rows(&good, &[], |_| Row::default());
        }
        let mut inspected = Vec::new();
        for record in good {
            let record = Document::parse(record.to_string().as_bytes())?;
            let Some(id) = record.id()? else { bail!("a record has no id") };
            let mut fields = inspected::of(&self.common.scope()?, &id, &record)?;
            if self.size {
                let sizes = Sizes::of(&record)?;
                fields["SizeRw"] = sizes.written.into();
                fields["SizeRootFs"] = sizes.whole.into();
            }
            inspected.push(fields);
        }
        let rows: Vec<&Value> = inspected.iter().collect();
        format.rows(&rows, &[], |row| Row { fields: row.clone(), ..Row::default() })
    }

    fn shown(&self, report: &Value) -> Option<String> {
        Some(container::table(report, self.no_trunc))
    }
}

impl ContainerLs {
    /// The rows of the containers that `--last` lists, the newest first. Rows with an error stay.
    fn newest(&self, context: &toolkit::Context, rows: Value) -> Value {
        let (Value::Array(rows), Some(count)) = (&rows, self.last) else { return rows };
        let (failed, mut good): (Vec<_>, Vec<_>) =
            rows.iter().cloned().partition(|row| row["error"].is_string());
        let born = |row: &Value| container::created(&context.scope, &row["id"].as_str()?.parse().ok()?);
        good.sort_by_key(|row| std::cmp::Reverse(born(row)));
        good.truncate(count);
        Value::Array(failed.into_iter().chain(good).collect())
    }

    /// The rows that the filters keep. Rows with an error stay.
    fn filtered(&self, context: &toolkit::Context, rows: Value) -> Result<Value> {
        let (Value::Array(rows), false) = (&rows, self.filter.is_empty()) else { return Ok(rows) };
        let (failed, good): (Vec<_>, Vec<_>) = rows.iter().cloned().partition(|row| row["error"].is_string());
        let found = |name: &str| Some(name::resolve(&context.scope, &name.parse().ok()?));
        let created = |name: &str| container::created(&context.scope, &found(name)?);
        let kept = docker::filtered(good, &self.filter, created)?;
        Ok(Value::Array(failed.into_iter().chain(kept).collect()))
    }
}

pub(crate) fn main() -> ExitCode {
    toolkit::report::<ContainerLs>()
}

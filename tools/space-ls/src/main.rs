//! Lists what takes space on the disk.
//!
//! # Does
//! Adds up the files below `$STAVE_ROOT`: images, unpacked layers, containers, volumes, the build cache, and blobs that
//! nothing names. Changes nothing.
//! # Reads
//! No document. Reads the image list, the records, and the sizes of files.
//! # Adds
//! Nothing; prints a JSON array of `{type, count, active, bytes, reclaimable}`. `--table` prints the table of
//! `docker system df`, and `--format` text, of our `{member}` or of Docker's templates.
//! # Undoes
//! Nothing.
//! # Needs
//! Read access to `$STAVE_ROOT` and the records.

mod used;

use std::process::ExitCode;

use clap::Parser;
use oci::summary::human_size;
use serde_json::{Map, Value, json};
use toolkit::{
    listing::{Format, Row},
    prelude::*,
    rows,
};

/// The fields of `docker system df`, with their headings.
const HEADINGS: [(&str, &str); 5] = [
    ("Type", "TYPE"),
    ("TotalCount", "TOTAL"),
    ("Active", "ACTIVE"),
    ("Size", "SIZE"),
    ("Reclaimable", "RECLAIMABLE"),
];

/// List what takes space: images, layers, containers, volumes, the build cache
#[derive(Parser)]
#[command(name = "space-ls", version)]
struct SpaceLs {
    /// Print a table instead of JSON
    #[arg(long)]
    table: bool,
    /// Print TEXT for each kind of thing, one a line, with {type}, {count}, {active}, {bytes} and {reclaimable}
    /// replaced; or a template of `docker system df`: {{.Type}} {{.Size}}, {{json .}}
    #[arg(long, value_name = "TEXT", conflicts_with = "table")]
    format: Option<Format>,
    #[command(flatten)]
    common: Common,
}

impl Report for SpaceLs {
    fn common(&self) -> &Common {
        &self.common
    }

    fn explain(&self, _: &toolkit::Context) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn report(&self, context: &toolkit::Context) -> Result<Value> {
        Ok(serde_json::to_value(used::Used::look(&context.scope)?.rows()?)?)
    }

    fn text(&self, report: &Value) -> Option<String> {
        self.table.then(|| self.shown(report)).flatten()
    }

    fn formatted(&self, report: &Value) -> Result<Option<String>> {
        let Some(format) = &self.format else { return Ok(None) };
        let text = format.rows(&rows::good(report).collect::<Vec<_>>(), &HEADINGS, docker)?;
        Ok(text.or_else(|| self.shown(report)))
    }

    fn shown(&self, report: &Value) -> Option<String> {
        let mut lines = vec![HEADINGS.map(|(_, heading)| heading.to_owned())];
        lines.extend(rows::good(report).map(|row| {
            let fields = docker(row).fields;
            HEADINGS.map(|(name, _)| rows::word(&fields[name]))
        }));
        Some(rows::table(&lines))
    }
}

/// A row in the form of `docker system df`.
fn docker(row: &Value) -> Row {
    let number = |name: &str| row[name].as_u64().unwrap_or_default();
    let (bytes, reclaimable) = (number("bytes"), number("reclaimable"));
    let share = match bytes {
        0 => String::new(),
        _ => format!(" ({}%)", u128::from(reclaimable) * 100 / u128::from(bytes)),
    };
    let name = match row["type"].as_str().unwrap_or_default() {
        "images" => "Images",
        "layers" => "Unpacked Layers",
        "containers" => "Containers",
        "volumes" => "Local Volumes",
        "cache" => "Build Cache",
        _ => "Unused Blobs",
    };
    let fields = json!({
        "Type": name,
        "TotalCount": number("count").to_string(),
        "Active": number("active").to_string(),
        "Size": human_size(bytes),
        "Reclaimable": human_size(reclaimable) + &share,
    });
    Row { fields, labels: Map::new() }
}

pub(crate) fn main() -> ExitCode {
    toolkit::report::<SpaceLs>()
}

//! Shows how an image was made.
//!
//! # Does
//! Reads the image's configuration, and pairs each entry of its history with the entry's layer.
//! # Reads
//! No document.
//! # Adds
//! Nothing; prints `{"id", "history": [{created, createdBy, author, comment, emptyLayer, layer, size}]}`, the
//! newest entry first. `--table` prints the columns of `docker history`, `--format` text, `--ids` ids.
//! # Undoes
//! Nothing.
//! # Needs
//! Read access to `$STAVE_ROOT/images`.

use std::process::ExitCode;

use clap::Parser;
use oci::{Image, Layout, Platform, summary::human_size, table, timestamp};
use serde_json::{Map, Value, json};
use toolkit::{
    listing::{Format, Row},
    prelude::*,
};

/// How many characters of a command the table shows.
const SHOWN: usize = 45;

/// Show how an image was made
#[derive(Parser)]
#[command(name = "img-history", version)]
struct History {
    /// The image: a name, an id, or the first digits of an id
    #[arg(value_name = "IMAGE")]
    image: String,
    /// Take this platform of a multi-platform image: os/architecture[/variant]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<Platform>,
    /// Print a table instead of JSON
    #[arg(long, conflicts_with = "ids")]
    table: bool,
    /// Print only ids, one a line: the image's, and `<missing>` for the entries below
    #[arg(long)]
    ids: bool,
    /// Print TEXT for each entry, one a line, with {created}, {createdBy}, {comment}, {size} and {layer} replaced;
    /// or a template of `docker history`: {{.CreatedBy}}, {{json .}}, table {{.ID}}\t{{.Size}}
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["table", "ids"])]
    format: Option<Format>,
    /// Print sizes in bytes and times in full, in a table or a template
    #[arg(long)]
    exact: bool,
    /// Print ids and commands in full
    #[arg(long)]
    no_trunc: bool,
    #[command(flatten)]
    common: Common,
}

impl Report for History {
    fn common(&self) -> &Common {
        &self.common
    }

    fn explain(&self, _: &Context) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn report(&self, context: &Context) -> Result<Value> {
        let layout = Layout::look(context.scope.root.join("images"))?;
        let image = layout.image(&layout.find(&self.image)?, self.platform.as_ref())?;
        Ok(json!({"id": image.id()?, "history": history(&image)}))
    }

    fn text(&self, report: &Value) -> Option<String> {
        if self.ids {
            return Some(self.entries(report).map(|entry| self.cell(&entry, "ID") + "\n").collect());
        }
        self.table.then(|| self.rows(report))
    }

    fn formatted(&self, report: &Value) -> Result<Option<String>> {
        let Some(format) = &self.format else { return Ok(None) };
        let rows: Vec<Value> = self.entries(report).collect();
        let text = format.rows(&rows.iter().collect::<Vec<_>>(), &HEADINGS, |entry| {
            let fields = HEADINGS.iter().map(|(name, _)| ((*name).to_owned(), self.cell(entry, name).into()));
            Row { fields: Value::Object(fields.collect()), labels: Map::new() }
        })?;
        Ok(text.or_else(|| self.shown(report)))
    }

    fn shown(&self, report: &Value) -> Option<String> {
        Some(self.rows(report))
    }
}

/// The entries, newest first. Many tools leave layers out of the history. Such layers are shown without text.
fn history(image: &Image) -> Vec<Value> {
    let mut layers = image.manifest.layers().iter();
    let mut entries = Vec::new();
    for entry in image.configuration.history().iter().flatten() {
        let empty = entry.empty_layer().unwrap_or(false);
        let layer = if empty { None } else { layers.next() };
        let mut shown = json!({"emptyLayer": empty, "size": layer.map_or(0, |layer| layer.size())});
        let words = [
            ("created", entry.created()),
            ("createdBy", entry.created_by()),
            ("author", entry.author()),
            ("comment", entry.comment()),
        ];
        for (key, value) in words {
            if let Some(value) = value {
                shown[key] = json!(value);
            }
        }
        if let Some(layer) = layer {
            shown["layer"] = json!(layer.digest());
        }
        entries.push(shown);
    }
    entries.extend(
        layers.map(|layer| json!({"emptyLayer": false, "size": layer.size(), "layer": layer.digest()})),
    );
    entries.reverse();
    entries
}

/// The fields of `docker history`, with their headings.
const HEADINGS: [(&str, &str); 6] = [
    ("ID", "IMAGE"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("CreatedBy", "CREATED BY"),
    ("Size", "SIZE"),
    ("Comment", "COMMENT"),
];

impl History {
    /// The entries of a report, each with an id: the newest one has the image's.
    fn entries(&self, report: &Value) -> impl Iterator<Item = Value> {
        let ids = std::iter::once(report["id"].clone()).chain(std::iter::repeat("<missing>".into()));
        report["history"].as_array().into_iter().flatten().zip(ids).map(|(entry, id)| {
            let mut entry = entry.clone();
            entry["id"] = id;
            entry
        })
    }

    /// A field of an entry in Docker's form.
    fn cell(&self, entry: &Value, field: &str) -> String {
        let word = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
        let created = entry["created"].as_str().and_then(timestamp::parse);
        let at = || created.map_or_else(|| "N/A".to_owned(), timestamp::format);
        match field {
            "ID" => match word("id").strip_prefix("sha256:").and_then(|hex| hex.get(..12)) {
                Some(short) if !self.no_trunc => short.to_owned(),
                _ => word("id"),
            },
            "CreatedSince" if !self.exact => {
                created.map_or_else(|| "N/A".to_owned(), |then| timestamp::ago(then, timestamp::now()))
            }
            "CreatedSince" | "CreatedAt" => at(),
            "CreatedBy" => {
                let by = word("createdBy").replace(['\t', '\n'], " ");
                match self.no_trunc || by.chars().count() <= SHOWN {
                    true => by,
                    false => by.chars().take(SHOWN - 1).chain(['…']).collect(),
                }
            }
            "Size" if self.exact => entry["size"].as_u64().unwrap_or(0).to_string(),
            "Size" => human_size(entry["size"].as_u64().unwrap_or(0)),
            _ => word("comment"),
        }
    }

    fn rows(&self, report: &Value) -> String {
        let shown: Vec<_> = HEADINGS.into_iter().filter(|(name, _)| *name != "CreatedAt").collect();
        let row = |entry: Value| shown.iter().map(|(name, _)| self.cell(&entry, name)).collect();
        let rows: Vec<Vec<String>> = self.entries(report).map(row).collect();
        table::format(&shown.iter().map(|(_, heading)| *heading).collect::<Vec<_>>(), &rows)
    }
}

pub(crate) fn main() -> ExitCode {
    toolkit::report::<History>()
}

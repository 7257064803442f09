//! Shows how an image was made.
//!
//! # Does
//! Reads the image's configuration, and pairs each entry of its history with the entry's layer.
//! # Reads
//! No document.
//! # Adds
//! Nothing; prints `{"id", "history": [{created, createdBy, author, comment, emptyLayer, layer, size}]}`, the
//! newest entry first. `--table` prints the columns of `docker history`.
//! # Undoes
//! Nothing.
//! # Needs
//! Read access to `$STAVE_ROOT/images`.

use std::process::ExitCode;

use clap::Parser;
use oci::{Image, Layout, Platform, summary::human_size, table, timestamp};
use serde_json::{Value, json};
use toolkit::prelude::*;

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
    #[arg(long)]
    table: bool,
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
        self.table.then(|| self.rows(report))
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

impl History {
    fn rows(&self, report: &Value) -> String {
        let now = timestamp::now();
        let mut rows = Vec::new();
        for entry in report["history"].as_array().into_iter().flatten() {
            let id = report["id"].as_str().filter(|_| rows.is_empty()).unwrap_or("<missing>");
            let created = entry["created"].as_str().and_then(timestamp::parse);
            let mut by = entry["createdBy"].as_str().unwrap_or_default().replace(['\t', '\n'], " ");
            if !self.no_trunc && by.chars().count() > SHOWN {
                by = by.chars().take(SHOWN - 1).chain(['…']).collect();
            }
            let short =
                |id: &str| id.strip_prefix("sha256:").and_then(|hex| hex.get(..12)).unwrap_or(id).to_owned();
            rows.push(vec![
                if self.no_trunc { id.to_owned() } else { short(id) },
                created.map_or_else(|| "N/A".to_owned(), |then| timestamp::ago(then, now)),
                by,
                human_size(entry["size"].as_u64().unwrap_or(0)),
                entry["comment"].as_str().unwrap_or_default().to_owned(),
            ]);
        }
        table::format(&["IMAGE", "CREATED", "CREATED BY", "SIZE", "COMMENT"], &rows)
    }
}

pub(crate) fn main() -> ExitCode {
    toolkit::report::<History>()
}

//! Lists the images in the image store.
//!
//! # Does
//! Reads `index.json` and the manifests and configurations that it names, but no layers.
//! # Reads
//! No document.
//! # Adds
//! Nothing; prints `{"images": [{references, id, digest, created, size, platform, layers}]}`, the newest image first.
//! `--table` prints the table of `docker images`, `--ids` the list of `docker images -q`. `--cache` prints `{"steps": [{key, step, size,
//! used, uses}]}`, the step of the build cache that was used last first.
//! # Undoes
//! Nothing.
//! # Needs
//! Read access to `$STAVE_ROOT/images`. A missing store counts as empty.

use std::{collections::HashSet, process::ExitCode};

use clap::Parser;
use oci::{
    Layout, Reference,
    summary::{Summary, human_size},
    table, timestamp,
};
use serde_json::{Value, json};
use toolkit::prelude::*;

/// How much of a step's text a table shows, in characters.
const SHOWN: usize = 60;

/// List the images in the image store
#[derive(Parser)]
#[command(name = "img-ls", version)]
struct Ls {
    /// List only images with this name; without TAG, all its tags
    #[arg(value_name = "NAME[:TAG]")]
    name: Option<String>,
    /// Print a table instead of JSON
    #[arg(long, conflicts_with = "ids")]
    table: bool,
    /// Print only ids, one a line
    #[arg(long)]
    ids: bool,
    /// Print ids in full
    #[arg(long)]
    no_trunc: bool,
    /// List the steps of the build cache: text, size, last use, and how often each was used
    #[arg(long, conflicts_with_all = ["name", "ids"])]
    cache: bool,
    #[command(flatten)]
    common: Common,
}

impl Report for Ls {
    fn common(&self) -> &Common {
        &self.common
    }

    fn explain(&self, _: &Context) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn report(&self, context: &Context) -> Result<Value> {
        if self.cache {
            let rows = builder::cache::list(&context.scope.root)
                .map_err(|(path, error)| operation::Error::new("read", format_args!("{path:?}"), error))?;
            return Ok(json!({ "steps": rows }));
        }
        let wanted = self.name.as_deref().map(str::parse::<Reference>).transpose()?;
        let mut images = Layout::look(context.scope.root.join("images"))?.summaries()?;
        if let (Some(wanted), Some(text)) = (wanted, &self.name) {
            let any_tag = !text.contains('@') && !text.rsplit('/').next().unwrap_or_default().contains(':');
            for image in &mut images {
                image.references.retain(|own| {
                    own.parse::<Reference>()
                        .is_ok_and(|own| own == wanted || (any_tag && own.name() == wanted.name()))
                });
            }
            images.retain(|image| !image.references.is_empty());
        }
        Ok(json!({ "images": images }))
    }

    fn text(&self, report: &Value) -> Option<String> {
        if self.table {
            return self.shown(report);
        }
        self.ids.then(|| {
            let (images, mut told) = (images(report), HashSet::new());
            let ids = images.iter().filter_map(|image| self.id(image)).filter(|id| told.insert(id.clone()));
            ids.map(|id| id + "\n").collect()
        })
    }

    fn shown(&self, report: &Value) -> Option<String> {
        if self.cache {
            return Some(self.steps(&report["steps"]));
        }
        Some(self.rows(&images(report)))
    }
}

fn images(report: &Value) -> Vec<Summary> {
    serde_json::from_value(report["images"].clone()).unwrap_or_default()
}

impl Ls {
    fn id(&self, image: &Summary) -> Option<String> {
        let id = image.id.as_ref()?;
        Some(if self.no_trunc { id.to_string() } else { id.short().to_owned() })
    }

    fn steps(&self, rows: &Value) -> String {
        let now = timestamp::now();
        let row = |row: &Value| {
            let text = row["step"].as_str().unwrap_or_default();
            let shown = if self.no_trunc { text.len() } else { SHOWN };
            let text = text.lines().next().unwrap_or_default().chars().take(shown).collect();
            let [size, uses] = ["size", "uses"].map(|name| row[name].as_u64().unwrap_or_default());
            let used = timestamp::ago(row["used"].as_i64().unwrap_or_default(), now);
            vec![text, human_size(size), used, uses.to_string()]
        };
        let rows: Vec<_> = rows.as_array().into_iter().flatten().map(row).collect();
        table::format(&["STEP", "SIZE", "LAST USED", "USES"], &rows)
    }

    fn rows(&self, images: &[Summary]) -> String {
        let now = timestamp::now();
        let mut rows = Vec::new();
        for image in images {
            let created = image.created.as_deref().and_then(timestamp::parse);
            let facts = [
                self.id(image).unwrap_or_else(|| "<unreadable>".to_owned()),
                created.map_or_else(|| "N/A".to_owned(), |then| timestamp::ago(then, now)),
                human_size(image.size),
            ];
            let names = image.references.iter().filter_map(|name| name.parse::<Reference>().ok());
            let mut names: Vec<_> =
                names.map(|name| [name.familiar_name(), name.tag().unwrap_or("<none>").to_owned()]).collect();
            if names.is_empty() {
                names.push(["<none>".to_owned(), "<none>".to_owned()]);
            }
            rows.extend(names.into_iter().map(|name| [&name[..], &facts].concat()));
        }
        table::format(&["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"], &rows)
    }
}

fn main() -> ExitCode {
    toolkit::report::<Ls>()
}

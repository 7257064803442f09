//! Lists the images in the image store.
//!
//! # Does
//! Reads `index.json`, and the manifests and configurations that it lists. Reads no layers.
//! # Reads
//! No document.
//! # Adds
//! Nothing; prints `{"images": [{references, id, digest, created, size, platform, layers}]}`, the newest
//! image first. `--format` prints text, of our `{member}` or of Docker's templates. `--table` prints the table
//! of `docker images`, `--ids` the list of `docker images -q`.
//! `--cache` prints `{"steps": [{key, step, size, used, uses}]}` for the build cache, the most recently used
//! step first.
//! # Undoes
//! Nothing.
//! # Needs
//! Read access to `$STAVE_ROOT/images`. A missing store counts as empty.

mod docker;

use std::{collections::HashSet, process::ExitCode};

use clap::Parser;
use oci::{
    Layout, Reference,
    summary::{Summary, human_size},
    table, timestamp,
};
use serde_json::{Value, json};
use toolkit::{listing::Format, prelude::*};

/// How many characters of a step's text the table shows.
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
    /// Print TEXT for each name of an image, one a line, with {repository}, {tag}, {id}, {digest}, {created},
    /// {size} and {platform} replaced; or a template of `docker images`: {{.Repository}}:{{.Tag}}, {{json .}},
    /// table {{.ID}}\t{{.Size}}
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["table", "ids"])]
    format: Option<Format>,
    /// List only these images: before, dangling, label, reference or since; repeatable
    #[arg(long, value_name = "KEY=VALUE", value_parser = toolkit::pair)]
    filter: Vec<(String, String)>,
    /// List the steps of the build cache: text, size, last use, and number of uses
    #[arg(long, conflicts_with_all = ["name", "ids", "format", "filter"])]
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
        if !self.filter.is_empty() {
            let layout = Layout::look(context.scope.root.join("images"))?;
            images = docker::filtered(&layout, images, &self.filter)?;
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

    fn formatted(&self, report: &Value) -> Result<Option<String>> {
        let Some(format) = &self.format else { return Ok(None) };
        let rows: Vec<Value> = images(report).iter().flat_map(docker::named).collect();
        let text = format.rows(&rows.iter().collect::<Vec<_>>(), &docker::HEADINGS, |row| {
            docker::row(row, self.no_trunc)
        })?;
        Ok(text.or_else(|| self.shown(report)))
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

pub(crate) fn main() -> ExitCode {
    toolkit::report::<Ls>()
}

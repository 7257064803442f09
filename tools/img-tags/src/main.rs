//! Lists the tags of a repository in a registry.
//!
//! # Does
//! Asks the registry for all tags, page by page. Stores nothing.
//! # Reads
//! No document. Reads credentials as `img-pull` does.
//! # Adds
//! Nothing; prints `{repository, tags}`.
//! # Undoes
//! Nothing: it makes nothing.
//! # Needs
//! Access to the registry.

use std::process::ExitCode;

use clap::Parser;
use oci::Reference;
use remote::Reach;
use serde_json::{Value, json};
use toolkit::prelude::*;

/// List the tags of a repository in a registry
#[derive(Parser)]
#[command(name = "img-tags", version)]
struct Tags {
    #[arg(help = "The repository: [HOST[:PORT]/]NAME", value_name = "NAME", value_parser = repository)]
    repository: Reference,
    /// Print one tag a line instead of JSON
    #[arg(short, long)]
    lines: bool,
    #[command(flatten)]
    reach: Reach,
    #[command(flatten)]
    common: Common,
}

/// Parses the name of a repository. A tag or digest is an error.
fn repository(text: &str) -> Result<Reference> {
    let reference: Reference = text.parse()?;
    let last = text.rsplit('/').next().unwrap_or(text);
    match last.contains([':', '@']) {
        true => bail!("a repository has no tag; name it {:?}", reference.familiar_name()),
        false => Ok(reference),
    }
}

impl Report for Tags {
    fn common(&self) -> &Common {
        &self.common
    }

    fn report(&self, _: &Context) -> Result<Value> {
        let tags = self.reach.client().tags(&self.repository);
        let tags = tags.map_err(|error| remote::hinted(error, self.repository.registry()))?;
        Ok(json!({"repository": self.repository.name(), "tags": tags}))
    }

    fn explain(&self, _: &Context) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn text(&self, report: &Value) -> Option<String> {
        let tags = report["tags"].as_array().into_iter().flatten().filter_map(Value::as_str);
        self.lines.then(|| {
            tags.filter(|tag| !tag.contains(char::is_control)).map(|tag| format!("{tag}\n")).collect()
        })
    }
}

pub(crate) fn main() -> ExitCode {
    toolkit::report::<Tags>()
}

//! Shows the queries and rejected packets of a container that egress-allow restricts.
//!
//! # Does
//! Reads the container's log and merges equal entries: each name, and each address with its port, with the
//! names that were answered with this address before.
//! # Reads
//! No document. Reads `egress` in the container's record, and the log that it names.
//! # Adds
//! Nothing; prints a JSON array.
//! # Undoes
//! Nothing.
//! # Needs
//! Root, because only root can read the log.

use std::{io::ErrorKind, process::ExitCode};

use clap::Parser;
use document::{Id, record};
use egress::journal::{self, Outcome};
use serde_json::Value;
use toolkit::prelude::*;

/// Show what a container asked for, and what was rejected
#[derive(Parser)]
#[command(name = "egress-log", version)]
struct EgressLog {
    /// The container's id
    #[arg(value_name = "CONTAINER")]
    container: Id,
    /// Print arguments for an egress-allow that allows all of it, one a line
    #[arg(long)]
    arguments: bool,
    #[command(flatten)]
    common: Common,
}

impl Report for EgressLog {
    fn common(&self) -> &Common {
        &self.common
    }

    fn explain(&self, _: &Context) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn report(&self, context: &Context) -> Result<Value> {
        let document = record::read_existing(&context.scope.run_dir, &self.container)?;
        let egress = document.get::<members::Egress>()?.ok_or_else(|| {
            let error = anyhow!("container \"{}\" is not restricted", self.container);
            hint(error, "egress-allow restricts one, and egress-allow --log logs what it would reject")
        })?;
        let text = match std::fs::read_to_string(&egress.log) {
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            read => read.with_context(|| format!("read log {:?}", egress.log))?,
        };
        let seen = journal::together(&text);
        if self.arguments {
            let words =
                seen.iter().filter(|seen| seen.verdict != Outcome::Allowed).flat_map(journal::Seen::words);
            let mut words: Vec<_> = words.collect();
            words.sort();
            words.dedup();
            return Ok(words.into());
        }
        Ok(serde_json::to_value(seen)?)
    }

    fn text(&self, report: &Value) -> Option<String> {
        let words = report.as_array()?.iter().filter_map(Value::as_str);
        self.arguments.then(|| words.flat_map(|word| [word, "\n"]).collect())
    }
}

pub(crate) fn main() -> ExitCode {
    toolkit::report::<EgressLog>()
}

//! Begins a step of your own tool, written in any language.
//!
//! # Does
//! Writes the step into the record before the tool acts. So `unwind --with DIR` finds the tool's work, even
//! after a SIGKILL.
//! # Reads
//! `steps`, and the container's id.
//! # Adds
//! A step of the named tool, begun, with the given operations.
//! # Undoes
//! `--undo` removes the last step of the named tool, with what it added, from document and record. It undoes
//! nothing else.
//! # Needs
//! Write access to `$STAVE_RUN`.

use std::process::ExitCode;

use clap::Parser;
use document::Document;
use operation::Scope;
use serde_json::Value;
use toolkit::{Common, Marker, begin_step, marker};

/// Record a step of your own tool before it acts
#[derive(Parser)]
#[command(name = "step-begin", version)]
struct StepBegin {
    /// The tool's name; `unwind --with DIR` runs `DIR/NAME --undo`
    #[arg(value_name = "NAME")]
    tool: String,
    /// The tool's version
    #[arg(long, value_name = "VERSION", default_value = "0")]
    tool_version: String,
    /// What the tool is about to make, as a JSON array; only the tool itself reads it
    #[arg(long, value_name = "JSON", default_value = "[]", value_parser = array)]
    operations: Value,
    #[command(flatten)]
    common: Common,
}

fn array(text: &str) -> Result<Value, String> {
    match serde_json::from_str(text) {
        Ok(value @ Value::Array(_)) => Ok(value),
        Ok(_) => Err("it is not a JSON array".to_owned()),
        Err(error) => Err(format!("it is not JSON: {error}")),
    }
}

impl Marker for StepBegin {
    fn common(&self) -> &Common {
        &self.common
    }

    fn of(&self) -> &str {
        &self.tool
    }

    fn mark(&self, scope: &Scope, document: Document) -> anyhow::Result<Document> {
        let operations = self.operations.as_array().cloned().unwrap_or_default();
        begin_step(&self.tool, &self.tool_version, operations, (scope, &self.common), document)
    }
}

pub(crate) fn main() -> ExitCode {
    marker::<StepBegin>()
}

//! Ends a step that `step-begin` began.
//!
//! # Does
//! Marks the step as done in record and document.
//! # Reads
//! `steps`, and the container's id.
//! # Adds
//! The members that the step adds: members of Stave's contract, or any others.
//! # Undoes
//! `--undo` removes the last step of the named tool, with what it added, from document and record. It undoes
//! nothing else.
//! # Needs
//! Write access to `$STAVE_RUN`.

use std::process::ExitCode;

use clap::Parser;
use document::Document;
use operation::Scope;
use serde_json::{Map, Value};
use toolkit::{Common, Marker, finish_step, marker};

/// Record that a step of your own tool is done
#[derive(Parser)]
#[command(name = "step-done", version)]
struct StepDone {
    /// The tool's name, as given to step-begin
    #[arg(value_name = "NAME")]
    tool: String,
    /// What the tool has made, as a JSON array; by default the operations given to step-begin
    #[arg(long, value_name = "JSON", value_parser = json)]
    operations: Option<Value>,
    /// What the step adds to members, as a JSON object: {"MEMBER": VALUE}
    #[arg(long, value_name = "JSON", default_value = "{}", value_parser = json)]
    adds: Value,
    #[command(flatten)]
    common: Common,
}

fn json(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| format!("it is not JSON: {error}"))
}

impl Marker for StepDone {
    fn common(&self) -> &Common {
        &self.common
    }

    fn of(&self) -> &str {
        &self.tool
    }

    fn mark(&self, scope: &Scope, document: Document) -> anyhow::Result<Document> {
        let operations = match &self.operations {
            Some(Value::Array(list)) => Some(list.clone()),
            Some(_) => anyhow::bail!("--operations is not a JSON array"),
            None => None,
        };
        let adds: Map<String, Value> = match &self.adds {
            Value::Object(adds) => adds.clone(),
            _ => anyhow::bail!("--adds is not a JSON object"),
        };
        finish_step(&self.tool, operations, adds, (scope, &self.common), document)
    }
}

pub(crate) fn main() -> ExitCode {
    marker::<StepDone>()
}

//! `--schema`, and other output that is generated from a tool's arguments.

use document::table;
use schemars::{Schema, generate::SchemaSettings};
use serde_json::{Value, json};

use crate::{
    Common, Exit, failure,
    kind::Kind,
    manual,
    streams::{write_lines, write_text},
};

/// Prints what `common` asks for: the schema, the manual page or shell completions.
pub(crate) fn print<T: clap::CommandFactory>(
    (tool, kind): (&str, Kind),
    common: &Common,
    reads: &[&str],
    writes: &[&str],
) -> Exit {
    let printed = match common.generate.as_deref() {
        None => write_lines(&[schema(tool, reads, writes).to_string()]),
        Some(what) => generate(tool, kind.command::<T>(), what).and_then(|text| write_text(&text)),
    };
    match printed {
        Ok(()) => Exit::Done,
        Err(error) => {
            failure::print(tool, &error.into());
            Exit::Failed
        }
    }
}

fn generate(tool: &str, mut command: clap::Command, what: &str) -> Result<Vec<u8>, operation::Error> {
    let mut text = Vec::new();
    if what == "man" {
        manual::write(tool, command, &mut text).map_err(operation::Error::on("generate", what))?;
    } else {
        let shell: clap_complete::Shell = what.parse().map_err(|_| {
            operation::Error::new(
                "generate",
                format_args!("{what:?}"),
                "these can be: man, bash, zsh, fish, elvish",
            )
        })?;
        clap_complete::generate(shell, &mut command, tool, &mut text);
    }
    Ok(text)
}

/// The JSON Schema of the document, with the members that this tool reads or writes.
fn schema(tool: &str, reads: &[&str], writes: &[&str]) -> Value {
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    let mut properties = serde_json::Map::new();
    let always = ["stave", "id", "instance", "steps", "error"];
    for &name in always.iter().chain(reads).chain(writes) {
        let mut schema = table::row(name).map_or_else(Schema::default, |row| (row.schema)(&mut generator));
        let known = |names: &[&str]| names.contains(&name);
        if known(reads) && !known(writes) {
            schema.insert("readOnly".to_owned(), true.into());
        }
        properties.insert(name.to_owned(), schema.to_value());
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": format!("the document as {tool} reads and writes it"),
        "type": "object",
        "properties": properties,
        "$defs": generator.take_definitions(true),
    })
}

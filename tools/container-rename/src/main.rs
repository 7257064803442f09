//! Gives a container another name.
//!
//! # Does
//! Writes the name to the container's records. From then on the tools find the container by it, and other containers
//! resolve it. The id stays, and with it everything that is called by the id: files, links, the host name. A container is
//! found by its id, too, so no other one can be called so.
//! # Reads
//! No document. Reads the records.
//! # Adds
//! `name` to the record; prints an object with `id`, `name` and `oldName`.
//! # Undoes
//! Nothing: another call gives the old name back.
//! # Needs
//! The user who made the container, or root.

use std::process::ExitCode;

use clap::Parser;
use document::{Id, Name, record};
use serde_json::{Value, json};
use toolkit::prelude::*;

/// Give a container another name
#[derive(Parser)]
#[command(name = "container-rename", version)]
struct ContainerRename {
    /// The container, by its id or its name
    #[arg(value_name = "ID")]
    container: Id,
    /// The new name: as an id, and no other container's id or name
    #[arg(value_name = "NAME")]
    name: Name,
    #[command(flatten)]
    common: Common,
}

impl Report for ContainerRename {
    fn common(&self) -> &Common {
        &self.common
    }

    fn report(&self, context: &Context) -> Result<Value> {
        let (scope, id) = (&context.scope, &self.container);
        let old = life::rename(scope, id, &self.name)?;
        Ok(json!({"id": id, "name": self.name, "oldName": old}))
    }

    fn explain(&self, context: &Context) -> Result<Vec<String>> {
        let scope = &context.scope;
        life::may_rename(scope, &self.container, &self.name)?;
        let link = |name: &Name| record::path(&scope.run_dir, name.as_id()).to_string_lossy().into_owned();
        let mut commands = Vec::new();
        // The id needs no link.
        if *self.name.as_id() != self.container {
            let record = format!("{}.json", self.container);
            commands.push(operation::words(["ln", "-s", &record, &link(&self.name)]));
        }
        if let Some(old) = record::read_existing(&scope.run_dir, &self.container)?.get::<Name>()? {
            commands.push(operation::words(["rm", &link(&old)]));
        }
        Ok(commands)
    }

    fn shown(&self, _: &Value) -> Option<String> {
        Some(format!("{}\n", self.name))
    }
}

pub(crate) fn main() -> ExitCode {
    toolkit::report::<ContainerRename>()
}

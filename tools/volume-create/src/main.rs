//! Makes a volume with a name.
//!
//! # Does
//! Makes `$STAVE_ROOT/volumes/NAME`. Containers mount its directory `data` with `union-mount -v NAME:/PATH`, which
//! also makes a missing volume. The first one fills it with what the image has at that path. It stays when the
//! containers are gone. A volume that exists stays as it is.
//! # Reads
//! No document.
//! # Adds
//! Nothing; prints `{"name", "path", "created", "labels", "containers"}`.
//! # Undoes
//! Nothing. `volume-rm NAME` removes the volume.
//! # Needs
//! Write access to `$STAVE_ROOT`.

use std::process::ExitCode;

use clap::Parser;
use serde_json::Value;
use toolkit::{prelude::*, rows};

/// Make a volume with a name
#[derive(Parser)]
#[command(name = "volume-create", version)]
struct VolumeCreate {
    /// The volume's name; by default 64 random digits
    #[arg(value_name = "NAME", value_parser = volume::parse_name)]
    name: Option<String>,
    /// Add a label KEY=VALUE; repeatable
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<String>,
    #[command(flatten)]
    writing: Writing,
    #[command(flatten)]
    common: Common,
}

impl VolumeCreate {
    fn labels(&self) -> volume::Labels {
        let label = |text: &String| {
            let (key, value) = text.split_once('=').unwrap_or((text, ""));
            (key.to_owned(), value.to_owned())
        };
        self.labels.iter().map(label).collect()
    }
}

impl Report for VolumeCreate {
    fn common(&self) -> &Common {
        &self.common
    }

    fn explain(&self, context: &toolkit::Context) -> Result<Vec<String>> {
        let name = self.name.as_deref().unwrap_or("NAME");
        Ok(volume::explain(&context.scope, name, &self.labels())?)
    }

    fn report(&self, context: &toolkit::Context) -> Result<Value> {
        let scope = &context.scope;
        let name = self.name.clone().map_or_else(operation::random_name, Ok)?;
        let labels = self.labels();
        let is_new = volume::create(scope, &name, &labels, self.writing.is_synced()?)?;
        let made = volume::find(scope, &name)?
            .ok_or_else(|| anyhow!("volume {name:?} was removed in the meantime"))?;
        if !is_new && !labels.is_empty() && labels != made.labels {
            return Err(hint(anyhow!("volume {name:?} exists, with other labels"), "choose another name"));
        }
        Ok(serde_json::to_value(made)?)
    }

    fn shown(&self, report: &Value) -> Option<String> {
        Some(rows::word(&report["name"]) + "\n")
    }
}

pub(crate) fn main() -> ExitCode {
    toolkit::report::<VolumeCreate>()
}

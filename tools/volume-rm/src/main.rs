//! Removes volumes with their files.
//!
//! # Does
//! Removes `$STAVE_ROOT/volumes/NAME`. A volume that a container uses, running or not, is not removed. All are
//! looked at before the first is removed.
//! # Reads
//! No document.
//! # Adds
//! Nothing; prints the names of the removed volumes as a JSON array.
//! # Undoes
//! Nothing.
//! # Needs
//! Write access to `$STAVE_ROOT`.

use std::process::ExitCode;

use clap::Parser;
use serde_json::Value;
use toolkit::{prelude::*, rows};

/// Remove volumes with their files
#[derive(Parser)]
#[command(name = "volume-rm", version)]
struct VolumeRm {
    /// The names of the volumes
    #[arg(value_name = "NAME", required = true, value_parser = volume::parse_name)]
    names: Vec<String>,
    /// Ignore volumes that do not exist
    #[arg(short, long)]
    force: bool,
    #[command(flatten)]
    writing: Writing,
    #[command(flatten)]
    common: Common,
}

impl VolumeRm {
    /// Finds the volumes. One that is in use is an error. Of one whose removal failed, only the files are left.
    fn find(&self, context: &toolkit::Context) -> Result<Vec<volume::Information>> {
        let mut found = Vec::new();
        for name in &self.names {
            match volume::find(&context.scope, name)? {
                Some(volume) => {
                    volume.refuse_removal()?;
                    found.push(volume);
                }
                None if self.force || volume::is_half_removed(&context.scope, name)? => {}
                None => bail!("no volume {name:?}"),
            }
        }
        Ok(found)
    }
}

impl Report for VolumeRm {
    fn common(&self) -> &Common {
        &self.common
    }

    fn explain(&self, context: &toolkit::Context) -> Result<Vec<String>> {
        let found = self.find(context)?;
        let directories = found.iter().filter_map(|volume| volume.path.parent());
        Ok(directories.map(|path| operation::words(["rm", "-r", &path.to_string_lossy()])).collect())
    }

    fn report(&self, context: &toolkit::Context) -> Result<Value> {
        let is_synced = self.writing.is_synced()?;
        let mut removed = Vec::new();
        self.find(context)?;
        for name in &self.names {
            if volume::remove(&context.scope, name, is_synced)? {
                removed.push(name.as_str());
            }
        }
        Ok(removed.into())
    }

    fn shown(&self, report: &Value) -> Option<String> {
        Some(report.as_array()?.iter().map(|name| rows::word(name) + "\n").collect())
    }
}

pub(crate) fn main() -> ExitCode {
    toolkit::report::<VolumeRm>()
}

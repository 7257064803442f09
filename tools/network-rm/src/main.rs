//! Removes named networks.
//!
//! # Does
//! Removes the networks' files below `$STAVE_ROOT/networks`. A network with an attached container is not
//! removed. The bridge goes with the last container.
//! # Reads
//! No document. Reads `networks` from each record.
//! # Adds
//! Nothing; prints the names of the removed networks as a JSON array.
//! # Undoes
//! Nothing.
//! # Needs
//! Write access to `$STAVE_ROOT`.

use std::process::ExitCode;

use attachment::named::{self, Named};
use clap::Parser;
use document::record::{self, Lock};
use serde_json::Value;
use toolkit::{prelude::*, rows};

/// Remove named networks
#[derive(Parser)]
#[command(name = "network-rm", version)]
struct NetworkRm {
    /// The names of the networks
    #[arg(value_name = "NAME", required = true, value_parser = named::parse_network)]
    names: Vec<String>,
    /// Ignore networks that do not exist
    #[arg(short, long)]
    force: bool,
    #[command(flatten)]
    common: Common,
}

impl NetworkRm {
    /// Finds the networks. A network that is in use is an error.
    fn find(&self, context: &toolkit::Context) -> Result<Vec<Named>> {
        let (root, run_dir) = (&context.scope.root, &context.scope.run_dir);
        let mut found = Vec::new();
        for name in &self.names {
            match Named::find(root, name)? {
                Some(one) => found.push(one),
                None if self.force => {}
                None => bail!("no network {name:?}"),
            }
        }
        for id in record::list(run_dir)? {
            let Some(document) = record::read(run_dir, &id)? else { continue };
            for attachment in document.attachments()? {
                if self.names.contains(&attachment.name) {
                    let error = anyhow!("network {:?} is in use by container \"{id}\"", attachment.name);
                    return Err(hint(error, format!("unwind {id}, or disconnect it")));
                }
            }
        }
        Ok(found)
    }
}

impl Report for NetworkRm {
    fn common(&self) -> &Common {
        &self.common
    }

    fn explain(&self, context: &toolkit::Context) -> Result<Vec<String>> {
        let found = self.find(context)?;
        Ok(found.iter().map(|one| operation::words(["rm", &one.path.to_string_lossy()])).collect())
    }

    fn report(&self, context: &toolkit::Context) -> Result<Value> {
        let _lock = Lock::take(&context.scope.run_dir, "network")?;
        let found = self.find(context)?;
        found.iter().try_for_each(|one| named::remove(&one.path))?;
        Ok(found.into_iter().map(|one| one.name).collect())
    }

    fn shown(&self, report: &Value) -> Option<String> {
        Some(report.as_array()?.iter().map(|name| rows::word(name) + "\n").collect())
    }
}

pub(crate) fn main() -> ExitCode {
    toolkit::report::<NetworkRm>()
}

//! Changes the limits and the restart policy of containers.
//!
//! # Does
//! Writes the new limits to the cgroups of each container, which may run, and to its record, so that they also
//! hold when it is started again. Limits that are not named stay. A limit that the kernel does not take changes
//! nothing.
//! # Reads
//! No document. Reads the records.
//! # Adds
//! Nothing; changes `cgroup` and `process` in the record, and prints a JSON array with `id` of each, or text with
//! `--format`.
//! # Undoes
//! Nothing: another call sets other limits.
//! # Needs
//! The same rights as cgroup-limit. A document from before the change is older than the container then, and the tools
//! refuse it: name the container by its id.

use std::process::ExitCode;

use clap::{ArgGroup, Parser};
use document::Id;
use life::Restart;
use limits::Limits;
use oci_spec::runtime::LinuxResources;
use serde_json::{Value, json};
use toolkit::{Each, Named, prelude::*};

/// Change the limits and the restart policy of containers
#[derive(Parser)]
#[command(name = "container-update", version, mut_arg("verbose", |verbose| verbose.short(None)), group = ArgGroup::new("limit").multiple(true))]
struct ContainerUpdate {
    #[arg(
        long,
        value_name = "POLICY",
        help = "When to start the command again: no, on-failure[:N], always or unless-stopped"
    )]
    restart: Option<Restart>,
    #[command(flatten)]
    limits: Limits,
    #[command(flatten)]
    named: Named,
}

impl ContainerUpdate {
    fn changes(&self) -> Result<Option<LinuxResources>> {
        let changes = Some(self.limits.changes()?).filter(|changes| *changes != LinuxResources::default());
        if changes.is_none() && self.restart.is_none() {
            return Err(hint(
                anyhow!("no change: name a limit or --restart"),
                "`container-update --help` lists the limits",
            ));
        }
        Ok(changes)
    }
}

impl Each for ContainerUpdate {
    fn named(&self) -> &Named {
        &self.named
    }

    fn refuse(&self) -> Result<()> {
        self.changes().map(drop)
    }

    fn explain(&self, context: &Context) -> Result<Vec<String>> {
        let changes = self.changes()?;
        let lines =
            self.named.ids.iter().map(|id| life::explain_update(&context.scope, id, changes.as_ref()));
        Ok(lines.collect::<std::result::Result<Vec<_>, _>>()?.concat())
    }

    fn one(&self, context: &Context, id: &Id) -> Result<Value> {
        life::update(&context.scope, id, self.restart, self.changes()?.as_ref())?;
        if self.restart.is_some_and(|policy| policy != Restart::No)
            && life::is_lost_with_machine(&life::Container::read(&context.scope, id)?)?
        {
            operation::tell!(
                "container-update: warning: a restart of the machine loses what container \"{id}\" has written, and it is \
                 not started then: `union-mount --durable`, or `stave run --restart`, makes one that stays"
            );
        }
        Ok(json!({"id": id}))
    }
}

pub(crate) fn main() -> ExitCode {
    toolkit::report::<ContainerUpdate>()
}

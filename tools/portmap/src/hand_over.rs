//! A container that ends releases its ports, and takes them again when it starts. The record does not change:
//! the caller, who ends or starts the container, holds its lock.

use document::{
    Id,
    record::{self, Lock},
};
use operation::{Condition, Operation, Scope, undo_all};
use serde::Deserialize;
use toolkit::prelude::*;

use super::{Op, Portmap};

/// What to do with the ports of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HandOver {
    Release,
    Take,
}

/// Carries it out, and returns the exit status of the tool.
pub(crate) fn run(tool: &Portmap, what: HandOver) -> u8 {
    match attempt(tool, what) {
        Ok(()) => toolkit::Exit::Done as u8,
        Err(error) => {
            toolkit::print_error("portmap", &error);
            toolkit::Exit::Failed as u8
        }
    }
}

fn attempt(tool: &Portmap, what: HandOver) -> Result<()> {
    let scope = tool.common.scope()?;
    let Some(id) = &tool.common.id else { bail!("no container: name one with --id") };
    let _lock = Portmap::LOCK.map(|name| Lock::take(&scope.run_dir, name)).transpose()?;
    let mut operations = recorded(&scope, id)?;
    match what {
        HandOver::Release => {
            let mut left = operation::causes(undo_all(&operations, &scope));
            left.next().map_or(Ok(()), |error| Err(error.into()))
        }
        HandOver::Take => {
            Portmap::restore(&scope)?;
            for at in 0..operations.len() {
                if operations[at].check(&scope)? == Condition::Present {
                    continue;
                }
                if let Err(error) = operations[at].apply(&scope) {
                    undo_all(&operations[..at], &scope);
                    let taken = error.errno() == Some(nix::errno::Errno::EEXIST);
                    let error = anyhow::Error::from(error)
                        .context(format!("take the ports of container \"{id}\" again"));
                    return Err(if taken {
                        hint(error, "another container has published one of them in the meantime")
                    } else {
                        error
                    });
                }
            }
            Ok(())
        }
    }
}

/// The operations of the container's portmap steps.
fn recorded(scope: &Scope, id: &Id) -> Result<Vec<Op>> {
    let document =
        record::read(&scope.run_dir, id)?.ok_or_else(|| anyhow!("container \"{id}\" has no record"))?;
    let steps = document.steps_of("portmap")?.into_iter().flat_map(|(_, step)| step.operations);
    steps.map(|operation| Ok(Op::deserialize(operation)?)).collect()
}

//! Restarts containers after a restart of the machine, from the records on disk.

use std::{
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use document::{Document, Id, kept, record, table};
use life::Container;
use operation::Scope;
use toolkit::{prelude::*, session};

/// The containers that should run and do not. If a container's state cannot be read, it is included: the
/// attempt to start it reports why.
pub(crate) fn wanted(scope: &Scope) -> Result<Vec<Id>> {
    // Some have only the second record, because a restart of the machine emptied `$STAVE_RUN`.
    let mut ids = life::every(scope)?;
    ids.retain(|id| is_wanted(scope, id).unwrap_or(true));
    Ok(ids)
}

/// Whether a container should be started. Not if it was never started, is being unwound, or runs.
fn is_wanted(scope: &Scope, id: &Id) -> Result<bool> {
    let recorded = Container::find(scope, id)?;
    let has_record = recorded.is_some() || record::read(&scope.run_dir, id)?.is_some();
    let container = match recorded {
        None if has_record => None,
        None => kept::read(scope, id)?.map(|kept| Container::of(id, kept.document)).transpose()?.flatten(),
        found => found,
    };
    let Some(container) = container else { return Ok(false) };
    if container.process.pid <= 0 || container.document.has_failed() {
        return Ok(false);
    }
    if !has_record {
        return Ok(container.outlives_machine() && !(is_of_this_boot(scope, id)? && container.is_running()?));
    }
    // A restart is due and no monitor will do it, or nobody saw the end of the process. If its end is known,
    // the container stays ended.
    match container.process.restarting {
        true => Ok(!container.has_monitor(scope)?),
        false => Ok(container.has_ended_unseen()? && container.outlives_machine()),
    }
}

/// Whether the second record is of this boot. A process of another boot cannot be this container's, whatever
/// its pid and start time.
fn is_of_this_boot(scope: &Scope, id: &Id) -> Result<bool> {
    Ok(kept::read(scope, id)?.is_some_and(|kept| kept.is_of_this_boot))
}

/// Starts a monitor for each container that has lost its own.
pub(crate) fn adopt_all(scope: &Scope) -> Result<()> {
    for id in record::list(&scope.run_dir)? {
        let adopted = Container::find(scope, &id).and_then(|container| match container {
            Some(container) => life::adopt(scope, &container),
            None => Ok(false),
        });
        if let Err(error) = adopted {
            toolkit::print_error("container-start", &error.into());
        }
    }
    Ok(())
}

/// After a restart of the machine, makes again what the container needs: each tool repairs its own steps, in
/// their order. If an attempt is interrupted, the next one continues with what it has made.
pub(crate) fn rebuild(scope: &Scope, id: &Id) -> Result<()> {
    let mut is_down = false;
    if record::read(&scope.run_dir, id)?.is_none() {
        if let Some(kept) = kept::read(scope, id)? {
            session::refuse_lost(scope, &kept.document)?;
        }
        is_down = life::restore(scope, id)?;
    }
    let found = Container::find(scope, id)?;
    let Some(container) = found.filter(|found| is_down || found.has_lost_its_ground()) else {
        return Ok(());
    };
    let mut tools: Vec<String> = Vec::new();
    for tool in container.document.tools()? {
        if !tools.contains(&tool) {
            tools.push(tool);
        }
    }
    let own = std::env::current_exe().context("find the directory of container-start")?;
    let beside = own.parent().unwrap_or(Path::new("/"));
    tools.iter().try_for_each(|tool| repair(beside, tool, scope, &container.document))
}

fn repair(beside: &Path, tool: &str, scope: &Scope, document: &Document) -> Result<()> {
    if !table::tools().any(|known| known == tool) {
        let error = anyhow!("{tool} is not a tool of Stave, and is not started");
        return Err(hint(error, format!("`{tool} --repair` restores what it made for the container")));
    }
    let mut command = Command::new(beside.join(tool));
    command.arg("--repair").arg("--root").arg(&scope.root).arg("--run-dir").arg(&scope.run_dir);
    command.stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = command.spawn().with_context(|| format!("run {tool} --repair"))?;
    if let Some(mut input) = child.stdin.take() {
        // If the tool fails, it prints its own error.
        let _ = input.write_all(document.to_line().as_bytes());
    }
    match child.wait().with_context(|| format!("run {tool} --repair"))?.success() {
        true => Ok(()),
        false => Err(anyhow!("{tool} --repair failed")),
    }
}

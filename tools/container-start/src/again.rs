//! After a restart of the machine: what should run, and making it again from the records on disk.

use std::{
    fs,
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use document::{Document, Id, kept, record, table};
use life::Container;
use operation::{Scope, unless_gone};
use toolkit::{prelude::*, session};

/// Those that do not run and should. One that cannot be looked at is among them: the attempt to start it says why.
pub(crate) fn wanted(scope: &Scope) -> Result<Vec<Id>> {
    let mut ids = record::list(&scope.run_dir)?;
    ids.extend(kept_alone(scope, &ids)?);
    ids.sort();
    ids.retain(|id| is_wanted(scope, id).unwrap_or(true));
    Ok(ids)
}

/// One that was only made, is being unwound or runs is left as it is.
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
    // Nobody is there who starts it, or nobody was there to see its end. One whose end is known has ended for good.
    match container.process.restarting {
        true => Ok(!container.has_monitor(scope)?),
        false => Ok(container.has_ended_unseen()? && container.outlives_machine()),
    }
}

/// A process of another boot is another one, whatever its pid and its start time.
fn is_of_this_boot(scope: &Scope, id: &Id) -> Result<bool> {
    Ok(kept::read(scope, id)?.is_some_and(|kept| kept.is_of_this_boot))
}

/// The containers whose record a restart of the machine took from `$STAVE_RUN`.
fn kept_alone(scope: &Scope, recorded: &[Id]) -> Result<Vec<Id>> {
    let directory = scope.root.join("containers");
    let failed = || format!("list {directory:?}");
    let mut ids = Vec::new();
    for entry in unless_gone(fs::read_dir(&directory)).with_context(failed)?.into_iter().flatten() {
        let name = entry.with_context(failed)?.file_name();
        ids.extend(name.to_str().and_then(|name| name.parse().ok()));
    }
    ids.retain(|id| !recorded.contains(id));
    Ok(ids)
}

/// Makes a monitor for each container that has lost its own.
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

/// Makes what a container stands on once more, if a restart of the machine took it: each tool repairs its own steps, in their order.
/// What an attempt has made that was cut short is found by the next one.
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
        return Err(hint(
            error,
            format!("let it put back what it has made for the container: `{tool} --repair`"),
        ));
    }
    let mut command = Command::new(beside.join(tool));
    command.arg("--repair").arg("--root").arg(&scope.root).arg("--run-dir").arg(&scope.run_dir);
    command.stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = command.spawn().with_context(|| format!("run {tool} --repair"))?;
    if let Some(mut input) = child.stdin.take() {
        // A tool that failed says so itself.
        let _ = input.write_all(document.to_line().as_bytes());
    }
    match child.wait().with_context(|| format!("run {tool} --repair"))?.success() {
        true => Ok(()),
        false => Err(anyhow!("{tool} --repair failed")),
    }
}

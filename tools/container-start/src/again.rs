//! After a restart of the machine: what should run, and making it again from the records on disk.

use std::{
    fs,
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use document::{Document, Id, kept, record};
use life::Container;
use operation::{Scope, unless_gone};
use toolkit::prelude::*;

/// The tool whose step starts the process.
const LAST: &str = "ns-exec";

/// Those that do not run and should.
pub(crate) fn wanted(scope: &Scope) -> Result<Vec<Id>> {
    let mut wanted = Vec::new();
    for container in Container::all(scope)? {
        if may_start(&container)? && is_wanted(scope, &container)? {
            wanted.push(container.id);
        }
    }
    for id in kept_alone(scope)? {
        let Some(kept) = kept::read(scope, &id)? else { continue };
        let Some(container) = Container::of(&id, kept.document)? else { continue };
        let process = &container.process;
        let ran = process.finished.is_none() || process.restarting;
        if may_start(&container)? && container.policy().outlives_machine(ran, process.stopped) {
            wanted.push(id);
        }
    }
    wanted.sort();
    Ok(wanted)
}

/// One that was only made, is being unwound or runs is left as it is.
fn may_start(container: &Container) -> Result<bool> {
    Ok(container.process.pid > 0 && !container.document.has_failed() && !container.is_running()?)
}

/// Whether a container that does not run is to be started, without a restart of the machine: nobody is there who does it, or
/// nobody was there to see its end. One whose end is known has ended for good.
fn is_wanted(scope: &Scope, container: &Container) -> Result<bool> {
    let process = &container.process;
    if process.restarting {
        return Ok(container.monitor(scope)?.is_none());
    }
    Ok(process.finished.is_none() && container.policy().outlives_machine(true, process.stopped))
}

/// The containers whose record a restart of the machine took from `$STAVE_RUN`.
fn kept_alone(scope: &Scope) -> Result<Vec<Id>> {
    let directory = scope.root.join("containers");
    let failed = || format!("list {directory:?}");
    let mut ids = Vec::new();
    for entry in unless_gone(fs::read_dir(&directory)).with_context(failed)?.into_iter().flatten() {
        let name = entry.with_context(failed)?.file_name();
        ids.extend(name.to_str().and_then(|name| name.parse().ok()));
    }
    let recorded = record::list(&scope.run_dir)?;
    ids.retain(|id| !recorded.contains(id));
    Ok(ids)
}

/// Makes a monitor for each container that has lost its own.
pub(crate) fn adopt_all(scope: &Scope) -> Result<()> {
    for container in Container::all(scope)? {
        if let Err(error) = life::adopt(scope, &container) {
            toolkit::print_error("container-start", &error.into());
        }
    }
    Ok(())
}

/// Makes what a container stands on once more, if a restart of the machine took it: each tool repairs its own step, in their order.
pub(crate) fn rebuild(scope: &Scope, id: &Id) -> Result<()> {
    if record::read(&scope.run_dir, id)?.is_some() {
        return Ok(());
    }
    let Some(kept) = kept::read(scope, id)? else { return Ok(()) };
    let own = std::env::current_exe().context("find the directory of container-start")?;
    let beside = own.parent().unwrap_or(Path::new("/"));
    let document = kept.document;
    let mut done: Vec<String> = Vec::new();
    for tool in document.tools()? {
        if done.contains(&tool) {
            continue;
        }
        repair(&beside.join(&tool), &tool, scope, &document)?;
        if tool == LAST {
            break;
        }
        done.push(tool);
    }
    Ok(())
}

fn repair(program: &Path, tool: &str, scope: &Scope, document: &Document) -> Result<()> {
    let mut command = Command::new(program);
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

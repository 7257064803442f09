//! After a restart of the machine: what should run, and making it again from the records on disk.

use std::{
    fs,
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use document::{Document, Id, kept, record};
use life::{Container, Restart, State};
use operation::{Scope, unless_gone};
use toolkit::prelude::*;

/// The tool whose step starts the process.
const LAST: &str = "ns-exec";

/// All containers on record: in `$STAVE_RUN`, and those that a restart of the machine took from there.
fn all(scope: &Scope) -> Result<Vec<(Id, Document)>> {
    let mut found = Vec::new();
    let mut ids = record::list(&scope.run_dir)?;
    let directory = scope.root.join("containers");
    let entries = unless_gone(fs::read_dir(&directory)).with_context(|| format!("list {directory:?}"))?;
    for entry in entries.into_iter().flatten() {
        let name = entry.with_context(|| format!("list {directory:?}"))?.file_name();
        ids.extend(name.to_str().and_then(|name| name.parse().ok()));
    }
    ids.sort();
    ids.dedup();
    for id in ids {
        let document = match record::read(&scope.run_dir, &id)? {
            Some(document) => Some(document),
            None => kept::read(scope, &id)?.map(|kept| kept.document),
        };
        found.extend(document.filter(|document| !document.has_failed()).map(|document| (id, document)));
    }
    Ok(found)
}

/// Those that do not run and should.
pub(crate) fn wanted(scope: &Scope) -> Result<Vec<Id>> {
    let mut ids = Vec::new();
    for (id, document) in all(scope)? {
        let is_restarted = record::read(&scope.run_dir, &id)?.is_none();
        let Some(container) = Container::of(&id, document)? else { continue };
        let process = &container.process;
        let policy: Restart =
            process.restart.as_deref().and_then(|text| text.parse().ok()).unwrap_or_default();
        let runs = match container.state()? {
            State::Running | State::Paused => true,
            // Its monitor starts it, if there is one.
            State::Restarting => false,
            State::Created | State::Exited => false,
        };
        let ran = is_restarted && process.finished.is_none() && process.pid > 0;
        // Without a restart of the machine, one that ended by itself has ended for good.
        let wanted = match is_restarted {
            true => policy.outlives_machine(ran || process.restarting, process.stopped),
            false => {
                process.restarting
                    || (process.finished.is_none() && policy.outlives_machine(true, process.stopped))
            }
        };
        if wanted && !runs && process.pid > 0 {
            ids.push(id);
        }
    }
    Ok(ids)
}

/// Makes a monitor for each container that has lost its own.
pub(crate) fn adopt_all(scope: &Scope) -> Result<()> {
    for id in record::list(&scope.run_dir)? {
        let Some(document) = record::read(&scope.run_dir, &id)? else { continue };
        if let Err(error) = life::adopt(scope, &id, &document) {
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
        if !done.contains(&tool) {
            repair(&beside.join(&tool), &tool, scope, &document)?;
            done.push(tool);
        }
        if done.last().is_some_and(|tool| tool == LAST) {
            break;
        }
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

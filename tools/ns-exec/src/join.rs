//! Another command in a running container: `docker exec`.

use std::io::{self, Write};

use document::Id;
use oci_spec::runtime::{BoxBuilder, Process, UserBuilder};
use operation::words;
use runtime::{Foreground, Stdio, Streams, Terminal, spec::set_variables, user};
use toolkit::{prelude::*, print_error};

use crate::{NOT_STARTED, arguments::NsExec, output::Output, record, start};

/// Runs it; returns the exit status of the tool.
pub(crate) fn run(tool: &NsExec, id: &Id) -> u8 {
    match attempt(tool, id) {
        Ok(status) => u8::try_from(status).unwrap_or(NOT_STARTED),
        Err(error) => {
            print_error("ns-exec", &error);
            start::status_of(&error)
        }
    }
}

fn attempt(tool: &NsExec, id: &Id) -> Result<i32> {
    let mut output = Output::open(tool.document.as_deref(), tool.status_fd, tool.detach)?;
    let scope = tool.common.scope()?;
    let (document, container) = record::running(&scope.run_dir, id)?;
    let terminal = start::terminal(tool.tty && !tool.detach, tool.interactive, tool.interactive)?;
    let root = container.spec.root().as_ref().map(|root| root.path().clone()).unwrap_or_default();
    let Some(recorded) = container.spec.process() else {
        bail!("container \"{id}\" has no process recorded")
    };
    let process = process(tool, recorded, &root, terminal.as_ref())?;
    if tool.common.explain {
        // A reader that has seen enough is no failure.
        let _ = writeln!(io::stdout(), "{}", explanation(&container.identity.pid.to_string(), &process));
        return Ok(0);
    }
    let signals = Foreground::new()?;
    let (stdin, out) = match (tool.detach, tool.interactive) {
        (true, _) => (Stdio::Null, Stdio::Null),
        (false, true) => (Stdio::Inherit, Stdio::Inherit),
        (false, false) => (Stdio::Null, Stdio::Inherit),
    };
    let streams = Streams { stdin, stdout: out, stderr: out };
    let joined = runtime::join(&container.spec, container.identity, &process, streams)?;
    let mut joined = joined.release()?;
    for warning in std::mem::take(&mut joined.warnings) {
        operation::tell!("ns-exec: warning: {warning}");
    }
    output.runs(joined.identity())?;
    output.started(&document)?;
    if tool.detach {
        return Ok(0);
    }
    let status = start::wait(joined, &signals, terminal, Vec::new())?;
    output.ended(&document, status)?;
    Ok(status)
}

/// The command that a person would type.
fn explanation(pid: &str, process: &Process) -> String {
    let command = process.args().as_deref().unwrap_or_default();
    words(["nsenter", "--target", pid, "--all", "--"].into_iter().chain(command.iter().map(String::as_str)))
}

/// The recorded process, with another command.
fn process(
    tool: &NsExec,
    recorded: &Process,
    root: &std::path::Path,
    terminal: Option<&Terminal>,
) -> Result<Process> {
    if tool.command.is_empty() {
        bail!("no command: give one after `--`");
    }
    let mut process = recorded.clone();
    process.set_args(Some(tool.command.clone()));
    let mut env = recorded.env().clone().unwrap_or_default();
    if terminal.is_some() && !env.iter().any(|variable| variable.starts_with("TERM=")) {
        env.push("TERM=xterm".to_owned());
    }
    if let Some(name) = &tool.user {
        let user::User { uid, gid, groups, home } = user::resolve(root, name)?;
        process.set_user(UserBuilder::default().uid(uid).gid(gid).additional_gids(groups).build()?);
        set_variables(&mut env, [&format!("HOME={home}")]);
    }
    set_variables(&mut env, &tool.variables()?);
    process.set_env(Some(env));
    if let Some(directory) = &tool.workdir {
        if !directory.starts_with('/') {
            bail!("working directory {directory:?} is not absolute");
        }
        process.set_cwd(directory.into());
    }
    process.set_terminal(Some(terminal.is_some()));
    if let Some((columns, rows)) = terminal.and_then(Terminal::size) {
        let size = BoxBuilder::default().width(u64::from(columns)).height(u64::from(rows)).build()?;
        process.set_console_size(Some(size));
    }
    if tool.no_new_privs {
        process.set_no_new_privileges(Some(true));
    }
    Ok(process)
}

//! Runs another command in a running container, like `docker exec`.

use std::io::{self, Write};

use document::Id;
use life::{Container, Exec};
use oci_spec::runtime::Process;
use operation::words;
use runtime::{Foreground, Terminal};
use toolkit::{prelude::*, print_error};

use super::{NOT_STARTED, arguments::NsExec, output::Output, start};

/// Runs the command. Returns the exit status of the tool.
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
    let container = match tool.common.explain {
        true => Container::running(&scope, id)?,
        false => life::running(&scope, id)?,
    };
    let terminal = start::terminal(tool.tty && !tool.detach, tool.interactive, tool.interactive)?;
    let exec = exec(tool, terminal.as_ref())?;
    if tool.common.explain {
        let (_, process) = exec.process(&container)?;
        // A closed pipe is not an error.
        let _ = writeln!(io::stdout(), "{}", explanation(&container.identity().pid.to_string(), &process));
        return Ok(0);
    }
    let signals = Foreground::new()?;
    let (mut joined, relays) = exec.start(&container, tool.interactive, tool.detach)?;
    for warning in std::mem::take(&mut joined.warnings) {
        operation::tell!("ns-exec: warning: {warning}");
    }
    output.runs(joined.identity())?;
    output.started(&container.document)?;
    if tool.detach {
        return Ok(0);
    }
    let status = start::wait(joined, &signals, terminal, relays)?;
    output.ended(&container.document, status)?;
    Ok(status)
}

/// The same as a command to type.
fn explanation(pid: &str, process: &Process) -> String {
    let command = process.args().as_deref().unwrap_or_default();
    words(["nsenter", "--target", pid, "--all", "--"].into_iter().chain(command.iter().map(String::as_str)))
}

/// The command, and the settings that differ from the container's process.
fn exec(tool: &NsExec, terminal: Option<&Terminal>) -> Result<Exec> {
    if tool.command.is_empty() {
        bail!("no command: give one after `--`");
    }
    Ok(Exec {
        command: tool.command.clone(),
        variables: tool.variables()?,
        user: tool.user.clone(),
        workdir: tool.workdir.clone(),
        terminal: terminal.is_some(),
        size: terminal.and_then(Terminal::size),
        privileged: tool.privileged,
        no_new_privileges: tool.no_new_privs,
    })
}

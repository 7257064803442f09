//! Runs another command in a running container, like `docker exec`.

use document::Id;
use life::{Container, Exec};
use oci_spec::runtime::Process;
use operation::words;
use runtime::{Foreground, Terminal};
use toolkit::{prelude::*, print_error};

use super::{NOT_STARTED, TOOL, arguments::NsExec, output::Output, start};

/// Runs the command. Returns the exit status of the tool.
pub(crate) fn run(tool: &NsExec, id: &Id) -> u8 {
    match attempt(tool, id) {
        Ok(status) => u8::try_from(status).unwrap_or(NOT_STARTED),
        Err(error) => {
            print_error(TOOL, &error);
            start::status_of(&error)
        }
    }
}

fn attempt(tool: &NsExec, id: &Id) -> Result<i32> {
    let mut output = Output::open(tool.document.as_deref(), tool.status_fd, tool.detach)?;
    let scope = tool.common.scope()?;
    let is_plan = tool.common.explain || tool.common.dry_run;
    let container = match is_plan {
        true => Container::running(&scope, id)?,
        false => life::running(&scope, id)?,
    };
    let terminal = start::terminal(tool.tty && !tool.detach, tool.interactive, tool.interactive)?;
    let exec = exec(tool, terminal.as_ref())?;
    if is_plan {
        let (_, process) = exec.process(&container)?;
        let line = explanation(&container.identity().pid.to_string(), &process);
        return Ok(match tool.common.explain {
            true => toolkit::say(TOOL, &format!("{line}\n")) as i32,
            false if tool.common.quiet => 0,
            false => {
                operation::tell!("{line}");
                0
            }
        });
    }
    let signals = Foreground::new()?;
    let (mut joined, relays) = exec.start(&container, tool.interactive, tool.detach)?;
    for warning in std::mem::take(&mut joined.warnings) {
        operation::tell!("{TOOL}: warning: {warning}");
    }
    output.runs(joined.identity())?;
    output.started(&container.document)?;
    if tool.detach {
        return Ok(0);
    }
    let status = start::wait(joined, &signals, terminal, relays)?;
    let told = output.ended(&container.document, status);
    Ok(toolkit::with_failures("ns-exec", status, told.err()))
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

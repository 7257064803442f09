//! The life of a container: create, run, delete.

use std::{io::IsTerminal, os::fd::OwnedFd};

use anyhow::{Result, bail};
use container::Request;
use runtime::{Foreground, RawTerminal, Running, Terminal};
use rustix::{
    process::geteuid,
    termios::{OptionalActions, OutputModes, tcgetattr, tcsetattr},
};

use super::{
    Context,
    arguments::{Create, Run},
};

/// Whether the caller is not the machine's root.
pub(crate) fn is_rootless() -> bool {
    !geteuid().is_root() || !matches!(userns::is_first(), Ok(true))
}

fn request(context: &Context, create: &Create) -> Request {
    Request {
        id: create.id.clone(),
        bundle: create.bundle.clone(),
        config: create.config.clone(),
        console_socket: create.console_socket.clone(),
        pidfd_socket: create.pidfd_socket.clone(),
        pid_file: create.pid_file.clone(),
        preserved: preserved(create.preserve_fds),
        activated: activated(),
        keeps_keyring: create.no_new_keyring,
        without_pivot: create.no_pivot,
        tolerates_no_cgroup: context.tolerates_no_cgroup,
    }
}

/// Returns the descriptors to pass to the process: those of socket activation (sd_listen_fds(3)) and those of
/// `--preserve-fds`, as far as the caller has left them open. Descriptors that this program opens are
/// close-on-exec.
pub(crate) fn preserved(asked: u32) -> Vec<i32> {
    let number = activated().saturating_add(asked);
    let last = i32::try_from(3_u32.saturating_add(number)).unwrap_or(i32::MAX);
    let Ok(open) = std::fs::read_dir("/proc/self/fd") else { return Vec::new() };
    let numbers = open.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let mut kept: Vec<i32> =
        numbers.filter(|number| (3..last).contains(number) && runtime::was_inherited(*number)).collect();
    kept.sort_unstable();
    kept
}

fn activated() -> u32 {
    std::env::var("LISTEN_FDS").ok().and_then(|number| number.parse().ok()).unwrap_or_default()
}

fn make(context: &Context, create: &Create) -> Result<container::Created> {
    context.log.debug(&format!("create container {:?} from {:?}", create.id, create.bundle));
    let created = container::create(&context.store, &request(context, create))?;
    created.warnings.iter().for_each(|warning| context.log.warn(warning));
    context.log.debug(&format!(
        "process {} of container {:?} waits for start",
        created.record.process.pid, create.id
    ));
    Ok(created)
}

pub(crate) fn create(context: &Context, create: &Create) -> Result<()> {
    let mut created = make(context, create)?;
    if created.running.terminal.take().is_some() {
        remove(context, create);
        bail!(
            "create container {:?}: its process has a terminal, and --console-socket is missing",
            create.id
        );
    }
    Ok(())
}

/// Removes a created container after an error, and the file with its pid. The earlier error is reported.
fn remove(context: &Context, create: &Create) {
    if let Ok(found) = context.store.get(&create.id)
        && let Err(error) = container::delete(&found, true)
    {
        context.log.warn(&error.to_string());
    }
    if let Some(path) = &create.pid_file {
        // What is named so may never have been made.
        let _ = std::fs::remove_file(path);
    }
}

pub(crate) fn run(context: &Context, run: &Run) -> Result<u8> {
    let foreground = if run.detach { None } else { Some(Foreground::new()?) };
    let mut created = make(context, &run.create)?;
    let id = &run.create.id;
    let terminal = created.running.terminal.take();
    if run.detach && terminal.is_some() {
        remove(context, &run.create);
        bail!("run container {id:?}: its process has a terminal, and --console-socket is missing");
    }
    let raw = match raw(terminal.as_ref()) {
        Ok(raw) => raw,
        Err(error) => {
            remove(context, &run.create);
            return Err(error);
        }
    };
    created.running.terminal = terminal;
    context.log.debug(&format!("start container {id:?}"));
    if let Err(error) = container::start(&created.container) {
        drop(raw);
        remove(context, &run.create);
        return Err(error.into());
    }
    let Some(foreground) = foreground else { return Ok(0) };
    let status = wait(created.running, &foreground, raw)?;
    if !run.keep {
        delete(context, id, true)?;
    }
    Ok(status)
}

/// Puts the caller's terminal into raw mode if the process has a terminal and no socket received it.
pub(crate) fn raw(terminal: Option<&OwnedFd>) -> Result<Option<RawTerminal>> {
    let Some(terminal) = terminal else { return Ok(None) };
    // As in runc: lines in a pipe or a file end without a carriage return.
    if !std::io::stdout().is_terminal() {
        let mut settings = tcgetattr(terminal)?;
        settings.output_modes -= OutputModes::ONLCR;
        tcsetattr(terminal, OptionalActions::Now, &settings)?;
    }
    Ok(Some(Terminal::open(false)?.into_raw()?))
}

/// Waits for a process to end. Passes on signals and terminal input and output.
pub(crate) fn wait(running: Running, foreground: &Foreground, raw: Option<RawTerminal>) -> Result<u8> {
    let (status, _) = runtime::foreground(running, foreground, raw.as_ref(), runtime::Relays::default())?;
    Ok(u8::try_from(status).unwrap_or(u8::MAX))
}

pub(crate) fn delete(context: &Context, id: &str, force: bool) -> Result<()> {
    let found = match context.store.find_one(id)? {
        Some(found) => found,
        None if force => match context.store.forget(id)? {
            Some(found) => found,
            // There is nothing to remove.
            None => return Ok(()),
        },
        None => context.store.get(id)?,
    };
    context.log.debug(&format!("delete container {id:?}"));
    let failed = container::delete(&found, force)?;
    failed.iter().for_each(|error| context.log.warn(error));
    Ok(())
}

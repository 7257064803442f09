//! Runs another command in a container.

use std::path::PathBuf;

use anyhow::{Result, anyhow, bail};
use container::Record;
use oci_spec::runtime::{Capability, LinuxCapabilities, Process};
use runtime::Foreground;

use super::{Context, arguments::Exec, lifecycle};

pub(crate) fn run(context: &Context, arguments: &Exec) -> Result<u8> {
    let found = context.store.get(&arguments.id)?;
    let process = process(context, arguments, &found.record()?)?;
    let has_terminal = process.terminal().unwrap_or_default();
    match (has_terminal, arguments.detach, &arguments.console_socket) {
        (true, true, None) => bail!(
            "execute a process in container {:?}: it has a terminal, and --console-socket is missing",
            arguments.id
        ),
        (false, _, Some(_)) => bail!("use the console socket: the process has no terminal"),
        _ => {}
    }
    let request = container::Exec {
        preserved: lifecycle::preserved(arguments.preserve_fds),
        cgroups: arguments.cgroup.iter().flat_map(|text| cgroups(text)).collect(),
        ignores_pause: arguments.ignore_paused,
        pidfd_socket: arguments.pidfd_socket.clone(),
        pid_file: arguments.pid_file.clone(),
    };
    context.log.debug(&format!(
        "execute {:?} in container {:?}",
        process.args().as_deref().unwrap_or_default(),
        arguments.id
    ));
    let foreground = if arguments.detach { None } else { Some(Foreground::new()?) };
    let mut running = container::exec(&found, &process, &request)?;
    running.warnings.iter().for_each(|warning| context.log.warn(warning));
    context.log.debug(&format!(
        "process {} of container {:?} executes it",
        running.identity().pid,
        arguments.id
    ));
    if let Some(path) = &arguments.console_socket
        && let Some(terminal) = running.terminal.take()
        && let Err(error) = container::send_terminal(path, terminal)
    {
        running.kill();
        let _ = running.wait();
        if let Some(path) = &arguments.pid_file {
            let _ = std::fs::remove_file(path);
        }
        return Err(error.into());
    }
    let Some(foreground) = foreground else { return Ok(0) };
    let raw = lifecycle::raw(running.terminal.as_ref())?;
    lifecycle::wait(running, &foreground, raw)
}

/// Parses `[CONTROLLER[,CONTROLLER]…:]PATH`: the path of each controller.
fn cgroups(text: &str) -> Vec<(Option<String>, PathBuf)> {
    match text.split_once(':') {
        Some((controllers, path)) => {
            controllers.split(',').map(|controller| (Some(controller.to_owned()), path.into())).collect()
        }
        None => vec![(None, text.into())],
    }
}

/// Returns the process of the `--process` file, or the container's process with another command.
fn process(context: &Context, arguments: &Exec, record: &Record) -> Result<Process> {
    let mut process = match &arguments.process {
        Some(path) => {
            let (process, warnings) = container::bundle::read_process(path)?;
            warnings.iter().for_each(|warning| context.log.warn(warning));
            return Ok(process);
        }
        None => record.spec()?.process().clone().ok_or_else(|| anyhow!("the container has no process"))?,
    };
    if arguments.command.is_empty() {
        bail!("no command: give one after the container's id, or --process");
    }
    if arguments.process_label.is_some() {
        bail!("use --process-label: labels of SELinux are not carried out");
    }
    process
        .set_args(Some(arguments.command.clone()))
        .set_terminal(Some(arguments.tty))
        .set_console_size(None);
    if let Some(directory) = &arguments.cwd {
        process.set_cwd(directory.clone());
    }
    if let Some(profile) = &arguments.apparmor {
        process.set_apparmor_profile(Some(profile.clone()));
    }
    if arguments.no_new_privs {
        process.set_no_new_privileges(Some(true));
    }
    let mut variables = process.env().clone().unwrap_or_default();
    runtime::spec::set_variables(&mut variables, &arguments.env);
    process.set_env(Some(variables));
    user(&mut process, arguments)?;
    let added = arguments.cap.iter().map(|name| capability(name)).collect::<Result<Vec<_>>>()?;
    if let Some(sets) = process.capabilities().clone().filter(|_| !added.is_empty()) {
        process.set_capabilities(Some(with(sets, &added)));
    }
    Ok(process)
}

fn user(process: &mut Process, arguments: &Exec) -> Result<()> {
    let mut user = process.user().clone();
    if let Some(text) = &arguments.user {
        let (uid, gid) = text.split_once(':').map_or((text.as_str(), None), |(uid, gid)| (uid, Some(gid)));
        let number =
            |text: &str| text.parse::<u32>().map_err(|_| anyhow!("read user {text:?}: it is no number"));
        user.set_uid(number(uid)?);
        if let Some(gid) = gid {
            user.set_gid(number(gid)?);
        }
    }
    if !arguments.additional_gids.is_empty() {
        let mut groups = user.additional_gids().clone().unwrap_or_default();
        groups.extend(&arguments.additional_gids);
        user.set_additional_gids(Some(groups));
    }
    process.set_user(user);
    Ok(())
}

fn capability(name: &str) -> Result<Capability> {
    serde_json::from_value(serde_json::json!(name))
        .map_err(|_| anyhow!("add capability {name:?}: there is no such capability"))
}

fn with(mut sets: LinuxCapabilities, added: &[Capability]) -> LinuxCapabilities {
    let all = |set: &Option<oci_spec::runtime::Capabilities>| {
        Some(set.iter().flatten().chain(added).copied().collect())
    };
    let (bounding, effective, permitted) =
        (all(sets.bounding()), all(sets.effective()), all(sets.permitted()));
    sets.set_bounding(bounding).set_effective(effective).set_permitted(permitted);
    // As in runc: another user than root has them as ambient ones, where those may be inheritable.
    if sets.inheritable().as_ref().is_some_and(|set| !set.is_empty()) {
        let ambient = all(sets.ambient());
        sets.set_ambient(ambient);
    }
    sets
}

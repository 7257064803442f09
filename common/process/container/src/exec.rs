use std::path::{Component, PathBuf};

use oci_spec::runtime::Process;
use runtime::{Contained, Running, Streams};

use crate::{Container, Error, Record, Result, Status, console, notify, of_container, write_pid};

/// Options for another process in a container.
#[derive(Debug, Clone, Default)]
pub struct Exec {
    /// Open descriptors to pass to the process, besides its standard streams.
    pub preserved: Vec<i32>,
    /// Cgroups below the container's, relative to it. A controller limits the path to that controller's
    /// hierarchy.
    pub cgroups: Vec<(Option<String>, PathBuf)>,
    /// Whether to accept a paused container. The process is then frozen like the others.
    pub ignores_pause: bool,
    /// The Unix socket that receives a pidfd of the process. If that fails, the process is ended.
    pub pidfd_socket: Option<PathBuf>,
    /// The file that the pid is written to. If that fails, the process is ended.
    pub pid_file: Option<PathBuf>,
}

/// Starts another process in a container. It is a child of the caller, with the outer side of its terminal,
/// if it has one.
///
/// # Errors
/// For a container that does not run, or is paused. When the command cannot be executed, with a shell's exit
/// status.
pub fn exec(container: &Container, process: &Process, request: &Exec) -> Result<Running> {
    let record = container.record()?;
    match record.status()? {
        Status::Stopped => {
            return Err(of_container("execute a process in", container.id())(
                "cannot exec in a stopped container",
            ));
        }
        Status::Creating => {
            return Err(of_container("execute a process in", container.id())("it is being created"));
        }
        Status::Paused if !request.ignores_pause => {
            return Err(of_container("execute a process in", container.id())(
                "cannot exec in a paused container",
            ));
        }
        _ => {}
    }
    let spec = record.spec()?;
    let groups = groups(&record, request)?;
    let state = record.hook_state();
    let contained = Contained {
        cgroups: &groups,
        start: None,
        preserved: &request.preserved,
        keeps_keyring: false,
        without_pivot: false,
        state: &state,
    };
    let started = runtime::join_contained(&spec, record.process, process, Streams::inherit(), &contained)?;
    let pid = started.identity().pid;
    let mut running = started
        .release_with(|listener| {
            notify::hand_over(&spec, &state, (pid, record.process.pid, Status::Running.name()), listener)
        })
        .map_err(|error| crate::not_executed(Some(process), error))?;
    let identity = running.identity();
    let socket = request.pidfd_socket.as_ref();
    let told = socket.map_or(Ok(()), |path| console::send_process(path, identity, "setns"));
    let file = request.pid_file.as_ref();
    let told = told.and_then(|()| file.map_or(Ok(()), |path| write_pid(path, identity.pid)));
    if let Err(error) = told {
        // A caller that gets an error finds no process.
        running.kill();
        let _ = running.wait();
        return Err(error);
    }
    Ok(running)
}

fn groups(record: &Record, request: &Exec) -> Result<Vec<cgroup::Group>> {
    let entered = |path: &PathBuf, cause: String| Error::new("enter", format_args!("cgroup {path:?}"), cause);
    for (controller, path) in &request.cgroups {
        let has = |name: &String| record.cgroups.all().iter().any(|home| home.controllers.contains(name));
        if let Some(name) = controller.as_ref().filter(|name| !has(name)) {
            return Err(entered(path, format!("unknown controller {name}")));
        }
    }
    let mut groups = Vec::new();
    for home in record.cgroups.all() {
        let is_asked = |(controller, _): &&(Option<String>, PathBuf)| match controller {
            None => true,
            Some(name) => home.controllers.iter().any(|own| own == name),
        };
        let below = request.cgroups.iter().rev().find(is_asked).map(|(_, path)| path);
        let opened = match below {
            None => home.open()?,
            Some(path) => {
                let inside = path.strip_prefix("/").unwrap_or(path);
                if inside.components().any(|part| part == Component::ParentDir) {
                    return Err(entered(path, format!("{} is not a sub cgroup path", path.display())));
                }
                let home = cgroup::Home { path: home.path.join(inside), ..home.clone() };
                let missing = || {
                    let file = home.path.join("cgroup.procs");
                    entered(path, format!("adding pid to {}: no such file or directory", file.display()))
                };
                Some(home.open()?.ok_or_else(missing)?)
            }
        };
        groups.extend(opened);
    }
    Ok(groups)
}

//! Pauses containers.
//!
//! # Does
//! Freezes all processes of each container by its cgroup, and returns when they are frozen. With `--while`, a small
//! process in the background lets them continue when another process has ended, however that ended. With `--resume`
//! lets them continue.
//! # Reads
//! No document. Reads the records.
//! # Adds
//! Nothing; prints a JSON array with `id` of each, or text with `--format`. The cgroup itself shows the
//! pause.
//! # Undoes
//! With `--resume`, the pause.
//! # Needs
//! Root, or a user who may write to the container's cgroup.

use std::{os::fd::AsRawFd, path::Path, process::ExitCode};

use clap::Parser;
use document::Id;
use life::Container;
use operation::Scope;
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    process::{Pid, PidfdFlags, pidfd_open},
};
use serde_json::{Value, json};
use toolkit::{Each, Named, prelude::*};

/// Pause all processes of containers, or resume them
#[derive(Parser)]
#[command(name = "container-pause", version)]
struct ContainerPause {
    /// Resume the processes
    #[arg(long)]
    resume: bool,
    /// Resume the processes when the process PID has ended, also after SIGKILL
    #[arg(long = "while", value_name = "PID", conflicts_with = "resume", value_parser = clap::value_parser!(i32).range(1..))]
    during: Option<i32>,
    #[command(flatten)]
    named: Named,
}

impl Each for ContainerPause {
    fn named(&self) -> &Named {
        &self.named
    }

    fn explain(&self, context: &Context) -> Result<Vec<String>> {
        let word = u8::from(!self.resume);
        let one = |id: &Id| -> Result<String> {
            let container = Container::running(&context.scope, id)?;
            let path = container.cgroup().unwrap_or(std::path::Path::new("/"));
            Ok(format!("echo {word} > /sys/fs/cgroup{}/cgroup.freeze", path.display()))
        };
        self.named.ids.iter().map(one).collect()
    }

    fn one(&self, context: &Context, id: &Id) -> Result<Value> {
        let container = life::running(&context.scope, id)?;
        let Some(path) = container.cgroup() else { bail!("container \"{id}\" has no cgroup of its own") };
        match (self.resume, container.is_paused()?) {
            (false, true) => bail!("container \"{id}\" is paused already"),
            (true, false) => bail!("container \"{id}\" is not paused"),
            (resume, _) => {
                if let Some(pid) = self.during {
                    resume_after(pid, &context.scope, id, path)?;
                }
                life::freeze(&context.scope, id, path, !resume)?;
            }
        }
        Ok(json!({"id": id}))
    }
}

/// Starts the process that resumes the container after the end of the process `pid`.
fn resume_after(pid: i32, scope: &Scope, id: &Id, path: &Path) -> Result<()> {
    let process = Pid::from_raw(pid).ok_or(Errno::SRCH).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()));
    let process = process.with_context(|| format!("watch process {pid}"))?;
    Ok(runtime::background(&[process.as_raw_fd()], || {
        while poll(&mut [PollFd::new(&process, PollFlags::IN)], None) == Err(Errno::INTR) {}
        life::freeze(scope, id, path, false).is_err().into()
    })?)
}

pub(crate) fn main() -> ExitCode {
    toolkit::report::<ContainerPause>()
}

//! Runs containers for podman, containerd, dockerd and others: runc's command line.
//!
//! # Does
//! `create` makes a container from a bundle: an OCI runtime-spec 1.2 `config.json` with a root file system.
//! Its process waits until `start` lets it execute its command. `run` does both, and waits for the process.
//! `exec`, `ps`, `pause`, `resume`, `update`, `events`, `kill` and `delete` work on an existing container.
//! # Reads
//! No document. The bundle, and the states of containers in `--root`.
//! # Adds
//! A directory for each container in `--root`; prints what runc prints.
//! # Undoes
//! `delete`.
//! # Needs
//! Root, or root in a user namespace. A configuration that sets an unsupported property is rejected.

mod arguments;
mod exec;
mod lifecycle;
mod limits;
mod listing;
mod log;

use std::process::ExitCode;

use anyhow::{Result, bail};
use arguments::{Command, OciRuntime};
use clap::Parser;
use container::Store;
use log::Log;

const TOOL: &str = "oci-runtime";

/// The exit status of `exec` when the command does not run, as with runc.
const EXEC_FAILED: u8 = 255;

/// What a command needs from the command line.
struct Context {
    store: Store,
    log: Log,
    tolerates_no_cgroup: bool,
}

fn context(arguments: &OciRuntime) -> Result<Context> {
    if arguments.systemd_cgroup {
        bail!("use --systemd-cgroup: cgroups are made directly here, and not by systemd");
    }
    if let Some(other) = arguments.cgroup_manager.as_deref().filter(|manager| *manager != "cgroupfs") {
        bail!("use --cgroup-manager {other}: cgroups are made directly here, as by cgroupfs");
    }
    let log = Log::open(arguments)?;
    if arguments.criu.is_some() {
        log.warn("ignore --criu: there are no checkpoints");
    }
    let store = match &arguments.root {
        Some(directory) => Store::new(std::path::absolute(directory)?),
        None => Store::find(std::env::var_os("XDG_RUNTIME_DIR").map(Into::into))?,
    };
    let tolerates_no_cgroup = match arguments.rootless {
        arguments::Rootless::True => true,
        arguments::Rootless::False => false,
        arguments::Rootless::Auto => lifecycle::is_rootless(),
    };
    Ok(Context { store, log, tolerates_no_cgroup })
}

fn run(arguments: &OciRuntime) -> Result<u8> {
    let context = context(arguments)?;
    let store = &context.store;
    let Some(command) = &arguments.command else { bail!("no command: --help lists them") };
    match command {
        Command::Create(create) => lifecycle::create(&context, create),
        Command::Start(one) => Ok(container::start(&store.get(&one.id)?)?),
        Command::Run(run) => return lifecycle::run(&context, run),
        Command::Exec(exec) => return exec::run(&context, exec),
        Command::State(one) => listing::state(&store.get(&one.id)?),
        Command::List { format, quiet } => {
            // The default directory is made with the first container.
            arguments.root.as_ref().map_or(Ok(()), listing::exists)?;
            listing::all(store, *format, *quiet)
        }
        Command::Kill { all, id, signal } => {
            Ok(container::kill(&store.get(id)?, container::signal(signal)?, *all)?)
        }
        Command::Delete { force, id } => lifecycle::delete(&context, id, *force),
        Command::Pause(one) => Ok(container::pause(&store.get(&one.id)?)?),
        Command::Resume(one) => Ok(container::resume(&store.get(&one.id)?)?),
        Command::Ps { format, id, options } => listing::processes(&store.get(id)?, *format, options),
        Command::Update(update) => limits::update(&context, update),
        Command::Events { stats, interval, id } => limits::events(&store.get(id)?, *stats, *interval),
        Command::Spec { bundle, rootless } => listing::template(bundle, *rootless),
        Command::Features => listing::print(&container::features::all()),
    }
    .map(|()| 0)
}

/// Joins an error and its causes, each once: some errors already contain their cause.
fn told(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        // An error of the system appears twice: with its words only, and with the name of the call before
        // them.
        } else if !text.contains(cause.rsplit(": ").next().unwrap_or_default()) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

pub(crate) fn main() -> ExitCode {
    let _ = operation::interrupt::settle_signals();
    operation::keep_others_out();
    let arguments = match OciRuntime::try_parse() {
        Ok(arguments) => arguments,
        Err(usage) if usage.use_stderr() => usage.exit(),
        Err(usage) => return toolkit::help(TOOL, &usage).into(),
    };
    if arguments.version {
        let (own, of_spec) = (env!("CARGO_PKG_VERSION"), container::VERSION);
        return toolkit::say(TOOL, &format!("{TOOL} version {own}\nspec: {of_spec}\n")).into();
    }
    match run(&arguments) {
        Ok(status) => status.into(),
        Err(error) => {
            let hint = operation::hint_of(error.as_ref());
            let log = Log::open(&arguments).unwrap_or_else(|_| Log::standard(&arguments));
            log.fail(&told(&error), hint.as_deref());
            let is_exec = matches!(arguments.command, Some(Command::Exec(_)));
            if is_exec { EXEC_FAILED.into() } else { ExitCode::FAILURE }
        }
    }
}

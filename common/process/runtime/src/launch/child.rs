//! The new process, from the fork until it executes its command.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use nix::sys::resource::{Resource, setrlimit};
use oci_spec::runtime::{LinuxNamespaceType, PosixRlimit, PosixRlimitType, Process, Spec};
use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
    process::DumpableBehavior,
};

use seccomp::Program;

use super::{
    Surroundings,
    channel::Channel,
    command, credentials, devices, held, init, join,
    namespaces::{Namespaces, in_user_namespace},
    parameters, root, stdio,
    stdio::Streams,
};
use crate::{
    Error,
    error::Result,
    sys::{self, ProgramFile},
};

/// Returns only with an error, or after another process took over (see [`join`]).
pub(super) fn run(
    namespaces: &Namespaces,
    surroundings: &Surroundings<'_>,
    process: &Process,
    (program, own): (Option<&Program>, Option<&ProgramFile>),
    streams: &Streams<'_>,
    gate: BorrowedFd<'_>,
    channel: &Channel,
) -> Result<()> {
    sys::reset_signals().map_err(Error::at("reset", "signals"))?;
    rustix::process::setsid().map_err(Error::at("create", "session"))?;
    // Until its command is executed, this process is a program of the host, which others must not reach through /proc.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(Error::at("protect", "the process"))?;
    let (report, stand_in) = match surroundings {
        Surroundings::New(_) => (None, None),
        Surroundings::Joined(joined) => (Some(&joined.report), joined.program.as_ref().map(AsFd::as_fd)),
    };
    leave_program_file(own, stand_in)?;
    sys::forget_arguments().map_err(Error::at("clear", "the arguments"))?;
    sys::leave_keyring().map_err(Error::at("leave", "the caller's session keyring"))?;
    let streams = streams.open()?;
    if report.is_some() {
        namespaces.enter_user()?;
    }
    let denies_setgroups = userns::denies_setgroups();
    let inside = namespaces.user();
    if let Some(user) = inside {
        user.act_for_root()?;
    }
    let terminal = surround(namespaces, surroundings, process, channel)?;
    let mask = process.user().umask().unwrap_or(0o022);
    rustix::process::umask(Mode::from_raw_mode(mask));
    enter_directory(process.cwd())?;
    limit(process.rlimits().as_deref().unwrap_or_default(), channel)?;
    // While the process is not in its user namespace, its user has another number.
    let uid = process.user().uid();
    let uid = inside.and_then(|user| user.ids.user_outside(uid)).unwrap_or(uid);
    let user = rustix::fs::Uid::from_raw(uid);
    let has_terminal = terminal.is_some();
    if let Some(terminal) = terminal {
        rustix::fs::fchown(&terminal, Some(user), None)
            .map_err(Error::at("change", "owner of the terminal"))?;
        stdio::install_terminal(&terminal, report.is_none())?;
        // Not later: all descriptors are closed before a joining process hands over.
        drop(streams);
    } else {
        stdio::install(streams)?;
        stdio::give(user);
    }
    if let Some(user) = inside {
        user.enter()?;
    }
    credentials::take(process, denies_setgroups, program.is_some())?;
    let command = command::find(process)?;
    sys::close_on_exec_from(3).map_err(Error::at("close", "descriptors"))?;
    wait(gate)?;
    if let Some(report) = report {
        let confine = || credentials::finish(process, program);
        join::hand_over(&command, has_terminal, channel, report, confine);
        return Ok(());
    }
    // After the credentials, because the kernel forgets it when they change. After the gate, because the signal comes
    // when the forking thread ends, and that may have been a short-lived one (`Namespaces::fork`).
    if is_set(surroundings, crate::spec::ENDS_WITH_PARENT) {
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
            .map_err(Error::at("bind", "the process to its parent"))?;
        // It may have ended just before.
        if channel.is_closed() {
            return Err(Error::new("start: given up by the parent process"));
        }
    }
    credentials::finish(process, program)?;
    if is_set(surroundings, crate::spec::INIT) {
        return init::run(process, &command, has_terminal, channel);
    }
    let errno = command.execute();
    Err(command::not_executed(&command.path.to_string_lossy(), errno))
}

/// Nothing of the host's program may be left in a process of the container. In a user namespace an old kernel does not let
/// go of it; there it belongs to somebody else as a rule, and the namespace's root cannot change it.
fn leave_program_file(own: Option<&ProgramFile>, stand_in: Option<BorrowedFd<'_>>) -> Result<()> {
    match sys::leave_program_file(own.map(AsFd::as_fd), stand_in) {
        Err(error) if error.raw_os_error() == Some(nix::libc::EPERM) && in_user_namespace()? => Ok(()),
        left => left.map_err(Error::at("leave", "the file of the program")),
    }
}

/// Whether a new container has this annotation.
fn is_set(surroundings: &Surroundings<'_>, name: &str) -> bool {
    let Surroundings::New(spec) = surroundings else { return false };
    crate::spec::is_annotated(spec, name)
}

/// Makes or enters the surroundings, and opens the terminal in them.
fn surround(
    namespaces: &Namespaces,
    surroundings: &Surroundings<'_>,
    process: &Process,
    channel: &Channel,
) -> Result<Option<OwnedFd>> {
    let terminal = process.terminal().unwrap_or_default().then_some(process);
    match surroundings {
        Surroundings::New(spec) => {
            adjust_oom(process, channel)?;
            namespaces.enter()?;
            if !crate::spec::is_annotated(spec, crate::spec::ENDS_WITH_PARENT) {
                let user = namespaces.user().map(|user| user.namespace.as_fd());
                channel.entrust(&held::own(user)?)?;
            }
            name(spec, namespaces)?;
            parameters::set(spec, channel)?;
            root::make(spec, terminal, channel, namespaces.user())
        }
        Surroundings::Joined(_) => {
            namespaces.enter_all()?;
            let Some(process) = terminal else { return Ok(None) };
            devices::open_terminal(own_root()?.as_fd(), process, channel).map(Some)
        }
    }
}

fn own_root() -> Result<OwnedFd> {
    rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(Error::at("open", "\"/\""))
}

fn name(spec: &Spec, namespaces: &Namespaces) -> Result<()> {
    if !namespaces.is_new(LinuxNamespaceType::Uts) {
        return Ok(());
    }
    if let Some(name) = spec.hostname() {
        nix::unistd::sethostname(name).map_err(Error::at("set", format_args!("hostname {name:?}")))?;
    }
    if let Some(name) = spec.domainname() {
        rustix::system::setdomainname(name.as_bytes())
            .map_err(Error::at("set", format_args!("domain name {name:?}")))?;
    }
    Ok(())
}

fn adjust_oom(process: &Process, channel: &Channel) -> Result<()> {
    let Some(score) = process.oom_score_adj() else { return Ok(()) };
    const PATH: &str = "/proc/self/oom_score_adj";
    match std::fs::write(PATH, score.to_string()) {
        Ok(()) => Ok(()),
        Err(error) => {
            not_permitted(Error::system("write", format_args!("{score} to {PATH:?}"), error), channel)
        }
    }
}

/// A caller without CAP_SYS_RESOURCE can run containers all the same, with a warning.
fn not_permitted(error: Error, channel: &Channel) -> Result<()> {
    use nix::errno::Errno::{EACCES, EPERM};
    if !matches!(error.errno(), Some(EPERM | EACCES)) {
        return Err(error);
    }
    channel.warn(&error);
    Ok(())
}

fn limit(limits: &[PosixRlimit], channel: &Channel) -> Result<()> {
    for limit in limits {
        if let Err(errno) = setrlimit(resource(limit.typ()), limit.soft(), limit.hard()) {
            let object = format!("limit {} to {}:{}", limit.typ(), limit.soft(), limit.hard());
            not_permitted(Error::system("set", object, errno), channel)?;
        }
    }
    Ok(())
}

fn resource(kind: PosixRlimitType) -> Resource {
    match kind {
        PosixRlimitType::RlimitCpu => Resource::RLIMIT_CPU,
        PosixRlimitType::RlimitFsize => Resource::RLIMIT_FSIZE,
        PosixRlimitType::RlimitData => Resource::RLIMIT_DATA,
        PosixRlimitType::RlimitStack => Resource::RLIMIT_STACK,
        PosixRlimitType::RlimitCore => Resource::RLIMIT_CORE,
        PosixRlimitType::RlimitRss => Resource::RLIMIT_RSS,
        PosixRlimitType::RlimitNproc => Resource::RLIMIT_NPROC,
        PosixRlimitType::RlimitNofile => Resource::RLIMIT_NOFILE,
        PosixRlimitType::RlimitMemlock => Resource::RLIMIT_MEMLOCK,
        PosixRlimitType::RlimitAs => Resource::RLIMIT_AS,
        PosixRlimitType::RlimitLocks => Resource::RLIMIT_LOCKS,
        PosixRlimitType::RlimitSigpending => Resource::RLIMIT_SIGPENDING,
        PosixRlimitType::RlimitMsgqueue => Resource::RLIMIT_MSGQUEUE,
        PosixRlimitType::RlimitNice => Resource::RLIMIT_NICE,
        PosixRlimitType::RlimitRtprio => Resource::RLIMIT_RTPRIO,
        PosixRlimitType::RlimitRttime => Resource::RLIMIT_RTTIME,
    }
}

/// The working directory, made if it is missing, as Docker does. Opened inside the root, so that a path through `/proc`
/// cannot lead to a directory of the host.
fn enter_directory(path: &Path) -> Result<()> {
    let object = || format!("directory {path:?}");
    let directory = mount::resolve::create_in(own_root()?, path, mount::resolve::Leaf::Directory)
        .map_err(Error::at("enter", object()))?;
    rustix::process::fchdir(directory).map_err(Error::at("enter", object()))
}

/// Waits until the parent has recorded this process. If the parent dies before, the command is not run.
fn wait(gate: BorrowedFd<'_>) -> Result<()> {
    let mut byte = [0];
    loop {
        match rustix::io::read(gate, &mut byte) {
            Ok(1) => return Ok(()),
            Err(Errno::INTR) => {}
            _ => return Err(Error::new("start: given up by the parent process")),
        }
    }
}

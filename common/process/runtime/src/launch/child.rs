//! The new process, from the fork until it executes its command.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::resource::{Resource, setrlimit};
use oci_spec::runtime::{LinuxNamespaceType, PosixRlimit, PosixRlimitType, Process, Spec};
use rustix::{
    fs::{Mode, OFlags},
    process::DumpableBehavior,
};
use seccomp::Program;

use super::{
    Birth, Contained, Filter, Surroundings,
    channel::Channel,
    command, credentials, devices, gate, held, init, join,
    namespaces::{Namespaces, in_user_namespace},
    parameters,
    profile::Profile,
    root, scheduling, stdio,
};
use crate::{
    Error,
    error::Result,
    sys::{self, ProgramFile},
};

/// Runs the new process. Returns only with an error, or after another process has taken over (see [`join`]).
pub(super) fn run(birth: &Birth<'_>) -> Result<()> {
    let Birth { namespaces, process, channel, contained, .. } = birth;
    leave_caller(birth)?;
    let streams = birth.streams.open(!matches!(birth.surroundings, Surroundings::New))?;
    let report = match birth.surroundings {
        Surroundings::New => None,
        Surroundings::Joined(joined) => Some(&joined.report),
    };
    if report.is_some() {
        adjust_oom(process, channel, contained.is_some())?;
        namespaces.enter_user()?;
    }
    let denies_setgroups = userns::denies_setgroups();
    let inside = namespaces.user();
    if let Some(user) = inside {
        user.act_for_root()?;
    }
    if contained.is_some() {
        let is_bound = report.is_some() && process.exec_cpu_affinity().is_some();
        schedule(process, is_bound)?;
    }
    let profile = Profile::open(process)?;
    let terminal = surround(birth)?;
    let mask = process.user().umask().unwrap_or(0o022);
    rustix::process::umask(Mode::from_raw_mode(mask));
    enter_directory(process.cwd(), report.is_some() && contained.is_none())?;
    limit(process.rlimits().as_deref().unwrap_or_default(), channel, contained.is_some())?;
    let has_terminal = terminal.is_some();
    install_streams(birth, streams, terminal, contained.is_some())?;
    if let Some(user) = inside {
        user.enter()?;
    }
    credentials::take(
        process,
        denies_setgroups,
        !matches!(birth.filter, Filter::None),
        contained.is_some().then_some(channel),
    )?;
    let mut command = command::find(process)?;
    if contained.is_some() {
        command.set_default("HOME", &crate::user::home(&own_root()?, process.user().uid()));
    }
    sys::close_on_exec_from(3).map_err(Error::at("close", "descriptors"))?;
    sys::keep_on_exec(birth.preserved()).map_err(Error::at("keep", "descriptors"))?;
    if let (Some(contained), Surroundings::New) = (contained, birth.surroundings)
        && let Some(start) = contained.start
    {
        return when_started(birth, (contained, start), &command, profile);
    }
    let program = gate::wait(birth.gate, matches!(birth.filter, Filter::Awaited))?;
    let program = program.as_ref();
    profile.map_or(Ok(()), Profile::set)?;
    if let Some(report) = report {
        let confine = || credentials::finish(process, program);
        join::hand_over(&command, has_terminal, channel, report, confine, birth.preserved());
        return Ok(());
    }
    execute_below_parent(birth, &command, has_terminal, program)
}

/// Sets the scheduling of a container's process. One that `is_bound` has an affinity of its own already.
fn schedule(process: &Process, is_bound: bool) -> Result<()> {
    // The caller's own affinity is not the container's, as in runc. A kernel may refuse.
    if !is_bound {
        let _ = sys::run_on_all_processors();
    }
    scheduling::set(process)
}

/// Gives up what the new process has inherited from the process that forked it.
fn leave_caller(birth: &Birth<'_>) -> Result<()> {
    sys::reset_signals().map_err(Error::at("reset", "signals"))?;
    rustix::process::setsid().map_err(Error::at("create", "session"))?;
    // Until its command is executed, this process is a program of the host, which others must not reach through /proc.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(Error::at("protect", "the process"))?;
    let stand_in = match birth.surroundings {
        Surroundings::New => None,
        Surroundings::Joined(joined) => joined.program.as_ref().map(AsFd::as_fd),
    };
    leave_program_file(birth.own, stand_in)?;
    sys::forget_arguments().map_err(Error::at("clear", "the arguments"))?;
    if birth.contained.is_some_and(|contained| contained.keeps_keyring) {
        return Ok(());
    }
    sys::leave_keyring().map_err(Error::at("leave", "the caller's session keyring"))
}

/// Makes the terminal, or the caller's streams, the standard streams of the process and of its user.
fn install_streams(
    birth: &Birth<'_>,
    streams: [Option<OwnedFd>; 3],
    terminal: Option<OwnedFd>,
    is_contained: bool,
) -> Result<()> {
    // Until the process enters its user namespace, its user has another id.
    let uid = birth.process.user().uid();
    let inside = birth.namespaces.user();
    let uid = inside.and_then(|user| user.ids.user_outside(uid)).unwrap_or(uid);
    let user = rustix::fs::Uid::from_raw(uid);
    if let Some(terminal) = terminal {
        rustix::fs::fchown(&terminal, Some(user), None)
            .map_err(Error::at("change", "owner of the terminal"))?;
        stdio::install_terminal(&terminal, matches!(birth.surroundings, Surroundings::New))?;
        // All descriptors are closed before a joining process hands over, so drop these now.
        drop(streams);
    } else {
        stdio::install(streams)?;
        stdio::own_null(!matches!(birth.surroundings, Surroundings::New))?;
        stdio::give(user, is_contained);
    }
    Ok(())
}

/// Waits until another process starts this one, the first process of a container. Returns only with an error,
/// or when the starting process is gone.
fn when_started(
    birth: &Birth<'_>,
    (contained, start): (&Contained<'_>, &super::StartSocket),
    command: &command::Command,
    profile: Option<Profile<'_>>,
) -> Result<()> {
    let Birth { process, channel, .. } = birth;
    let program = match birth.filter {
        Filter::Ready(program) => Some(program),
        Filter::None | Filter::Awaited => None,
    };
    // The program that answers the policy's calls must know of it before the container is started, as with
    // runc.
    if program.is_some_and(Program::notifies)
        && let Some(listener) = credentials::finish(process, program)?
    {
        channel.notify_by(listener.as_fd())?;
    }
    sys::end_on_signals().map_err(Error::at("handle", "signals"))?;
    channel.wait_for_leave()?;
    let starter = Channel::accept(start.as_fd())?;
    // The creator is gone.
    let Err(error) = execute(birth, (contained, &starter), command, profile, program) else {
        return Ok(());
    };
    starter.fail(&error);
    Err(error)
}

/// The last steps of a process that its parent starts. Returns only with an error.
fn execute_below_parent(
    birth: &Birth<'_>,
    command: &command::Command,
    has_terminal: bool,
    program: Option<&Program>,
) -> Result<()> {
    let Birth { process, channel, .. } = birth;
    // This must follow the credentials, because the kernel resets the signal when they change. It must follow
    // the gate, because the signal comes when the forking thread ends, and that may have been a short-lived
    // one (`Namespaces::fork`).
    if is_set(birth, crate::spec::ENDS_WITH_PARENT) {
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
            .map_err(Error::at("bind", "the process to its parent"))?;
        // The parent may have ended just before.
        if channel.is_closed() {
            return Err(Error::new("start: given up by the parent process"));
        }
    }
    credentials::finish(process, program)?;
    if is_set(birth, crate::spec::INIT) {
        return init::run(process, command, has_terminal, channel);
    }
    let errno = command.execute();
    Err(command::not_executed(&command.path.to_string_lossy(), errno))
}

/// The last steps of the first process of a container, after another process has started it.
fn execute(
    birth: &Birth<'_>,
    (contained, starter): (&Contained<'_>, &Channel),
    command: &command::Command,
    profile: Option<Profile<'_>>,
    program: Option<&Program>,
) -> Result<()> {
    // The hooks inherit it. Their own processes are the first to execute a program.
    profile.map_or(Ok(()), Profile::set)?;
    contained.run_start_hooks(birth.spec, command.environment(), program)?;
    // The policy may forbid to say this later. Whoever starts the container cannot tell otherwise whether a process that
    // is gone by then has executed its command.
    let _ = starter.ready();
    if !program.is_some_and(Program::notifies) {
        credentials::finish(birth.process, program)?;
    }
    let errno = command.execute();
    Err(command::not_executed(&command.path.to_string_lossy(), errno))
}

/// Lets go of the host's program file, so that a process of the container cannot reach it. In a user
/// namespace, an old kernel does not allow this. The file then usually belongs to another user, and the
/// namespace's root cannot change it.
fn leave_program_file(own: Option<&ProgramFile>, stand_in: Option<BorrowedFd<'_>>) -> Result<()> {
    match sys::leave_program_file(own.map(AsFd::as_fd), stand_in) {
        Err(error) if error.raw_os_error() == Some(nix::libc::EPERM) && in_user_namespace()? => Ok(()),
        left => left.map_err(Error::at("leave", "the file of the program")),
    }
}

/// Whether the process is a new container's, and the container has this annotation.
fn is_set(birth: &Birth<'_>, name: &str) -> bool {
    matches!(birth.surroundings, Surroundings::New) && crate::spec::is_annotated(birth.spec, name)
}

/// Makes or enters the surroundings, and opens the terminal in them.
fn surround(birth: &Birth<'_>) -> Result<Option<OwnedFd>> {
    let Birth { spec, namespaces, process, channel, contained, .. } = birth;
    let terminal = process.terminal().unwrap_or_default().then_some(*process);
    match birth.surroundings {
        Surroundings::New => {
            // If a user namespace is entered first, the process in between has done this.
            if !namespaces.has_owner() {
                adjust_oom(process, channel, contained.is_some())?;
            }
            namespaces.enter(spec)?;
            if contained.is_none() && !crate::spec::is_annotated(spec, crate::spec::ENDS_WITH_PARENT) {
                let user = namespaces.user().map(|user| user.namespace.as_fd());
                channel.entrust(&held::own(user)?)?;
            }
            name(spec, namespaces)?;
            parameters::set(spec, channel)?;
            if contained.is_some() {
                scheduling::memory(spec)?;
                scheduling::personality(spec)?;
            }
            root::make(terminal, birth)
        }
        Surroundings::Joined(_) => {
            if contained.is_some() {
                let affinity = process.exec_cpu_affinity().as_ref();
                scheduling::affinity(affinity.and_then(|affinity| affinity.cpu_affinity_final().as_ref()))?;
                scheduling::memory(spec)?;
                scheduling::personality(spec)?;
            }
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

/// Sets the OOM score. With `strict`, a missing privilege is an error.
pub(super) fn adjust_oom(process: &Process, channel: &Channel, strict: bool) -> Result<()> {
    let Some(score) = process.oom_score_adj() else { return Ok(()) };
    const PATH: &str = "/proc/self/oom_score_adj";
    match std::fs::write(PATH, score.to_string()) {
        Ok(()) => Ok(()),
        Err(error) => {
            let error = Error::system("write", format_args!("{score} to {PATH:?}"), error);
            not_permitted(error, channel, strict)
        }
    }
}

/// Turns a missing privilege into a warning, so that a caller without CAP_SYS_RESOURCE can still run
/// containers. With `strict` it stays an error.
fn not_permitted(error: Error, channel: &Channel, strict: bool) -> Result<()> {
    use nix::errno::Errno::{EACCES, EPERM};
    if strict || !matches!(error.errno(), Some(EPERM | EACCES)) {
        return Err(error);
    }
    channel.warn(&error);
    Ok(())
}

fn limit(limits: &[PosixRlimit], channel: &Channel, strict: bool) -> Result<()> {
    for limit in limits {
        if let Err(errno) = setrlimit(resource(limit.typ()), limit.soft(), limit.hard()) {
            let object = format!("limit {} to {}:{}", limit.typ(), limit.soft(), limit.hard());
            not_permitted(Error::system("set", object, errno), channel, strict)?;
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

/// Enters the working directory, which exists in a new container by now (`root::make`). It is opened inside
/// the root, so that a path through `/proc` cannot lead to a directory of the host. With `joins`, an error
/// means that the command cannot be executed, as with Docker.
fn enter_directory(path: &std::path::Path, joins: bool) -> Result<()> {
    let enter = || {
        let directory = mount::resolve::open_in(own_root()?, path, OFlags::PATH | OFlags::DIRECTORY)
            .map_err(Error::at("enter", format_args!("directory {path:?}")))?;
        rustix::process::fchdir(directory).map_err(Error::at("enter", format_args!("directory {path:?}")))
    };
    enter().map_err(|error| match joins {
        true => Error::with_status(command::NOT_EXECUTABLE, error.into()),
        false => error,
    })
}

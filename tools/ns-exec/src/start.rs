//! Starts a container's process, and waits for it.

use std::{
    ffi::OsString,
    fs::File,
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::PathBuf,
};

use document::{
    Document, Id, Member,
    members::{Failure, Rootfs},
};
use life::{End, Recorded};
use monitor::{Attended, Ended, Log, Place};
use oci_spec::runtime::BoxBuilder;
use operation::{Scope, interrupt};
use runtime::{
    Foreground, Identity, Relayed, Running, Started, Stdio, StopSignal, Streams, Supervised, Terminal,
    foreground,
};
use toolkit::{Exit, Hooks, Input, Plan, prelude::*, print_error};

use crate::{
    NOT_STARTED, TIMED_OUT,
    arguments::NsExec,
    operation::ContainerOperation,
    output::Output,
    salvage::salvage,
    settings::Settings,
    timeout::{self, Timer},
};

const TOOL: &str = "ns-exec";

/// The hint if standard input has no document.
const FROM: &str = "put it after another tool in a pipe, or use --from, -n or --join";

/// What distinguishes `ns-exec` from a filter: it starts a process that owns standard output.
pub(crate) struct Start {
    input: Input,
    output: Output,
    detach: bool,
    /// Whether to make the container without starting it.
    create: bool,
    interactive: bool,
    tty: bool,
    terminal: Option<Terminal>,
    /// Signals to pass on, blocked from [`Hooks::prepare`] on. Not used with -d.
    signals: Option<Foreground>,
    /// Output files that the command's user could not open.
    relayed: Vec<Relayed>,
    /// Whether to be the container's monitor.
    monitors: bool,
    /// The monitor that is about to begin.
    attended: Option<Attended>,
    settings: Settings,
}

/// A launched process and its container.
pub(crate) struct Launched {
    state: State,
    identity: Identity,
    scope: Scope,
    id: Id,
    stop_signal: StopSignal,
}

enum State {
    /// Held; the caller waits for it.
    Own(Started),
    /// Held; its supervisor waits for it.
    Background(Supervised),
    /// Running; the caller waits for it.
    Running(Running),
    /// Running in the background; or created for `container-start`.
    Supervised,
}

impl Start {
    fn new(output: Output, from: Option<PathBuf>, null_input: bool) -> Self {
        let input = match (from, null_input) {
            (Some(path), _) => Input::File(path),
            (None, true) => Input::Empty,
            (None, false) => Input::Standard(FROM),
        };
        Self {
            input,
            output,
            detach: false,
            create: false,
            interactive: false,
            tty: false,
            terminal: None,
            signals: None,
            relayed: Vec::new(),
            monitors: false,
            attended: None,
            settings: Settings::default(),
        }
    }
}

impl Hooks<NsExec> for Start {
    type Process = Launched;
    const LAUNCHES: bool = true;

    fn open(tool: &NsExec) -> Result<Self> {
        let output = Output::open(tool.document.as_deref(), tool.status_fd, tool.detach || tool.create)?;
        Ok(Self {
            detach: tool.detach || tool.create,
            create: tool.create,
            interactive: tool.interactive,
            tty: tool.tty,
            monitors: tool.monitor,
            settings: tool.settings.clone(),
            ..Self::new(output, tool.from.clone(), tool.common.null_input)
        })
    }

    fn salvage(arguments: &[OsString]) -> Self {
        let told = salvage(arguments);
        let output = Output::open(told.document.as_deref(), None, told.detach).unwrap_or_default();
        Self::new(output, told.from, told.null_input)
    }

    fn input(&self) -> Input {
        self.input.clone()
    }

    /// Lets a shell run in the container of a failed build step: removes the failure from the document. The
    /// document must come from a file that the user names, not from a pipe.
    fn looks_into(&self, document: &mut Document) -> bool {
        let failure = document.get::<Failure>().ok().flatten();
        let is_of_build = failure.is_some_and(|failure| failure.tool == "img-build");
        let looks =
            is_of_build && matches!(self.input, Input::File(_)) && document.raw(Rootfs::NAME).is_some();
        if looks {
            document.remove(Failure::NAME);
        }
        looks
    }

    fn prepare(&mut self, plan: &mut Plan<NsExec>) -> Result<()> {
        // With -i, keyboard input comes from standard input.
        let types = self.interactive && !matches!(self.input, Input::Standard(_));
        self.terminal = terminal(self.tty && !self.detach, types, self.interactive)?;
        if let (Some((columns, rows)), Some(ContainerOperation::Process(process))) =
            (self.terminal.as_ref().and_then(Terminal::size), plan.operations.last_mut())
            && let Some(process) = process.spec.process_mut()
        {
            let size = BoxBuilder::default().width(u64::from(columns)).height(u64::from(rows)).build()?;
            process.set_console_size(Some(size));
        }
        self.signals = if self.detach { None } else { Some(Foreground::new()?) };
        if self.settings.die_with_parent {
            timeout::end_with_parent()?;
        }
        Ok(())
    }

    fn launch(
        &mut self,
        scope: &Scope,
        document: &Document,
        operation: &mut ContainerOperation,
    ) -> Result<Launched> {
        let ContainerOperation::Process(process) = operation else { bail!("no process was planned") };
        let id = document.id()?.ok_or_else(|| anyhow!("the container has no id"))?;
        let state = self.fork(scope, &id, document, process)?;
        let identity = match &state {
            State::Supervised => process.identity,
            State::Own(started) => started.identity(),
            State::Background(supervised) => supervised.identity(),
            State::Running(_) => bail!("the process runs already"),
        };
        process.identity = identity;
        Ok(Launched {
            state,
            identity,
            scope: scope.clone(),
            id,
            stop_signal: runtime::spec::stop_signal(&process.spec).unwrap_or_default(),
        })
    }

    fn release(&mut self, launched: &mut Launched) -> Result<()> {
        if self.detach {
            interrupt::checked()?;
        }
        let released = match std::mem::replace(&mut launched.state, State::Supervised) {
            State::Own(started) => started.release().map(|mut running| {
                let warnings = std::mem::take(&mut running.warnings);
                (State::Running(running), warnings)
            }),
            State::Background(supervised) => {
                supervised.release().map(|warnings| (State::Supervised, warnings))
            }
            state => Ok((state, Vec::new())),
        };
        let (state, warnings) = released?;
        launched.state = state;
        warnings.iter().for_each(|warning| operation::tell!("{TOOL}: warning: {warning}"));
        match self.create {
            true => Ok(life::rest(&launched.scope, &launched.id)?),
            false => self.output.runs(launched.identity),
        }
    }

    fn write(&mut self, document: &Document) -> Result<()> {
        self.output.started(document)
    }

    fn write_planned(&mut self, document: &Document) -> Result<()> {
        self.output.planned(document)
    }

    fn pass_on(&mut self, document: &Document) {
        self.output.pass_on(document);
    }

    fn stay(&mut self, launched: Launched, mut document: Document) -> u8 {
        let Launched { state, identity, scope, id, stop_signal } = launched;
        let State::Running(running) = state else { return Exit::Done as u8 };
        let timer = self.settings.timeout.map(|limit| Timer::start(identity, limit, stop_signal));
        let attended = self.attended.take();
        let is_recorded = attended.is_some();
        let status = match (self.signals.take(), attended) {
            (Some(signals), Some(attended)) => {
                self.attend(attended, running, &signals, (&scope, &id, &document))
            }
            (Some(signals), None) => {
                wait(running, &signals, self.terminal.take(), std::mem::take(&mut self.relayed))
            }
            (None, _) => Err(anyhow!("wait for process {}: no signals are held back", identity.pid)),
        };
        let status = status.unwrap_or_else(|error| {
            print_error(TOOL, &error);
            i32::from(NOT_STARTED)
        });
        let status = match timer.is_some_and(Timer::has_fired) {
            true => i32::from(TIMED_OUT),
            false => status,
        };
        let end = End { identity, status: Some(status) };
        // A monitor has written the end to the record, and the container may run again already.
        let noted = match is_recorded {
            true => life::noted(&id, end, &mut document),
            false => life::end(&scope, &id, end, &mut document),
        };
        let told = noted.map_err(anyhow::Error::from).and_then(|()| self.output.ended(&document, status));
        if let Err(error) = told {
            print_error(TOOL, &error);
        }
        u8::try_from(status).unwrap_or(NOT_STARTED)
    }

    fn status(exit: Exit, error: Option<&anyhow::Error>) -> u8 {
        match exit {
            Exit::Done => Exit::Done as u8,
            _ => error.map_or(NOT_STARTED, status_of),
        }
    }
}

impl Start {
    fn fork(
        &mut self,
        scope: &Scope,
        id: &Id,
        document: &Document,
        process: &runtime::ProcessOperation,
    ) -> Result<State> {
        if self.create {
            return Ok(State::Supervised);
        }
        if self.detach {
            let mut recorded = Recorded::new(scope, id, document)?;
            let log = Log::of(process);
            let place = Place::open(&scope.run_dir, id.as_str())?;
            let supervised = monitor::launch(place, &process.spec, log, self.interactive, &mut recorded)?;
            return Ok(State::Background(supervised));
        }
        let stdin = if self.interactive { Stdio::Inherit } else { Stdio::Null };
        if self.monitors {
            let attended = Attended::open(&Place::open(&scope.run_dir, id.as_str())?, Log::of(process))?;
            let started = runtime::start(&process.spec, attended.streams(stdin))?;
            self.attended = Some(attended);
            return Ok(State::Own(started));
        }
        let user = runtime::spec::user_outside(&process.spec);
        let (relayed, inside) = relays(user)?;
        self.relayed = relayed;
        let streams = Streams { stdin, stdout: through(&inside[0]), stderr: through(&inside[1]) };
        Ok(State::Own(runtime::start(&process.spec, streams)?))
    }
}

impl Start {
    /// Waits for a process in the foreground as its monitor. Returns its exit status. Output that was lost makes a
    /// failure of a success.
    fn attend(
        &mut self,
        attended: Attended,
        running: Running,
        signals: &Foreground,
        (scope, id, document): (&Scope, &Id, &Document),
    ) -> Result<i32> {
        let raw = self.terminal.take().map(Terminal::into_raw).transpose()?;
        let mut recorded = Recorded::new(scope, id, document)?;
        let ended = attended.stay(running, signals, raw.as_ref(), self.interactive, &mut recorded)?;
        let Ended { status, lost } = ended;
        drop(raw);
        let status = status.unwrap_or(i32::from(NOT_STARTED));
        Ok(match lost {
            None => status,
            Some(error) => {
                print_error(TOOL, &error.into());
                if status == 0 { Exit::Failed as i32 } else { status }
            }
        })
    }
}

fn through(pipe: &Option<OwnedFd>) -> Stdio<'_> {
    pipe.as_ref().map_or(Stdio::Inherit, |pipe| Stdio::Fd(pipe.as_fd()))
}

/// Makes pipes for standard output and standard error if they are files of another user. The command may open
/// its output by name (`/dev/stdout`), and a pipe can be given to its user. If both are the same file they
/// share a pipe, so that the order is kept.
fn relays(user: u32) -> Result<(Vec<Relayed>, [Option<OwnedFd>; 2])> {
    let (stdout, stderr) = (io::stdout(), io::stderr());
    let foreign = |stream: BorrowedFd<'_>| -> Result<Option<(u64, u64)>> {
        let found = File::from(stream.try_clone_to_owned()?).metadata()?;
        Ok((found.is_file() && ![0, found.uid()].contains(&user)).then(|| (found.dev(), found.ino())))
    };
    let files = [foreign(stdout.as_fd())?, foreign(stderr.as_fd())?];
    let (mut relayed, mut inside) = (Vec::new(), [None::<OwnedFd>, None]);
    for (at, stream) in [stdout.as_fd(), stderr.as_fd()].into_iter().enumerate() {
        if files[at].is_none() {
            continue;
        }
        if let (1, [Some(first), _]) = (at, &inside)
            && files[0] == files[1]
        {
            inside[1] = Some(first.try_clone()?);
            continue;
        }
        let (relay, writer) = Relayed::new(stream)?;
        relayed.push(relay);
        inside[at] = Some(writer);
    }
    Ok((relayed, inside))
}

/// Returns the exit status of a shell, if the command itself caused the error.
pub(crate) fn status_of(error: &anyhow::Error) -> u8 {
    let of_command = error.chain().find_map(|cause| cause.downcast_ref::<runtime::Error>());
    of_command.map_or(NOT_STARTED, runtime::Error::status)
}

/// Opens the caller's side of the command's terminal, if it has one. With `types`, keyboard input comes from
/// standard input.
pub(crate) fn terminal(is_wanted: bool, types: bool, interactive: bool) -> Result<Option<Terminal>> {
    is_wanted.then(|| Terminal::open(types)).transpose().map_err(|error| match interactive {
        true => hint(error, "leave -t out, and the command reads from a pipe or a file"),
        false => error.into(),
    })
}

/// Waits for a process in the foreground.
pub(crate) fn wait(
    running: Running,
    signals: &Foreground,
    terminal: Option<Terminal>,
    relayed: Vec<Relayed>,
) -> Result<i32> {
    let raw = terminal.map(Terminal::into_raw).transpose()?;
    Ok(foreground(running, signals, raw.as_ref(), relayed)?)
}

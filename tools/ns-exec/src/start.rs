//! Starts a container's process, and waits for it.

use std::{ffi::OsString, path::PathBuf};

use document::{
    Document, Id, Member,
    members::{Failure, Rootfs},
};
use life::{End, Recorded, Turn};
use monitor::{Attended, Ended, Log, Place};
use oci_spec::runtime::BoxBuilder;
use operation::{Scope, interrupt};
use runtime::{
    Foreground, Identity, Relays, Running, Started, Stdio, StopSignal, Supervised, Terminal, foreground,
};
use toolkit::{Exit, Hooks, Input, Plan, prelude::*, print_error};

use super::{
    NOT_STARTED, TIMED_OUT, TOOL,
    arguments::NsExec,
    operation::ContainerOperation,
    output::Output,
    salvage::salvage,
    settings::Settings,
    timeout::{self, Timer},
};

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
    /// Streams that the command's user could not open.
    relays: Relays,
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
    /// Held until the process is released.
    turn: Option<Turn>,
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
            relays: Relays::default(),
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
        let takes_turn = (!self.create).then(|| Turn::take(scope, &id, &process.spec));
        let turn = takes_turn.transpose()?;
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
            turn,
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
        launched.turn = None;
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

    fn stay(&mut self, launched: Launched, document: Document) -> u8 {
        let Launched { state, identity, scope, id, stop_signal, .. } = launched;
        let State::Running(running) = state else { return Exit::Done as u8 };
        let timer = self.settings.timeout.map(|limit| Timer::start(identity, limit, stop_signal));
        let attended = self.attended.take();
        let is_recorded = attended.is_some();
        // The exit status of this tool, and that of the process, if it is known to have ended.
        let ended = match (self.signals.take(), attended) {
            (Some(signals), Some(attended)) => {
                self.attend(attended, running, &signals, (&scope, &id, &document))
            }
            (Some(signals), None) => {
                let relays = std::mem::take(&mut self.relays);
                wait(running, &signals, self.terminal.take(), relays).map(|status| (status, Some(status)))
            }
            (None, _) => Err(anyhow!("wait for process {}: no signals are held back", identity.pid)),
        };
        let (status, of_process) = ended.unwrap_or_else(|error| {
            print_error(TOOL, &error);
            (i32::from(NOT_STARTED), None)
        });
        if is_recorded && of_process.is_none() {
            // The process may run on. A tool that looks at it next gives it another monitor.
            return u8::try_from(status).unwrap_or(NOT_STARTED);
        }
        let status = match timer.is_some_and(Timer::has_fired) {
            true => i32::from(TIMED_OUT),
            false => status,
        };
        let end = End { identity, status: if is_recorded { of_process } else { Some(status) } };
        let told = self.tell_end((&scope, &id), end, status, (document, is_recorded));
        u8::try_from(toolkit::with_failures(TOOL, status, told.err())).unwrap_or(NOT_STARTED)
    }

    fn status(exit: Exit, error: Option<&anyhow::Error>) -> u8 {
        match exit {
            Exit::Done => Exit::Done as u8,
            _ => error.map_or(NOT_STARTED, status_of),
        }
    }
}

impl Start {
    /// Writes the end of the process into the record, unless a monitor has written it (`is_recorded`): then the
    /// container may run again already. Then passes the document on, with the end, if somebody asked for it.
    fn tell_end(
        &mut self,
        (scope, id): (&Scope, &Id),
        end: End,
        status: i32,
        (mut document, is_recorded): (Document, bool),
    ) -> Result<()> {
        if !is_recorded {
            life::end(scope, id, end, &document)?;
        }
        if self.output.wants_document() {
            life::noted(id, end, &mut document)?;
        }
        self.output.ended(&document, status)
    }

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
            let supervised = monitor::launch(
                place,
                &process.spec,
                log,
                (monitor::Input::of(process), false),
                &mut recorded,
            )?;
            return Ok(State::Background(supervised));
        }
        let stdin = if self.interactive { Stdio::Inherit } else { Stdio::Null };
        self.relays = Relays::of(self.interactive && !self.tty, !self.monitors && !self.tty)?;
        let streams = self.relays.streams(stdin);
        let started = match self.monitors {
            true => {
                let attended = Attended::open(&Place::open(&scope.run_dir, id.as_str())?, Log::of(process))?;
                let started = runtime::start(&process.spec, attended.streams(streams.stdin))?;
                self.attended = Some(attended);
                started
            }
            false => runtime::start(&process.spec, streams)?,
        };
        self.relays.begin();
        Ok(State::Own(started))
    }
}

impl Start {
    /// Waits for a process in the foreground as its monitor. Returns the exit status of this tool, and that of the
    /// process, if it is known. Output that was lost, and a restart that is not possible, make a failure of a success.
    fn attend(
        &mut self,
        attended: Attended,
        running: Running,
        signals: &Foreground,
        (scope, id, document): (&Scope, &Id, &Document),
    ) -> Result<(i32, Option<i32>)> {
        let raw = self.terminal.take().map(Terminal::into_raw).transpose()?;
        let mut recorded = Recorded::new(scope, id, document)?;
        let relays = std::mem::take(&mut self.relays);
        let input = if self.interactive { monitor::Input::Ends } else { monitor::Input::None };
        let ended = attended.stay(running, signals, (raw.as_ref(), relays), input, &mut recorded)?;
        let Ended { status, lost, resumed } = ended;
        drop(raw);
        let known = status.unwrap_or(i32::from(NOT_STARTED));
        Ok((toolkit::with_failures(TOOL, known, lost.into_iter().chain(resumed.err())), status))
    }
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
        true => hint(error, "without -t, the command reads from a pipe or a file"),
        false => error.into(),
    })
}

/// Waits for a process in the foreground. Lost output makes a failure of a success.
pub(crate) fn wait(
    running: Running,
    signals: &Foreground,
    terminal: Option<Terminal>,
    relays: Relays,
) -> Result<i32> {
    let raw = terminal.map(Terminal::into_raw).transpose()?;
    let (status, lost) = foreground(running, signals, raw.as_ref(), relays)?;
    Ok(toolkit::with_failures(TOOL, status, lost))
}

//! A monitor in the program that starts a container in the foreground.

use operation::Error;
use runtime::{Foreground, RawTerminal, Relays, Running, Stdio, Streams};

use crate::{
    Keeper, Log, Next, Place, Result,
    caller::Caller,
    failed,
    run::{Ready, Watched, ready, resume},
    streams::{Input, Inside},
};

/// A monitor whose process is not started yet.
#[derive(Debug)]
pub struct Attended {
    ready: Ready,
    inside: Inside,
    log: Option<Log>,
}

/// How a process in the foreground ended.
#[derive(Debug)]
pub struct Ended {
    /// The exit status, as a shell counts it; none if it is unknown.
    pub status: Option<i32>,
    /// Why some of the output could not be written to the caller's streams.
    pub lost: Option<Error>,
    /// Whether the monitor in the background that is to start the process again could be started.
    pub resumed: Result<()>,
}

impl Attended {
    /// Opens what is needed, before the process is started. Its output goes to `log`, to attached clients and to the
    /// caller's standard streams.
    ///
    /// # Errors
    /// When the container has a monitor already, or a file cannot be opened.
    pub fn open(place: &Place, log: Option<Log>) -> Result<Self> {
        let Some(ready) = ready(place, log.clone(), Input::None, true)? else {
            return Err(failed("start", "the monitor")("the container has one"));
        };
        let inside = Inside::to_caller(place)?;
        Ok(Self { ready, inside, log })
    }

    /// The streams of the process, whose standard input is `stdin`.
    pub fn streams<'fd>(&'fd self, stdin: Stdio<'fd>) -> Streams<'fd> {
        Streams { stdin, ..self.inside.streams() }
    }

    /// Serves the process until it has ended, and returns when the caller's streams have its output. If the process is
    /// to be started again, a monitor in the background does that, with this input. `relays`: the input that goes through
    /// the caller.
    ///
    /// # Errors
    /// When a stream cannot be opened. The process runs on then.
    pub fn stay(
        self,
        running: Running,
        signals: &Foreground,
        (terminal, relays): (Option<&RawTerminal>, Relays),
        input: Input,
        keeper: &mut dyn Keeper,
    ) -> Result<Ended> {
        let Self { ready, inside, log } = self;
        // From now on, only the process writes to the FIFOs.
        drop(inside);
        let place = ready.place.try_clone()?;
        let mut monitor = ready.monitor(Some(Caller::new(signals, terminal, relays)?));
        monitor.watch(Watched::Own(running), keeper);
        while monitor.turn(keeper) {}
        let (clients, caller) = monitor.leave();
        let mut outcome = Ended { status: None, lost: None, resumed: Ok(()) };
        if let Some(caller) = caller {
            if let Some((status, next)) = caller.ended {
                outcome.status = status;
                if let Next::Again(pause) = next {
                    outcome.resumed = resume(place, pause, log, input, keeper).map(drop);
                }
            }
            outcome.lost = caller.finish().map(|(name, errno)| Error::new("write", name, errno));
        }
        clients.finish();
        Ok(outcome)
    }
}

//! Builds stages in parallel, each in its own process and mount namespace. What a process prints goes to
//! standard error line by line, with the name of its stage before each line. Results are in the store and the
//! cache; only the state of the stage is sent back.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    os::fd::AsFd,
    path::PathBuf,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{Signal, kill},
        wait::waitpid,
    },
    unistd::{Pid, dup2_stderr},
};
use serde::{Deserialize, Serialize};

use super::{Builder, stage::State};
use crate::{
    cache::Used,
    child,
    error::{Cause, Error, Failure},
    progress::{Lines, Mark, Printed},
    workspace,
};

/// What the process of a stage sends back.
#[derive(Debug, Serialize, Deserialize)]
struct Outcome {
    state: State,
    /// The results of steps that the stage used or made.
    entries: Vec<Used>,
    /// The names of given arguments that the stage used.
    used: Vec<String>,
    /// The files and directories that the stage read.
    read: Vec<PathBuf>,
}

/// A stage that is being built.
struct Worker {
    process: Pid,
    name: String,
    output: Option<io::PipeReader>,
    result: Option<io::PipeReader>,
    lines: Lines,
    /// The mark of objects for the process that draws.
    mark: Option<Mark>,
    answer: Vec<u8>,
}

/// The running workers. Dropping this value ends them.
#[derive(Default)]
struct Workers(BTreeMap<usize, Worker>);

impl Drop for Workers {
    fn drop(&mut self) {
        for worker in self.0.values() {
            let _ = kill(worker.process, Signal::SIGTERM);
            let _ = waitpid(worker.process, None);
        }
    }
}

impl Builder<'_> {
    /// Builds the stages, as many at the same time as `--jobs` allows. If only one can be built, starts no
    /// process.
    pub(super) fn side_by_side(&mut self) -> Result<(), Error> {
        let mut waiting = self.plan.stages.clone();
        if self.options.no_cache && waiting.len() > 1 {
            // All stages share the cache mounts of this build.
            self.own_caches = Some(self.caches()?);
        }
        let mut workers = Workers::default();
        while !waiting.is_empty() || !workers.0.is_empty() {
            let is_ready = |at: &usize| self.plan.needs[*at].iter().all(|need| self.done.contains_key(need));
            let ready: Vec<usize> = waiting.iter().copied().filter(is_ready).collect();
            if let ([only], true) = (ready.as_slice(), workers.0.is_empty()) {
                let state = self.stage(*only)?;
                self.done.insert(*only, state);
                waiting.retain(|at| at != only);
                continue;
            }
            let free = self.options.jobs.max(1).saturating_sub(workers.0.len());
            for at in ready.into_iter().take(free) {
                let worker = self.start(at)?;
                workers.0.insert(at, worker);
                waiting.retain(|waiting| *waiting != at);
            }
            let finished = attend(&mut workers).map_err(Cause::Workers)?;
            for at in finished {
                let Some(worker) = workers.0.remove(&at) else { continue };
                let outcome = worker.end().inspect_err(|_| {
                    // Remove what the other workers leave, after they have ended.
                    drop(std::mem::take(&mut workers));
                    let _ = workspace::collect(&self.options.root, false);
                })?;
                self.global.mark(&outcome.used);
                self.contexts.add(outcome.read);
                self.cache.note(outcome.entries);
                self.done.insert(at, outcome.state);
            }
        }
        Ok(())
    }

    fn start(&mut self, at: usize) -> Result<Worker, Error> {
        let made = || -> io::Result<_> { Ok((io::pipe()?, io::pipe()?)) };
        let ((output, to_output), (result, mut to_result)) = made().map_err(Cause::Workers)?;
        let name = self.file.name_of(at);
        let for_picture = self.progress.mark();
        let mark = for_picture.clone().map_or_else(Mark::draw, Ok).map_err(Cause::Workers)?;
        if let Some(process) = child::fork().map_err(|error| Cause::Workers(error.into()))? {
            let (output, result) = (Some(output), Some(result));
            let (lines, answer) = (Lines::new(mark), Vec::new());
            return Ok(Worker { process, name, output, result, lines, mark: for_picture, answer });
        }
        drop((output, result));
        if dup2_stderr(&to_output).is_ok() {
            drop(to_output);
            let answer = self.work(at, mark);
            let _ = serde_json::to_vec(&answer).map(|answer| to_result.write_all(&answer));
        }
        std::process::exit(0)
    }

    /// Builds a stage. Runs in the process of the stage.
    fn work(&mut self, at: usize, mark: Mark) -> Result<Outcome, Box<Failure>> {
        self.store.renew();
        self.progress.set_stage(self.file.name_of(at), mark);
        let state = self.stage(at).inspect_err(|_| self.progress.failed());
        self.progress.end();
        // The network and the directory of this process end with it.
        drop(self.network.take());
        self.store.end();
        let state = state.map_err(Failure::from)?;
        Ok(Outcome { state, entries: self.cache.used(), used: self.global.used(), read: self.contexts.all() })
    }
}

/// Waits for output or results of the workers, and handles them. Returns the stages whose process has ended.
fn attend(workers: &mut Workers) -> io::Result<Vec<usize>> {
    let mut waited: Vec<(usize, bool)> = Vec::new();
    let ready: Vec<bool> = {
        let mut fds = Vec::new();
        for (at, worker) in &workers.0 {
            for (pipe, is_output) in [(&worker.output, true), (&worker.result, false)] {
                if let Some(pipe) = pipe {
                    fds.push(PollFd::new(pipe.as_fd(), PollFlags::POLLIN));
                    waited.push((*at, is_output));
                }
            }
        }
        match poll(&mut fds, PollTimeout::NONE) {
            Err(Errno::EINTR) => return Ok(Vec::new()),
            polled => polled.map_err(io::Error::from)?,
        };
        fds.iter().map(|fd| fd.revents().is_some_and(|events| !events.is_empty())).collect()
    };
    for ((at, is_output), _) in waited.into_iter().zip(ready).filter(|(_, ready)| *ready) {
        if let Some(worker) = workers.0.get_mut(&at) {
            if is_output { worker.print()? } else { worker.listen()? }
        }
    }
    let is_over = |worker: &Worker| worker.output.is_none() && worker.result.is_none();
    Ok(workers.0.iter().filter(|(_, worker)| is_over(worker)).map(|(at, _)| *at).collect())
}

impl Worker {
    /// Prints the output of the stage.
    fn print(&mut self) -> io::Result<()> {
        let mut buffer = [0; 16 << 10];
        let count = match &mut self.output {
            Some(output) => output.read(&mut buffer)?,
            None => 0,
        };
        if count == 0 {
            self.output = None;
        }
        let mut lines = self.lines.take(&buffer[..count]);
        if count == 0 {
            lines.extend(self.lines.rest());
        }
        let mut text = Vec::new();
        for line in lines {
            // An object names its stage itself, or is about a step of the stage.
            let (before, mut line) = match line {
                Printed::Object(line) => (self.mark.as_ref().map(Mark::to_string).unwrap_or_default(), line),
                Printed::Text(line) => (format!("[{}] ", self.name), line),
            };
            text.extend_from_slice(before.as_bytes());
            text.append(&mut line);
            text.push(b'\n');
        }
        // If standard error is closed, the build continues.
        let _ = io::stderr().write_all(&text);
        Ok(())
    }

    fn listen(&mut self) -> io::Result<()> {
        let mut buffer = [0; 16 << 10];
        let count = match &mut self.result {
            Some(result) => result.read(&mut buffer)?,
            None => 0,
        };
        self.answer.extend_from_slice(&buffer[..count]);
        if count == 0 {
            self.result = None;
        }
        Ok(())
    }

    /// Waits for the process, and returns the outcome of its stage.
    fn end(self) -> Result<Outcome, Error> {
        let _ = waitpid(self.process, None);
        let answer: Result<Outcome, Box<Failure>> = serde_json::from_slice(&self.answer).map_err(|_| {
            Cause::Workers(io::Error::other(format!("the process of stage {:?} was killed", self.name)))
        })?;
        answer.map_err(Error::Worker)
    }
}

//! Shows a build on a terminal. A process of its own draws, so that seconds go on while the build waits, and
//! so that everything that is printed meanwhile, by whatever part of the build, gets a place above the
//! picture. The build's standard error is a pipe to that process.

use std::{
    fs::File,
    io::{self, IsTerminal, Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::FileExt,
    },
    time::{Duration, Instant},
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{SigHandler, Signal, signal},
        wait::waitpid,
    },
    unistd::{Pid, dup2_stderr},
};
use serde_json::json;

use super::{
    Progress,
    events::Event,
    frame::{Frame, Size},
    harmless,
    lines::{Lines, Mark, Printed},
};
use crate::child;

/// The time between two pictures, in milliseconds.
const BETWEEN: u16 = 100;
/// How much of the end of a command's output is looked at, in bytes.
const OUTPUT: u64 = 4096;

/// The process that draws. [`Display::end`] ends it.
#[derive(Debug)]
pub(crate) struct Display {
    /// Standard error as it was before.
    terminal: Option<OwnedFd>,
    process: Pid,
    mark: Mark,
}

impl Display {
    /// Starts the process, and leads standard error to it. `None` if standard error is not a terminal, or the process cannot be
    /// started: the build goes on without a picture. The caller must have one thread.
    pub(crate) fn begin() -> Option<Self> {
        let stderr = io::stderr();
        if !stderr.is_terminal() {
            return None;
        }
        let mark = Mark::draw().ok()?;
        let terminal = stderr.as_fd().try_clone_to_owned().ok()?;
        let (input, output) = io::pipe().ok()?;
        if let Some(process) = child::fork().ok()? {
            let display = Self { terminal: Some(terminal), process, mark };
            // If this fails, the process finds the end of its input, and the build prints to the terminal.
            let _ = dup2_stderr(&output);
            return Some(display);
        }
        drop(output);
        let _ = Screen::new(terminal.into(), input, mark).and_then(Screen::show);
        std::process::exit(0)
    }

    /// Prints the events that the process draws.
    pub(crate) fn progress(&self) -> Progress {
        Progress::drawn(self.mark.clone())
    }

    /// Draws the last picture, and gives standard error back. `finished` says that nothing is left to do.
    pub(crate) fn end(mut self, failed: bool, finished: bool) {
        let over = json!({"event": "over", "failed": failed, "finished": finished});
        let _ = io::stderr().write_all(self.mark.line(&over).as_bytes());
        self.leave();
    }

    fn leave(&mut self) {
        if let Some(terminal) = self.terminal.take() {
            let _ = dup2_stderr(&terminal);
            let _ = waitpid(self.process, None);
        }
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        self.leave();
    }
}

/// What the drawing process has.
struct Screen {
    terminal: File,
    input: io::PipeReader,
    lines: Lines,
    frame: Frame,
    /// How many lines of the picture are on the terminal.
    shown: usize,
    /// The output of the running commands, each with its step.
    logs: Vec<((Option<String>, u64), File)>,
    /// Lines to print when no step runs.
    later: Vec<String>,
    /// Lines to print below everything.
    results: Vec<String>,
    colors: bool,
}

impl Screen {
    fn new(terminal: File, input: io::PipeReader, mark: Mark) -> io::Result<Self> {
        // The build decides when it ends: this process sees the end of its input then.
        for ignored in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGQUIT] {
            // SAFETY: to ignore a signal runs no code.
            unsafe { signal(ignored, SigHandler::SigIgn) }?;
        }
        // The document goes to standard output. Its reader must not wait for this process.
        let null = File::options().read(true).write(true).open("/dev/null")?;
        nix::unistd::dup2_stdin(&null)?;
        nix::unistd::dup2_stdout(&null)?;
        dup2_stderr(&null)?;
        let colors = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Ok(Self {
            terminal,
            input,
            lines: Lines::new(mark),
            frame: Frame::new(Instant::now()),
            shown: 0,
            logs: Vec::new(),
            later: Vec::new(),
            results: Vec::new(),
            colors,
        })
    }

    /// Draws until the build is over.
    fn show(mut self) -> io::Result<()> {
        let mut drawn = Instant::now();
        loop {
            let timeout =
                if self.frame.is_running() { PollTimeout::from(BETWEEN) } else { PollTimeout::NONE };
            let ready = {
                let mut fds = [PollFd::new(self.input.as_fd(), PollFlags::POLLIN)];
                poll(&mut fds, timeout).is_ok_and(|count| count > 0)
            };
            if ready && self.read()? {
                return Ok(());
            }
            let due = Duration::from_millis(BETWEEN.into());
            if !ready || drawn.elapsed() >= due || !self.frame.is_running() {
                self.draw()?;
                drawn = Instant::now();
            }
        }
    }

    /// Reads and handles what the build has written. Returns true at the end.
    fn read(&mut self) -> io::Result<bool> {
        let mut buffer = [0; 64 << 10];
        let count = self.input.read(&mut buffer)?;
        for line in self.lines.take(&buffer[..count]) {
            if self.handle(&line)? {
                return Ok(true);
            }
        }
        if count == 0
            && let Some(line) = self.lines.rest()
        {
            self.handle(&line)?;
        }
        Ok(count == 0)
    }

    fn handle(&mut self, line: &Printed) -> io::Result<bool> {
        let (Printed::Text(bytes) | Printed::Object(bytes)) = line;
        let text = String::from_utf8_lossy(bytes);
        let is_object = matches!(line, Printed::Object(_));
        let Some(event) = is_object.then(|| Event::parse(&text)).flatten() else {
            self.print_above(&text)?;
            return Ok(false);
        };
        let now = Instant::now();
        match event.kind.as_str() {
            "log" => {
                if let Ok(file) = File::open(&event.text) {
                    self.logs.push(((event.stage, event.step), file));
                }
            }
            "warning" => self.print_above(&format!("[Warning] {}", event.text))?,
            "line" => self.later.push(event.text),
            "result" => self.results.push(event.text),
            // The output of a step that failed. It stays below the line of the step.
            "output" => {
                self.settle()?;
                self.print(&format!("{}\n", event.text.trim_end_matches('\n')))?;
            }
            "over" => {
                self.frame.end(&event, now);
                self.later.append(&mut self.results);
            }
            _ => self.frame.take(&event, now),
        }
        if !self.frame.is_running() && !self.later.is_empty() {
            self.settle()?;
            for line in std::mem::take(&mut self.later) {
                self.print(&format!("{line}\n"))?;
            }
        }
        if event.kind == "over" {
            self.settle()?;
        }
        Ok(event.kind == "over")
    }

    fn size(&self) -> Size {
        let size = rustix::termios::tcgetwinsize(&self.terminal).ok();
        // Terminals of CI often say that they have no columns.
        let of = |count: Option<u16>, other: u16| count.filter(|count| *count > 0).unwrap_or(other).into();
        Size {
            columns: usize::max(of(size.map(|size| size.ws_col), 80), 20),
            rows: of(size.map(|size| size.ws_row), 24),
            colors: self.colors,
        }
    }

    /// Prints text without the control characters that the terminal would obey.
    fn print(&mut self, text: &str) -> io::Result<()> {
        self.terminal.write_all(harmless(text).as_bytes())
    }

    /// Removes the picture from the terminal.
    fn clear(&mut self) -> io::Result<()> {
        if self.shown > 0 {
            write!(self.terminal, "\x1b[{}A\r\x1b[J", self.shown)?;
        }
        self.shown = 0;
        Ok(())
    }

    /// Prints a line above the picture.
    fn print_above(&mut self, line: &str) -> io::Result<()> {
        self.clear()?;
        self.print(&format!("{line}\n"))?;
        if self.frame.has_more() { self.draw() } else { Ok(()) }
    }

    /// Prints what has ended for good.
    fn settle(&mut self) -> io::Result<()> {
        self.clear()?;
        if self.frame.has_more() {
            let size = self.size();
            let lines = self.frame.settle(Instant::now(), &size);
            self.terminal.write_all(format!("{}\n", lines.join("\n")).as_bytes())?;
        }
        Ok(())
    }

    /// Draws the picture over the one before.
    fn draw(&mut self) -> io::Result<()> {
        if !self.frame.has_more() {
            return self.clear();
        }
        let running = self.frame.all_running();
        self.logs.retain(|(step, _)| running.contains(step));
        for (step, log) in &self.logs {
            let mut output = vec![0; OUTPUT as usize];
            let length = log.metadata().map_or(0, |metadata| metadata.len());
            let count = log.read_at(&mut output, length.saturating_sub(OUTPUT)).unwrap_or(0);
            self.frame.say(step, &String::from_utf8_lossy(&output[..count]));
        }
        let lines = self.frame.lines(Instant::now(), &self.size());
        // A line that is too wide must not take a second one, so the terminal does not wrap meanwhile.
        let mut picture = String::from("\x1b[?7l");
        if self.shown > 0 {
            picture.push_str(&format!("\x1b[{}A\r", self.shown));
        }
        for line in &lines {
            picture.push_str(&format!("{line}\x1b[K\n"));
        }
        picture.push_str("\x1b[J\x1b[?7h");
        self.shown = lines.len();
        self.terminal.write_all(picture.as_bytes())
    }
}

//! The messages of a build on standard error: lines in Docker's form, one line for each step, a picture of all
//! steps on a terminal, or JSON.

mod display;
mod events;
mod frame;
mod lines;

use std::{
    cell::RefCell,
    io::{self, Read, Write},
    path::Path,
    time::Instant,
};

pub(crate) use display::Display;
pub(crate) use lines::{Lines, Mark, Printed};
use serde_json::{Value, json};

/// How many bytes of a command's output are read at a time.
const PART: usize = 16 << 10;

/// How much of an instruction the picture gets, in characters. No terminal is wider.
const WIDEST: usize = 1000;

/// The form of the messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Form {
    /// Lines, including the output of commands.
    #[default]
    Plain,
    /// A line for each step, with its time. The output of a command is shown if it fails. On a terminal, the
    /// build draws a picture of all steps ([`Form::Drawn`]).
    Terminal,
    /// As JSON, for the process that draws the picture.
    Drawn,
    /// A JSON object on each line.
    Json,
    /// Errors only.
    Quiet,
}

/// A step that has begun.
#[derive(Debug)]
struct Step {
    head: String,
    number: usize,
    begin: Instant,
    cached: bool,
}

/// Prints the messages of a build.
#[derive(Debug)]
pub struct Progress {
    form: Form,
    step: RefCell<Option<Step>>,
    /// The stage that this process builds, if stages are built in parallel.
    stage: RefCell<Option<String>>,
    /// The mark of objects, if another process of the build reads them.
    mark: RefCell<Option<Mark>>,
}

impl Progress {
    /// Prints messages in this form.
    pub fn new(form: Form) -> Self {
        Self { form, step: RefCell::default(), stage: RefCell::default(), mark: RefCell::default() }
    }

    /// Prints events for the process that draws, which knows the mark.
    pub(crate) fn drawn(mark: Mark) -> Self {
        Self { mark: RefCell::new(Some(mark)), ..Self::new(Form::Drawn) }
    }

    /// The mark of objects, if they have one.
    pub(crate) fn mark(&self) -> Option<Mark> {
        self.mark.borrow().clone()
    }

    /// The form of the messages.
    pub fn form(&self) -> Form {
        self.form
    }

    fn print(&self, text: &str) {
        // If standard error is closed, the build continues.
        let _ = std::io::stderr().write_all(text.as_bytes());
    }

    /// Sets the stage that is named in later events, and the mark of objects.
    pub(crate) fn set_stage(&self, name: String, mark: Mark) {
        *self.stage.borrow_mut() = Some(name);
        *self.mark.borrow_mut() = Some(mark);
    }

    fn event(&self, event: &Value) {
        let mut event = event.clone();
        if let Some(stage) = &*self.stage.borrow() {
            event["stage"] = json!(stage);
        }
        self.object(&event);
    }

    /// Prints an object on a line, in every form.
    pub(crate) fn object(&self, object: &Value) {
        match &*self.mark.borrow() {
            Some(mark) => self.print(&mark.line(object)),
            None => self.print(&format!("{object}\n")),
        }
    }

    /// Prints a line about the result. The picture has it below all steps.
    pub fn result(&self, text: &str) {
        match self.form {
            Form::Drawn => self.event(&json!({"event": "result", "text": text})),
            _ => self.line(text),
        }
    }

    /// Prints a line of any kind.
    pub fn line(&self, text: &str) {
        match self.form {
            Form::Plain | Form::Terminal => self.print(&format!("{}\n", harmless(text))),
            Form::Json | Form::Drawn => self.event(&json!({"event": "line", "text": text})),
            Form::Quiet => {}
        }
    }

    /// Begins a step, and prints `Step 2/4 : RUN make`. `text` is the instruction with its lines joined.
    pub fn step(&self, number: usize, of: usize, text: &str) {
        self.end();
        let head = format!("[{number}/{of}] {text}");
        match self.form {
            Form::Plain => self.print(&format!("Step {number}/{of} : {}\n", harmless(text))),
            Form::Json => self.event(&json!({"event": "begin", "step": number, "of": of, "text": text})),
            Form::Drawn => {
                let text: String = first_line(text).chars().take(WIDEST).collect();
                self.event(&json!({"event": "begin", "step": number, "of": of, "text": text}));
            }
            Form::Terminal | Form::Quiet => {}
        }
        *self.step.borrow_mut() = Some(Step { head, number, begin: Instant::now(), cached: false });
    }

    /// Ends the current step.
    pub fn end(&self) {
        let Some(Step { head, number, begin, cached }) = self.step.borrow_mut().take() else { return };
        let seconds = begin.elapsed().as_secs_f64();
        match self.form {
            Form::Terminal => {
                let mark = if cached { " => CACHED " } else { " => " };
                self.print(&format!("{mark}{} {seconds:.1}s\n", harmless(first_line(&head))));
            }
            Form::Json | Form::Drawn => {
                let milliseconds = (seconds * 1000.0).round() as u64;
                self.event(
                    &json!({"event": "end", "step": number, "cached": cached, "milliseconds": milliseconds}),
                );
            }
            Form::Plain | Form::Quiet => {}
        }
    }

    /// Prints the id of the image after a step: its first twelve digits.
    pub fn id(&self, id: &oci::Digest) {
        if self.form == Form::Plain {
            self.line(&format!(" ---> {}", id.short()));
        }
    }

    /// Whether ids of images are printed.
    pub fn has_ids(&self) -> bool {
        self.form == Form::Plain
    }

    /// Marks the current step as cached.
    pub fn cached(&self) {
        match &mut *self.step.borrow_mut() {
            Some(step) if self.form != Form::Plain => step.cached = true,
            _ => self.line(" ---> Using cache"),
        }
    }

    /// Ends the current step as one that failed.
    pub fn failed(&self) {
        if !matches!(self.form, Form::Terminal | Form::Drawn) {
            return;
        }
        let Some(step) = self.step.borrow_mut().take() else { return };
        match self.form {
            Form::Drawn => self.event(&json!({"event": "failed", "step": step.number})),
            _ => self.print(&format!(" => ERROR {}\n", harmless(first_line(&step.head)))),
        }
    }

    /// The output of the current step goes to this file: the picture shows its end.
    pub fn log(&self, path: &Path) {
        if let (Form::Drawn, Some(step)) = (self.form, &*self.step.borrow()) {
            self.event(&json!({"event": "log", "step": step.number, "text": path}));
        }
    }

    /// Prints the output of a command, if it was not printed directly. Reads the output in parts, because it
    /// may be very long.
    ///
    /// # Errors
    /// When the output cannot be read.
    pub fn output(&self, text: &mut dyn Read, failed: bool) -> io::Result<()> {
        if self.form == Form::Plain || (self.form != Form::Json && !failed) {
            return Ok(());
        }
        self.failed();
        let mut part = Vec::new();
        loop {
            let room = (PART - part.len()) as u64;
            let count = (&mut *text).take(room).read_to_end(&mut part)?;
            if part.is_empty() {
                return Ok(());
            }
            // Print whole lines if there are any, so that no character is cut.
            let end = part.iter().rposition(|byte| *byte == b'\n').map_or(part.len(), |at| at + 1);
            let end = if (count as u64) < room { part.len() } else { end };
            let now = String::from_utf8_lossy(&part[..end]).into_owned();
            match self.form {
                Form::Json | Form::Drawn => self.event(&json!({"event": "output", "text": now})),
                _ => self.print(&now),
            }
            part.drain(..end);
        }
    }

    /// Prints a warning.
    pub fn warning(&self, text: &str) {
        match self.form {
            Form::Json | Form::Drawn => self.event(&json!({"event": "warning", "text": text})),
            _ => self.line(&format!("[Warning] {text}")),
        }
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// A text of a Dockerfile without the control characters that a terminal would obey. Lines and tabs stay.
fn harmless(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && !matches!(c, '\n' | '\t') { ' ' } else { c }).collect()
}

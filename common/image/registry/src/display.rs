//! Shows the progress of a pull or a push on standard error: bars on a terminal, otherwise the lines that
//! Docker prints.

use std::{
    collections::HashMap,
    io::{self, IsTerminal},
    sync::{Mutex, MutexGuard, PoisonError},
};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use oci::Digest;

use crate::progress::{Event, Progress};

/// Prints progress for people.
#[derive(Debug)]
pub struct Display {
    form: Form,
    job: Job,
}

/// The kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Job {
    /// Downloads layers.
    Pull,
    /// Downloads and unpacks layers.
    PullAndApply,
    /// Sends layers.
    Push,
}

#[derive(Debug)]
enum Form {
    Quiet,
    Lines,
    Bars { all: MultiProgress, each: Mutex<HashMap<Digest, ProgressBar>> },
}

impl Display {
    /// A display for standard error. With `quiet` it prints nothing.
    pub fn new(job: Job, quiet: bool) -> Self {
        let form = match (quiet, io::stderr().is_terminal()) {
            (true, _) => Form::Quiet,
            (false, false) => Form::Lines,
            (false, true) => Form::Bars { all: MultiProgress::new(), each: Mutex::new(HashMap::new()) },
        };
        Self { form, job }
    }

    /// Prints a line, above the bars if there are any.
    pub fn line(&self, text: &str) {
        match &self.form {
            Form::Quiet => {}
            Form::Lines => operation::tell!("{text}"),
            // If the terminal is gone, the work still goes on.
            Form::Bars { all, .. } => drop(all.println(text)),
        }
    }

    /// Docker's words for an event.
    fn words(&self, event: &Event) -> Option<String> {
        let words = match (event, self.job) {
            (Event::Planned(_), Job::Push) => "Preparing",
            (Event::Planned(_), _) => "Pulling fs layer",
            (Event::Exists, Job::Push) => "Layer already exists",
            (Event::Exists, _) => "Already exists",
            (Event::Passed(_), _) => return None,
            (Event::Fetched, Job::Pull) | (Event::Done, Job::PullAndApply) => "Pull complete",
            (Event::Fetched, _) => "Download complete",
            (Event::Done, Job::Push) => "Pushed",
            (Event::Done, Job::Pull) => return None,
            (Event::Mounted(from), _) => return Some(format!("Mounted from {from}")),
            (Event::Retrying(error, pause), _) => {
                return Some(format!("{error}: trying again in {} s", pause.as_secs_f64()));
            }
        };
        Some(words.to_owned())
    }
}

impl Progress for Display {
    fn tell(&self, digest: &Digest, event: Event) {
        let words = self.words(&event);
        match (&self.form, words) {
            (Form::Quiet, _) | (Form::Lines, None) => {}
            (Form::Lines, Some(words)) => operation::tell!("{}: {words}", digest.short()),
            (Form::Bars { all, each }, words) => {
                let bar = bar(all, lock(each), digest);
                show(&bar, &event, words, self.job);
            }
        }
    }

    fn note(&self, line: &str) {
        self.line(line);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The bar of a blob. A new bar appears below the others.
fn bar(
    all: &MultiProgress,
    mut each: MutexGuard<HashMap<Digest, ProgressBar>>,
    digest: &Digest,
) -> ProgressBar {
    let new = || {
        let bar = all.add(ProgressBar::new(0));
        bar.set_style(style("{prefix}: {msg}"));
        bar.set_prefix(digest.short().to_owned());
        bar
    };
    each.entry(digest.clone()).or_insert_with(new).clone()
}

fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    style.progress_chars("=> ")
}

fn show(bar: &ProgressBar, event: &Event, words: Option<String>, job: Job) {
    match event {
        Event::Planned(size) => bar.set_length(*size),
        Event::Passed(size) if bar.position() == 0 => {
            bar.set_style(style("{prefix}: {msg:11} [{bar:40}] {bytes}/{total_bytes}"));
            bar.set_message(if job == Job::Push { "Pushing" } else { "Downloading" });
            bar.set_position(*size);
        }
        Event::Passed(size) => bar.set_position(*size),
        _ => {}
    }
    let Some(words) = words else { return };
    if matches!(event, Event::Retrying(..)) {
        // The bar returns when the next bytes arrive.
        bar.set_position(0);
    }
    bar.set_style(style("{prefix}: {msg}"));
    match event {
        Event::Planned(_) | Event::Retrying(..) => bar.set_message(words),
        Event::Fetched if job == Job::PullAndApply => bar.set_message(words),
        _ => bar.finish_with_message(words),
    }
}

//! Prints events of containers as they happen.
//!
//! # Does
//! Watches the records, and prints a line for each change of a container: `create`, `start`, `die`, `oom`,
//! `stop`, `health_status`, `pause`, `unpause`, `update`, `destroy`. With `--since` it first prints what the records
//! still show: the last start of each container, and its end. Two changes at almost the same time may be seen
//! as one.
//! # Reads
//! No document. Reads the records.
//! # Adds
//! Nothing; prints a JSON object a line, or with `--format` text.
//! # Undoes
//! Nothing.
//! # Needs
//! Read access to the records.

mod change;
mod watch;

use std::{collections::BTreeMap, io::Write, process::ExitCode};

use change::{Filter, Known, changes};
use clap::Parser;
use document::{Id, record};
use life::{Container, Point};
use operation::Scope;
use serde_json::Value;
use toolkit::{listing::Format, prelude::*};
use watch::Watch;

/// Print events of containers as they happen
#[derive(Parser)]
#[command(name = "container-events", version)]
struct ContainerEvents {
    /// First print past events since this time: 2026-01-02T15:04:05Z, 2026-01-02 in the local time zone, seconds
    /// since 1970, or 10m ago
    #[arg(long, value_name = "TIME")]
    since: Option<Point>,
    /// End at this time, which may be in the past
    #[arg(long, value_name = "TIME")]
    until: Option<Point>,
    /// Print only matching events: container=ID, event=NAME, image=NAME or type=container; repeatable, one match
    /// for each KEY
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<Filter>,
    /// Print TEXT for each event, one a line, with {time}, {event}, {id}, {name}, {image}, {exitStatus},
    /// {health} replaced; `json` prints Docker's form, and a template such as `{{.Action}}` has its fields
    #[arg(long, value_name = "TEXT", value_parser = change::format)]
    format: Option<Format>,
    #[command(flatten)]
    common: Common,
}

/// The known state of each container.
type All = BTreeMap<Id, Known>;

fn look(scope: &Scope, id: &Id) -> Option<Known> {
    // A record that cannot be read now is being written by another program, not by rename.
    let container = Container::find(scope, id).ok()??;
    Known::of(&container).ok()
}

impl ContainerEvents {
    /// Prints the events that pass the filters. Returns false if the reader has closed the pipe.
    fn print(&self, events: &[Value]) -> Result<bool> {
        let mut out = std::io::stdout().lock();
        for event in events.iter().filter(|event| change::admits(&self.filter, event)) {
            let line = match &self.format {
                Some(Format::Json) => format!("{}\n", change::docker(event)),
                Some(format) => format.rows(&[event], &[], change::row)?.unwrap_or_default(),
                None => format!("{event}\n"),
            };
            match write!(out, "{line}").and_then(|()| out.flush()) {
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(false),
                written => written.context("write the events")?,
            }
        }
        Ok(true)
    }

    /// The past events since `--since` that the records show, in order of time.
    fn past(&self, all: &All) -> Vec<Value> {
        let Some(since) = self.since else { return Vec::new() };
        let mut events: Vec<(Point, Value)> = all.iter().flat_map(|(id, known)| known.past(id)).collect();
        events.retain(|(time, _)| *time >= since && self.until.is_none_or(|until| *time < until));
        events.sort_by_key(|(time, _)| *time);
        events.into_iter().map(|(_, event)| event).collect()
    }

    fn run(&self, scope: &Scope) -> Result<()> {
        // First the watch is set up, then the records are read, so that no change is missed.
        let mut watch = Watch::new(scope)?;
        let mut all = All::new();
        for id in record::list(&scope.run_dir)? {
            if let Some(known) = look(scope, &id) {
                watch.container(&id, &known);
                all.insert(id, known);
            }
        }
        if !self.print(&self.past(&all))? {
            return Ok(());
        }
        while let Some(changed) = watch.next(self.until)? {
            for id in changed {
                let (before, now) = (all.remove(&id), look(scope, &id));
                if !self.print(&changes(&id, before.as_ref(), now.as_ref()))? {
                    return Ok(());
                }
                match now {
                    Some(now) => {
                        watch.container(&id, &now);
                        all.insert(id, now);
                    }
                    None => watch.forget(&id),
                }
            }
        }
        Ok(())
    }
}

impl Report for ContainerEvents {
    fn common(&self) -> &Common {
        &self.common
    }

    fn explain(&self, context: &Context) -> Result<Vec<String>> {
        let directory = context.scope.run_dir.to_string_lossy().into_owned();
        Ok(vec![operation::words(["inotifywait", "-m", "-e", "moved_to,delete", &directory])])
    }

    fn report(&self, context: &Context) -> Result<Value> {
        self.run(&context.scope).map(|()| Value::Null)
    }

    fn text(&self, _: &Value) -> Option<String> {
        Some(String::new())
    }
}

pub(crate) fn main() -> ExitCode {
    toolkit::report::<ContainerEvents>()
}

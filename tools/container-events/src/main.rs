//! Prints what happens to containers, as it happens.
//!
//! # Does
//! Watches the records, and prints a line for each change of a container: `create`, `start`, `die`, `oom`, `stop`, `health_status`,
//! `pause`, `unpause`, `destroy`. With `--since` it prints first what the records still tell: when each container was started last, and
//! when it ended. Two changes at almost the same time may be seen as one.
//! # Reads
//! No document: the records.
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
use toolkit::{prelude::*, rows};
use watch::Watch;

/// Print what happens to containers, as it happens
#[derive(Parser)]
#[command(name = "container-events", version)]
struct ContainerEvents {
    /// Begin with what the records tell of the time after this: 2026-01-02T15:04:05Z, seconds since 1970, or 10m ago
    #[arg(long, value_name = "TIME")]
    since: Option<Point>,
    /// End at this time, which may have passed
    #[arg(long, value_name = "TIME")]
    until: Option<Point>,
    /// Print only events where this holds: container=ID, event=NAME or image=NAME. Of one kind, one is enough; repeatable
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<Filter>,
    /// Print TEXT for each event, one line each. {time}, {event}, {id}, {image}, {exitStatus}, {health} in it are replaced
    #[arg(long, value_name = "TEXT")]
    format: Option<String>,
    #[command(flatten)]
    common: Common,
}

/// What is known of each container.
type All = BTreeMap<Id, Known>;

fn look(scope: &Scope, id: &Id) -> Option<Known> {
    // One that cannot be read now is being written by somebody who does it in another way.
    let container = Container::find(scope, id).ok()??;
    Known::of(&container).ok()
}

impl ContainerEvents {
    /// Prints those that are asked for. False if nobody reads them any more.
    fn print(&self, events: &[Value]) -> Result<bool> {
        let mut out = std::io::stdout().lock();
        for event in events.iter().filter(|event| change::admits(&self.filter, event)) {
            let line = match &self.format {
                Some(format) => rows::fill(format, event),
                None => event.to_string(),
            };
            match writeln!(out, "{line}").and_then(|()| out.flush()) {
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(false),
                written => written.context("write the events")?,
            }
        }
        Ok(true)
    }

    /// What the records tell of the past.
    fn past(&self, all: &All) -> Vec<Value> {
        let Some(since) = self.since else { return Vec::new() };
        let mut events: Vec<(Point, Value)> = all.iter().flat_map(|(id, known)| known.past(id)).collect();
        events.retain(|(time, _)| *time >= since && self.until.is_none_or(|until| *time < until));
        events.sort_by_key(|(time, _)| *time);
        events.into_iter().map(|(_, event)| event).collect()
    }

    fn run(&self, scope: &Scope) -> Result<()> {
        // First it is watched, then looked at: nothing happens between the two.
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

fn main() -> ExitCode {
    toolkit::report::<ContainerEvents>()
}

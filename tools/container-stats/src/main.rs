//! Shows the resource usage of containers.
//!
//! # Does
//! Reads the counters of each container's cgroup and network twice, and shows usage since the first reading.
//! # Reads
//! No document. Reads the records.
//! # Adds
//! Nothing; prints a JSON array, or with `--table` and `--format` text. With `--stream` it repeats this, one
//! JSON line each time.
//! # Undoes
//! Nothing.
//! # Needs
//! Read access to the records.

mod sample;

use std::{io::Write, process::ExitCode, thread::sleep, time::Duration};

use clap::Parser;
use document::Id;
use life::Container;
use sample::Sample;
use serde_json::Value;
use toolkit::{listing::Format, prelude::*};

/// Show processor time, memory, network traffic and processes of containers
#[derive(Parser)]
#[command(name = "container-stats", version)]
struct ContainerStats {
    /// The ids of the containers; by default all that run
    #[arg(value_name = "ID")]
    ids: Vec<Id>,
    /// Include containers that do not run
    #[arg(short, long, conflicts_with = "ids")]
    all: bool,
    /// Repeat until interrupted
    #[arg(long)]
    stream: bool,
    /// The time between two readings
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..))]
    interval: u64,
    /// Print a table instead of JSON
    #[arg(long)]
    table: bool,
    /// Print TEXT for each container, one a line, with {id}, {cpuPercent}, {cpuTime}, {memory},
    /// {memoryLimit}, {memoryPercent}, {received}, {sent}, {pids} replaced; or a template of `docker stats`:
    /// {{.Name}}, {{json .}}, table {{.Name}}\t{{.CPUPerc}}
    #[arg(long, value_name = "TEXT", conflicts_with = "table")]
    format: Option<Format>,
    #[command(flatten)]
    common: Common,
}

impl ContainerStats {
    fn samples(&self, context: &Context) -> Result<Vec<Sample>> {
        let scope = &context.scope;
        let mut samples = Vec::new();
        if self.ids.is_empty() {
            for container in Container::all(scope)? {
                match container {
                    Ok(container) if container.is_running()? => samples.push(Sample::of(&container)?),
                    Ok(container) if self.all => samples.push(Sample::of_ended(&container)),
                    Ok(_) => {}
                    Err(error) => toolkit::print_error("container-stats", &error.into()),
                }
            }
        }
        for id in &self.ids {
            samples.push(Sample::of(&life::running(scope, id)?)?);
        }
        Ok(samples)
    }

    /// The rows for the time since `before`, and the new samples.
    fn look(&self, context: &Context, before: &[Sample]) -> Result<(Value, Vec<Sample>)> {
        sleep(Duration::from_millis(self.interval));
        let now = self.samples(context)?;
        let row = |sample: &Sample| sample.row(before.iter().find(|other| other.id == sample.id));
        Ok((now.iter().map(row).collect(), now))
    }

    fn shown(&self, rows: &Value) -> Result<String> {
        Ok(match (&self.format, self.table) {
            (Some(format), _) => {
                let all: Vec<&Value> = rows.as_array().into_iter().flatten().collect();
                let text = format.rows(&all, &sample::HEADINGS, sample::docker)?;
                text.unwrap_or_else(|| sample::table(rows))
            }
            (None, true) => sample::table(rows),
            (None, false) => format!("{rows}\n"),
        })
    }
}

impl Report for ContainerStats {
    fn common(&self) -> &Common {
        &self.common
    }

    fn explain(&self, _: &Context) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn report(&self, context: &Context) -> Result<Value> {
        let mut before = self.samples(context)?;
        loop {
            let (rows, now) = self.look(context, &before)?;
            if !self.stream {
                return Ok(rows);
            }
            let written = std::io::stdout().write_all(self.shown(&rows)?.as_bytes());
            if written.is_err() || (now.is_empty() && !self.ids.is_empty()) {
                return Ok(Value::Array(Vec::new()));
            }
            before = now;
        }
    }

    fn formatted(&self, report: &Value) -> Result<Option<String>> {
        match self.format.is_some() && !self.stream {
            true => self.shown(report).map(Some),
            false => Ok(None),
        }
    }

    fn text(&self, report: &Value) -> Option<String> {
        match (self.stream, self.table) {
            (true, _) => Some(String::new()),
            (false, true) => Some(sample::table(report)),
            (false, false) => None,
        }
    }
}

pub(crate) fn main() -> ExitCode {
    toolkit::report::<ContainerStats>()
}

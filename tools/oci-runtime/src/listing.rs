//! Prints lists and JSON.

use std::{
    fs::OpenOptions,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use container::{Container, Store, processes};
use serde_json::{Value, json};

use super::arguments::Listing;

/// Prints indented JSON, as runc does.
pub(crate) fn print(value: &Value) -> Result<()> {
    let text = serde_json::to_string_pretty(value)?;
    writeln!(std::io::stdout(), "{text}").context("write standard output")
}

/// Prints JSON on one line.
pub(crate) fn line(value: &Value) -> Result<()> {
    writeln!(std::io::stdout(), "{value}").context("write standard output")
}

pub(crate) fn state(container: &Container) -> Result<()> {
    print(&container.record()?.state()?)
}

/// Fails if there is no such directory.
pub(crate) fn exists(root: &PathBuf) -> Result<()> {
    root.metadata().map(drop).with_context(|| format!("open directory {root:?}"))
}

pub(crate) fn all(store: &Store, format: Listing, quiet: bool) -> Result<()> {
    let containers = store.all()?;
    if quiet {
        return containers
            .iter()
            .try_for_each(|one| writeln!(std::io::stdout(), "{}", one.id()))
            .context("write standard output");
    }
    // Skip a container that is being removed.
    let states: Vec<Value> =
        containers.iter().filter_map(|one| one.record().and_then(|record| record.state()).ok()).collect();
    if format == Listing::Json {
        return line(&json!(states));
    }
    let rows = states.iter().map(|state| {
        ["id", "pid", "status", "bundle", "created", "owner"].map(|name| match &state[name] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        })
    });
    table(["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned), rows.collect())
}

fn table<const N: usize>(header: [String; N], rows: Vec<[String; N]>) -> Result<()> {
    let lines: Vec<[String; N]> = std::iter::once(header).chain(rows).collect();
    std::io::stdout().write_all(toolkit::rows::table(&lines).as_bytes()).context("write standard output")
}

/// Prints the processes. The format may come after the id, too; anything else there is for ps(1).
pub(crate) fn processes(container: &Container, format: Listing, options: &[String]) -> Result<()> {
    let words: Vec<&str> = options.iter().flat_map(|word| word.split('=')).collect();
    let format = match words[..] {
        [] => format,
        ["-f" | "--format", "json"] => Listing::Json,
        ["-f" | "--format", "table"] => Listing::Table,
        _ => return by_ps(container, options),
    };
    if format == Listing::Json {
        return line(&json!(processes::pids(container)?));
    }
    let now = jiff::Timestamp::now();
    let rows = processes::all(container)?.into_iter().map(|one| {
        let time = format!("{:02}:{:02}:{:02}", one.seconds / 3600, one.seconds / 60 % 60, one.seconds % 60);
        let percent = (one.seconds * 100).checked_div(one.age.as_secs()).unwrap_or_default().min(99);
        let (pid, parent, percent) = (one.pid.to_string(), one.parent.to_string(), percent.to_string());
        [one.user, pid, parent, percent, start(now, one.age), one.terminal, time, one.command]
    });
    // Those of `ps -ef`, which runc runs.
    table(["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"].map(str::to_owned), rows.collect())
}

/// Runs ps(1) with these options, as runc does. Prints its first line, and the lines of the container's processes.
fn by_ps(container: &Container, options: &[String]) -> Result<()> {
    let pids = processes::pids(container)?;
    let output = Command::new("ps").args(options).output().context("run ps")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("run ps with {options:?}: {}", said.lines().next().unwrap_or("it failed"));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines();
    let header = lines.next().unwrap_or_default();
    let Some(at) = header.split_whitespace().position(|name| name == "PID") else {
        bail!("run ps with {options:?}: it prints no column PID, which tells the processes of the container");
    };
    let is_own = |line: &&str| {
        let pid = line.split_whitespace().nth(at).and_then(|pid| pid.parse::<i32>().ok());
        pid.is_some_and(|pid| pids.contains(&pid))
    };
    let shown: Vec<&str> = std::iter::once(header).chain(lines.filter(is_own)).collect();
    writeln!(std::io::stdout(), "{}", shown.join("\n")).context("write standard output")
}

/// When a process was started, in UTC like the times of the log: the time of today, or the day, or the year.
fn start(now: jiff::Timestamp, age: Duration) -> String {
    let Ok(start) = now.checked_sub(age) else { return "?".to_owned() };
    let is_same = |form: &str| start.strftime(form).to_string() == now.strftime(form).to_string();
    let form = match (is_same("%F"), is_same("%Y")) {
        (true, _) => "%H:%M",
        (false, true) => "%b%d",
        (false, false) => "%Y",
    };
    start.strftime(form).to_string()
}

pub(crate) fn template(bundle: &Path, rootless: bool) -> Result<()> {
    let path = bundle.join("config.json");
    let user = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let config = container::template::configuration(rootless.then_some(user));
    let text = serde_json::to_string_pretty(&config)?;
    // Never overwrite an existing file.
    let file = OpenOptions::new().write(true).create_new(true).open(&path);
    file.and_then(|mut file| writeln!(file, "{text}")).with_context(|| format!("write {path:?}"))
}

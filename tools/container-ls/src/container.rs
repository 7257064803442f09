//! A container in the listing.

use std::fs;

use document::{
    Document, Id, Instance,
    members::{Attachment, Image, Ports, Process},
};
use serde::Serialize;
use serde_json::Value;

/// Its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    /// No process was started yet.
    Created,
    /// Its process runs.
    Running,
    /// Its process has ended.
    Exited,
}

/// One row of the listing.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Container {
    id: Id,
    /// Tells it from a later container with its id.
    instance: Option<Instance>,
    image: Option<String>,
    command: Vec<String>,
    state: State,
    exit_status: Option<i32>,
    pid: Option<i32>,
    ip: Option<String>,
    ports: Vec<String>,
    log: Option<String>,
    stop_signal: String,
}

impl Container {
    /// The row for the container `id`, from its record.
    pub(crate) fn new(id: &Id, record: &Document) -> Result<Self, document::Error> {
        let process = record.get::<Process>()?;
        let state = match &process {
            Some(process) if runs(process) => State::Running,
            Some(process) if process.pid > 0 => State::Exited,
            _ => State::Created,
        };
        let reference =
            |image: Image| image.reference.unwrap_or_else(|| image.descriptor.digest().to_string());
        let image = record.get::<Image>()?;
        let attachments = record.attachments()?;
        let mut addresses = attachments.iter().flat_map(Attachment::addresses);
        let ports = record.get::<Ports>()?.map(|ports| ports.0).unwrap_or_default();
        Ok(Self {
            id: id.clone(),
            instance: record.get()?,
            stop_signal: stop_signal(process.as_ref(), image.as_ref()),
            image: image.map(reference),
            command: process.iter().flat_map(|process| arguments(&process.spec)).collect(),
            state,
            exit_status: process.as_ref().and_then(|process| process.exit_status),
            pid: process.as_ref().map(|process| process.pid).filter(|_| state == State::Running),
            ip: addresses.next().map(|address| address.to_string()),
            ports: ports.iter().map(published).collect(),
            log: process.and_then(|process| process.log).map(|path| path.to_string_lossy().into_owned()),
        })
    }

    /// Whether its process is running.
    pub(crate) fn is_running(&self) -> bool {
        self.state == State::Running
    }
}

/// Whether the process exists, is not a zombie, and is the one that was started, not a later one with the same pid.
fn runs(process: &Process) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.pid)).unwrap_or_default();
    // The name in parentheses may contain anything; the state is field 3, the start time field 22 (proc(5)).
    let Some((_, fields)) = stat.rsplit_once(')') else { return false };
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let alive = fields.first().is_some_and(|state| !["Z", "X"].contains(state));
    alive && fields.get(19).and_then(|time| time.parse().ok()) == Some(process.start_time)
}

/// The signal that asks its process to end, as `kill -SIGNAL` takes it: a name without SIG, or a number.
fn stop_signal(process: Option<&Process>, image: Option<&Image>) -> String {
    let own = process.and_then(|process| process.stop_signal.as_deref());
    // A process of ns-exec 0.1.0 has none.
    let config = image.and_then(|image| image.configuration.config().as_ref());
    let signal = own.or_else(|| config?.stop_signal().as_deref()).unwrap_or("TERM");
    signal.strip_prefix("SIG").unwrap_or(signal).to_owned()
}

fn arguments(spec: &Value) -> Vec<String> {
    let words = spec["args"].as_array().into_iter().flatten();
    words.filter_map(|word| word.as_str().map(str::to_owned)).collect()
}

/// A port in the form of `docker ps`: `0.0.0.0:10080->80/tcp`.
fn published(port: &document::members::PortMapping) -> String {
    let address = match port.host_ip {
        None => "0.0.0.0".to_owned(),
        Some(ip @ std::net::IpAddr::V4(_)) => ip.to_string(),
        Some(std::net::IpAddr::V6(ip)) => format!("[{ip}]"),
    };
    format!("{address}:{}->{}/{}", port.host_port, port.container_port, port.protocol)
}

/// A value as a word: lists are joined, and a missing value is empty.
fn word(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(list) => list.iter().map(word).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}

/// `format` with each `{member}` of the row filled in. Other braces stay as they are.
pub(crate) fn fill(format: &str, row: &Value) -> String {
    let mut text = String::new();
    let mut rest = format;
    while let Some((before, after)) = rest.split_once('{') {
        text += before;
        let member = after.split_once('}').and_then(|(name, behind)| Some((row.get(name)?, behind)));
        match member {
            Some((value, behind)) => {
                text += &word(value);
                rest = behind;
            }
            None => {
                text.push('{');
                rest = after;
            }
        }
    }
    text + rest
}

/// The rows under headings, in columns as wide as their content.
pub(crate) fn table(rows: &[&Value]) -> String {
    let status = |row: &Value| match (word(&row["state"]).as_str(), &row["exitStatus"]) {
        ("exited", Value::Number(status)) => format!("exited ({status})"),
        (state, _) => state.to_owned(),
    };
    let mut lines = vec![["CONTAINER", "IMAGE", "COMMAND", "STATUS", "IP", "PORTS"].map(str::to_owned)];
    lines.extend(rows.iter().map(|row| {
        let command = word(&row["command"]).chars().take(30).collect();
        let cell = |name: &str| word(&row[name]);
        [cell("id"), cell("image"), command, status(row), cell("ip"), cell("ports")]
    }));
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..lines[0].len()).map(width).collect();
    let pad = |line: &[String; 6]| -> String {
        line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}   ")).collect()
    };
    lines.iter().map(|line| pad(line).trim_end().to_owned() + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn container(members: Value) -> Value {
        let id: Id = "web".parse().unwrap();
        let document = Document::parse(members.to_string().as_bytes()).unwrap();
        serde_json::to_value(Container::new(&id, &document).unwrap()).unwrap()
    }

    #[test]
    fn state_is_told_by_pid_and_start_time() {
        let own = fs::read_to_string("/proc/self/stat").unwrap();
        let start: u64 = own.rsplit_once(')').unwrap().1.split_whitespace().nth(19).unwrap().parse().unwrap();
        let pid = std::process::id();
        for (process, state) in [
            (json!({"pid": pid, "startTime": start}), "running"),
            (json!({"pid": pid, "startTime": start + 1, "exitStatus": 3}), "exited"),
            (json!({"pid": 0, "startTime": 0}), "created"),
        ] {
            assert_eq!(container(json!({"stave": 1, "process": process}))["state"], state, "{process}");
        }
        assert_eq!(container(json!({"stave": 1}))["state"], "created");
    }

    #[test]
    fn rows_as_text() {
        let row = container(
            json!({"stave": 1, "instance": "07", "process": {"pid": 0, "startTime": 0, "spec": {"args": ["a", "b"]}},
            "ports": [{"hostPort": 10080, "containerPort": 80, "protocol": "tcp"}]}),
        );
        assert_eq!(fill("{id} {command}|{pid}|{instance}|{no} {", &row), "web a b||07|{no} {");
        let text = "CONTAINER   IMAGE   COMMAND   STATUS    IP   PORTS\n\
                    web                 a b       created        0.0.0.0:10080->80/tcp\n";
        assert_eq!(table(&[&row]), text);
    }
}

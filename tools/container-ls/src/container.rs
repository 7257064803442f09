//! A container in the list.

use std::{
    collections::BTreeMap,
    time::{Duration, UNIX_EPOCH},
};

use document::{
    Document, Id, Instance,
    members::{Attachment, Image, Ports, Process},
};
use life::State;
use oci_spec::runtime::LinuxResources;
use operation::Scope;
use serde::{Deserialize as _, Serialize};
use serde_json::Value;
use toolkit::{prelude::Result, rows};

use super::{
    mounted::{self, Mounted},
    sizes::Sizes,
};

/// One row of the list.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Container {
    id: Id,
    /// What it is called.
    pub(crate) name: Id,
    /// Distinguishes the container from a later one with the same id.
    pub(crate) instance: Option<Instance>,
    image: Option<String>,
    pub(crate) command: Vec<String>,
    /// When the container was made, in seconds since 1970.
    created: Option<u64>,
    state: &'static str,
    /// The state in Docker's words: `Up 5 minutes (healthy)`.
    pub(crate) status: String,
    /// `starting`, `healthy` or `unhealthy`.
    health: Option<String>,
    /// How often the container was restarted by its restart policy.
    restarts: u32,
    /// The limits, in the form of OCI runtime-spec.
    limits: Option<LinuxResources>,
    exit_status: Option<i32>,
    pub(crate) pid: Option<i32>,
    ip: Option<String>,
    pub(crate) ports: Vec<String>,
    log: Option<String>,
    stop_signal: String,
    /// The image's labels, and the container's own.
    labels: BTreeMap<String, String>,
    /// The names of the networks that it is attached to.
    networks: Vec<String>,
    /// What is mounted besides the file systems of every container.
    pub(crate) mounts: Vec<Mounted>,
    /// How many bytes the container has written, with `--size`.
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    /// How many bytes its root file system holds, with `--size`.
    #[serde(skip_serializing_if = "Option::is_none")]
    root_size: Option<u64>,
}

impl Container {
    /// The row for the container `id`, from its record. `sized`: whether to count its bytes.
    pub(crate) fn new(scope: &Scope, id: &Id, record: &Document, sized: bool) -> Result<Self> {
        let sizes = sized.then(|| Sizes::of(record)).transpose()?;
        let container = life::Container::of(id, record.clone())?;
        let state = container.as_ref().map_or(Ok(State::Created), life::Container::state)?;
        let process = record.get::<Process>()?;
        let runs = [State::Running, State::Paused].contains(&state);
        let reference =
            |image: Image| image.reference.unwrap_or_else(|| image.descriptor.digest().to_string());
        let image = record.get::<Image>()?;
        let attachments = record.attachments()?;
        let mut addresses = attachments.iter().flat_map(Attachment::addresses);
        let ports = record.get::<Ports>()?.map(|ports| ports.0).unwrap_or_default();
        let limits = container.as_ref().and_then(life::Container::limits).cloned().map(|mut limits| {
            limits.set_devices(None);
            limits
        });
        Ok(Self {
            id: id.clone(),
            name: record.called(id)?,
            instance: record.get()?,
            stop_signal: stop_signal(process.as_ref(), image.as_ref()),
            labels: labels(process.as_ref(), image.as_ref()),
            networks: attachments.iter().map(|one| one.name.clone()).collect(),
            mounts: container.as_ref().map(|one| mounted::of(scope, one)).unwrap_or_default(),
            image: image.map(reference),
            command: process.iter().flat_map(|process| arguments(&process.spec)).collect(),
            created: created(scope, id).map(|since| since.as_secs()),
            state: state.name(),
            status: status(state, container.as_ref())?,
            health: process.as_ref().and_then(|process| process.health.clone()).map(|health| health.status),
            restarts: process.as_ref().and_then(|process| process.restarts).unwrap_or_default(),
            limits: limits.filter(|limits| *limits != LinuxResources::default()),
            exit_status: process.as_ref().and_then(|process| process.exit_status),
            pid: process.as_ref().map(|process| process.pid).filter(|_| runs),
            // An ended container answers at no address.
            ip: addresses.next().map(|address| address.to_string()).filter(|_| state != State::Exited),
            ports: if record.has_ended() { Vec::new() } else { ports.iter().map(published).collect() },
            log: process.and_then(|process| process.log).map(|path| path.to_string_lossy().into_owned()),
            size: sizes.map(|sizes| sizes.written),
            root_size: sizes.map(|sizes| sizes.whole),
        })
    }

    /// Whether the container's process is running, or is about to run again, as with Docker.
    pub(crate) fn is_running(&self) -> bool {
        self.pid.is_some() || self.state == State::Restarting.name()
    }
}

/// The labels of an image and of a container of it, sorted by name.
fn labels(process: Option<&Process>, image: Option<&Image>) -> BTreeMap<String, String> {
    let config = image.and_then(|image| image.configuration.config().as_ref());
    let of_image = config.and_then(|config| config.labels().clone()).unwrap_or_default();
    let own = process.and_then(|process| process.config.as_ref()).map(|config| &config["Labels"]);
    let own = own.and_then(|labels| BTreeMap::deserialize(labels).ok()).unwrap_or_default();
    of_image.into_iter().chain(own).collect()
}

/// When the container was made, since 1970: its lock or its directory is made first.
pub(crate) fn created(scope: &Scope, id: &Id) -> Option<Duration> {
    let places = [scope.container(id.as_str()), scope.run_dir.join("locks").join(format!("{id}.container"))];
    let born = places.iter().filter_map(|place| place.metadata().ok()?.created().ok());
    born.min()?.duration_since(UNIX_EPOCH).ok()
}

/// The state in Docker's words.
fn status(state: State, container: Option<&life::Container>) -> Result<String> {
    let Some(container) = container else { return Ok("Created".to_owned()) };
    let process = &container.process;
    let code = process.exit_status.map_or_else(|| "unknown".to_owned(), |status| status.to_string());
    let finished = process.finished.as_deref().and_then(|text| text.parse::<jiff::Timestamp>().ok());
    let ended = finished.map(|time| format!(" {}", ago(time.as_second()))).unwrap_or_default();
    let up = || -> Result<String> {
        let started = i64::try_from(container.started()?.as_secs()).unwrap_or(i64::MAX);
        Ok(format!("Up {}", ago(started).trim_end_matches(" ago")))
    };
    Ok(match (state, &process.health) {
        (State::Created, _) => "Created".to_owned(),
        (State::Running, Some(health)) if health.status == "starting" => {
            format!("{} (health: starting)", up()?)
        }
        (State::Running, Some(health)) => format!("{} ({})", up()?, health.status),
        (State::Running, None) => up()?,
        (State::Paused, _) => format!("{} (Paused)", up()?),
        (State::Restarting, _) => format!("Restarting ({code}){ended}"),
        (State::Exited, _) => format!("Exited ({code}){ended}"),
    })
}

pub(crate) fn ago(then: i64) -> String {
    oci::timestamp::ago(then, jiff::Timestamp::now().as_second())
}

/// The signal that asks the process to end, in the form of `kill -SIGNAL`: a name without SIG, or a number.
fn stop_signal(process: Option<&Process>, image: Option<&Image>) -> String {
    let own = process.and_then(|process| process.stop_signal.as_deref());
    // Processes of ns-exec 0.1.0 have no stop signal of their own.
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
    let run = |first: u16| match port.range {
        None | Some(1) => first.to_string(),
        Some(count) => format!("{first}-{}", first.saturating_add(count.saturating_sub(1))),
    };
    format!("{address}:{}->{}/{}", run(port.host_port), run(port.container_port), port.protocol)
}

/// The rows as a table with headings.
pub(crate) fn table(rows: &Value, no_trunc: bool) -> String {
    let heads = ["CONTAINER", "IMAGE", "COMMAND", "CREATED", "STATUS", "IP", "PORTS"].map(str::to_owned);
    let line = |row: &Value| {
        let shown = if no_trunc { usize::MAX } else { 30 };
        let command = rows::word(&row["command"]).chars().take(shown).collect();
        let created = row["created"].as_i64().map(ago).unwrap_or_default();
        let cell = |name: &str| rows::word(&row[name]);
        [cell("name"), cell("image"), command, created, cell("status"), cell("ip"), cell("ports")]
    };
    if !rows::good(rows).any(|row| row["size"].is_u64()) {
        return rows::table(&[heads].into_iter().chain(rows::good(rows).map(line)).collect::<Vec<_>>());
    }
    let sized = |[name, image, command, created, status, ip, ports]: [String; 7], size| {
        [name, image, command, created, status, ip, ports, size]
    };
    let mut lines = vec![sized(heads, "SIZE".to_owned())];
    lines.extend(rows::good(rows).map(|row| sized(line(row), size(row).unwrap_or_default())));
    rows::table(&lines)
}

/// The size of a row with `--size`, in Docker's form.
pub(crate) fn size(row: &Value) -> Option<String> {
    let (written, whole) = (row["size"].as_u64()?, row["rootSize"].as_u64()?);
    Some(Sizes::text(written, whole))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn container(members: Value) -> Value {
        let id: Id = "web".parse().unwrap();
        let scope = Scope { root: "/nowhere".into(), run_dir: "/nowhere".into() };
        let document = Document::parse(members.to_string().as_bytes()).unwrap();
        serde_json::to_value(Container::new(&scope, &id, &document, false).unwrap()).unwrap()
    }

    /// A container with this process in its record.
    fn with(process: Value) -> Value {
        let operation = json!({"op": "process-start", "spec": {"ociVersion": "1.2.0"}, "pid": process["pid"], "startTime": process["startTime"]});
        let step = json!({"tool": "ns-exec", "version": "1", "state": "done", "operations": [operation]});
        container(json!({"stave": 1, "steps": [step], "process": process}))
    }

    #[test]
    fn state_is_told_by_pid_and_start_time() {
        let own = std::fs::read_to_string("/proc/self/stat").unwrap();
        let start: u64 = own.rsplit_once(')').unwrap().1.split_whitespace().nth(19).unwrap().parse().unwrap();
        let pid = std::process::id();
        let healthy = json!({"status": "healthy", "failingStreak": 0});
        for (process, state, status) in [
            (json!({"pid": pid, "startTime": start}), "running", "Up "),
            (json!({"pid": pid, "startTime": start, "health": healthy}), "running", " (healthy)"),
            (json!({"pid": pid, "startTime": start + 1, "exitStatus": 3}), "exited", "Exited (3)"),
            (
                json!({"pid": pid, "startTime": start + 1, "finished": "2020-01-01T00:00:00Z"}),
                "exited",
                "Exited (unknown) 6 years ago",
            ),
            (
                json!({"pid": pid, "startTime": 1, "exitStatus": 3, "restarting": true}),
                "restarting",
                "Restarting (3)",
            ),
            (json!({"pid": 0, "startTime": 0}), "created", "Created"),
        ] {
            let row = with(process.clone());
            assert_eq!(row["state"], state, "{process}");
            assert!(row["status"].as_str().unwrap().contains(status), "{row}");
        }
        assert_eq!(container(json!({"stave": 1}))["state"], "created");
    }

    #[test]
    fn rows_as_text() {
        let row = container(json!({"stave": 1, "instance": "07",
            "ports": [{"hostPort": 10080, "containerPort": 80, "protocol": "tcp"}]}));
        assert_eq!(rows::fill("{id} {command}|{pid}|{instance}|{no} {", &row), "web ||07|{no} {");
        let mut sized = row.clone();
        (sized["size"], sized["rootSize"]) = (json!(1500), json!(4_000_000));
        assert!(table(&json!([sized]), false).ends_with("   1.5kB (virtual 4MB)\n"), "{sized}");
        let text = "CONTAINER   IMAGE   COMMAND   CREATED   STATUS    IP   PORTS\n\
                    web                                     Created        0.0.0.0:10080->80/tcp\n";
        assert_eq!(table(&json!([row]), false), text);
    }
}

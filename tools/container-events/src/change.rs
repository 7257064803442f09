//! The changes between two reads of a record.

use std::{path::PathBuf, str::FromStr};

use document::{
    Id, Instance,
    members::{Image, Process},
};
use life::{Container, Point, State};
use oci_spec::runtime::LinuxResources;
use serde_json::{Map, Value, json};
use toolkit::{
    listing::{Format, Row},
    prelude::*,
};

/// The known state of a container.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    instance: Option<Instance>,
    /// What the container is called.
    name: Id,
    image: Option<String>,
    process: Process,
    state: State,
    started: Option<Point>,
    /// The limits of the container.
    limits: Option<LinuxResources>,
    /// The container's cgroup, as a path in its hierarchy.
    pub(crate) cgroup: Option<PathBuf>,
}

impl Known {
    pub(crate) fn of(container: &Container) -> Result<Self> {
        let image: Option<Image> = container.document.get()?;
        let reference =
            |image: Image| image.reference.unwrap_or_else(|| image.descriptor.digest().to_string());
        let has_started = container.process.pid > 0 && !container.has_lost_its_ground();
        Ok(Self {
            instance: container.document.get()?,
            name: container.called(),
            image: image.map(reference),
            process: container.process.clone(),
            state: container.state()?,
            started: has_started.then(|| container.started()).transpose()?.map(Point::from),
            limits: container.limits().cloned(),
            cgroup: container.cgroup().map(Into::into),
        })
    }

    fn event(&self, id: &Id, time: Point, name: &str) -> Value {
        json!({
            "time": time.text(),
            "event": name,
            "id": id,
            "name": self.name,
            "instance": self.instance,
            "image": self.image,
            "exitStatus": null,
            "health": null,
        })
    }

    fn finished(&self) -> Option<Point> {
        self.process.finished.as_deref()?.parse().ok()
    }

    /// The events of the end of the process.
    fn end(&self, id: &Id, time: Point) -> Vec<(Point, Value)> {
        let mut events = Vec::new();
        if self.process.oom_killed == Some(true) {
            events.push(self.event(id, time, "oom"));
        }
        let mut end = self.event(id, time, "die");
        end["exitStatus"] = json!(self.process.exit_status);
        events.push(end);
        if self.process.stopped {
            events.push(self.event(id, time, "stop"));
        }
        events.into_iter().map(|event| (time, event)).collect()
    }

    /// The past events that the record still shows, with their times.
    pub(crate) fn past(&self, id: &Id) -> Vec<(Point, Value)> {
        let start = self.started.map(|time| (time, self.event(id, time, "start")));
        let end = self.finished().map(|time| self.end(id, time)).unwrap_or_default();
        start.into_iter().chain(end).collect()
    }

    /// Whether the limits or the restart policy were changed.
    fn is_updated(&self, before: &Self) -> bool {
        before.limits != self.limits || before.process.restart != self.process.restart
    }

    fn is_same_process(&self, other: &Self) -> bool {
        (self.process.pid, self.process.start_time) == (other.process.pid, other.process.start_time)
    }
}

/// The events between two reads of a container's record. None stands for a container that does not exist.
pub(crate) fn changes(id: &Id, before: Option<&Known>, now: Option<&Known>) -> Vec<Value> {
    let time = Point::now();
    let mut events = Vec::new();
    let before = match (before, now) {
        (Some(old), Some(new)) if old.instance == new.instance => Some(old),
        (old, new) => {
            // The container is gone, or another container has its id.
            events.extend(old.map(|old| old.event(id, time, "destroy")));
            // Often the record is seen only when the process runs.
            let made = |new: &Known| new.started.map_or(time, |started| started.min(time));
            events.extend(new.map(|new| new.event(id, made(new), "create")));
            None
        }
    };
    let Some(now) = now else { return events };
    if let Some(old) = before.filter(|old| old.name != now.name) {
        let mut event = now.event(id, time, "rename");
        event["oldName"] = json!(old.name);
        events.push(event);
    }
    events.extend(before.filter(|old| now.is_updated(old)).map(|_| now.event(id, time, "update")));
    let is_same = before.is_some_and(|before| before.is_same_process(now));
    if !is_same && now.process.pid > 0 {
        if let Some(old) = before.filter(|old| old.process.pid > 0 && old.process.finished.is_none()) {
            // The end of the earlier process was not observed.
            events.push(old.event(id, time, "die"));
        }
        let begun = now.started.unwrap_or(time);
        events.push(now.event(id, begun, "start"));
    }
    let had_ended = is_same && before.is_some_and(|before| before.process.finished.is_some());
    if let Some(finished) = now.finished().filter(|_| !had_ended) {
        events.extend(now.end(id, finished).into_iter().map(|(_, event)| event));
    }
    let status = |known: &Known| known.process.health.as_ref().map(|health| health.status.clone());
    let health = status(now).filter(|now| before.filter(|_| is_same).and_then(status).as_ref() != Some(now));
    if let Some(health) = health.filter(|health| health != "starting") {
        let mut event = now.event(id, time, "health_status");
        event["health"] = health.into();
        events.push(event);
    }
    match (before.map(|before| before.state == State::Paused), now.state == State::Paused) {
        (None | Some(false), true) => events.push(now.event(id, time, "pause")),
        (Some(true), false) if is_same && now.process.finished.is_none() => {
            events.push(now.event(id, time, "unpause"));
        }
        _ => {}
    }
    events
}

/// Parses `--format`.
pub(crate) fn format(text: &str) -> std::result::Result<Format, String> {
    match text.parse::<Format>().map_err(|error| error.to_string())? {
        Format::Table | Format::Template { is_table: true, .. } => Err("events are no table".to_owned()),
        format => Ok(format),
    }
}

/// The name of an event and its attributes, as with Docker.
fn action(event: &Value) -> (String, Map<String, Value>) {
    let name = event["event"].as_str().unwrap_or_default();
    let action = match event["health"].as_str() {
        Some(health) => format!("{name}: {health}"),
        None => name.to_owned(),
    };
    let mut attributes = Map::new();
    if let Some(status) = event["exitStatus"].as_i64() {
        attributes.insert("exitCode".into(), status.to_string().into());
    }
    attributes.insert("image".into(), event["image"].as_str().unwrap_or_default().into());
    attributes.insert("name".into(), event["name"].clone());
    if let Some(old) = event["oldName"].as_str() {
        // As with Docker.
        attributes.insert("oldName".into(), format!("/{old}").into());
    }
    (action, attributes)
}

/// The time of an event, in nanoseconds since 1970.
fn nanoseconds(event: &Value) -> i64 {
    let time = event["time"].as_str().and_then(|text| text.parse::<Point>().ok());
    time.and_then(|time| i64::try_from(time.nanoseconds()).ok()).unwrap_or_default()
}

/// An event as `docker events --format json` prints it.
pub(crate) fn docker(event: &Value) -> Value {
    let ((action, attributes), nanoseconds) = (action(event), nanoseconds(event));
    json!({
        "status": action, "id": event["id"], "from": attributes["image"], "Type": "container", "Action": action,
        "Actor": {"ID": event["id"], "Attributes": attributes}, "scope": "local",
        "time": nanoseconds / 1_000_000_000, "timeNano": nanoseconds,
    })
}

/// The fields of a template: those of Docker, and for a line as Docker prints it the time and the attributes as text.
pub(crate) fn row(event: &Value) -> Row {
    let ((action, attributes), nanoseconds) = (action(event), nanoseconds(event));
    let text: Vec<_> = attributes
        .iter()
        .map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default()))
        .collect();
    let fields = json!({
        "Status": action, "ID": event["id"], "From": attributes["image"], "Type": "container", "Action": action,
        "Actor": {"ID": event["id"], "Attributes": attributes}, "Scope": "local",
        "Time": nanoseconds / 1_000_000_000, "TimeNano": nanoseconds,
        "When": event["time"], "Attributes": text.join(", "),
    });
    Row { fields, ..Row::default() }
}

/// One `--filter`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filter {
    key: &'static str,
    value: String,
}

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        let key = match key {
            "container" => "id",
            "event" => "event",
            "image" => "image",
            "type" if value == "container" => "type",
            "type" => return Err("there are only events of the type container".to_owned()),
            _ => return Err("it is container=ID, event=NAME, image=NAME or type=container".to_owned()),
        };
        Ok(Self { key, value: value.to_owned() })
    }
}

/// Whether all filters let an event pass. Of several filters with the same key, one is enough.
pub(crate) fn admits(filters: &[Filter], event: &Value) -> bool {
    let holds = |filter: &Filter| {
        let found = event[filter.key].as_str().unwrap_or_default();
        // An image matches without its tag, as with Docker.
        let is_untagged = || {
            filter.key == "image"
                && found.strip_prefix(filter.value.as_str()).is_some_and(|tag| tag.starts_with(':'))
        };
        let is_called = || filter.key == "id" && event["name"] == filter.value.as_str();
        filter.key == "type" || found == filter.value || is_called() || is_untagged()
    };
    filters.iter().all(|filter| filters.iter().any(|other| other.key == filter.key && holds(other)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(instance: &str, process: Value, state: State) -> Known {
        let mut whole = json!({"pid": 0, "startTime": 0});
        whole.as_object_mut().unwrap().extend(process.as_object().unwrap().clone());
        Known {
            instance: serde_json::from_value(json!(instance)).unwrap(),
            name: "web".parse().unwrap(),
            image: Some("busybox:latest".into()),
            process: serde_json::from_value(whole).unwrap(),
            state,
            started: None,
            limits: None,
            cgroup: None,
        }
    }

    #[test]
    fn what_happens_between_two_looks() {
        let id: Id = "web".parse().unwrap();
        let made = known("0707070707070707", json!({}), State::Created);
        let runs = known("0707070707070707", json!({"pid": 7, "startTime": 1}), State::Running);
        let sick = known(
            "0707070707070707",
            json!({"pid": 7, "startTime": 1, "health": {"status": "unhealthy"}}),
            State::Running,
        );
        let paused = known("0707070707070707", json!({"pid": 7, "startTime": 1}), State::Paused);
        let over = json!({"pid": 7, "startTime": 1, "finished": "2026-01-01T00:00:00Z", "exitStatus": 137, "oomKilled": true, "stopped": true});
        let over = known("0707070707070707", over, State::Exited);
        let again = known("0707070707070707", json!({"pid": 8, "startTime": 2}), State::Running);
        let always =
            known("0808080808080808", json!({"pid": 9, "startTime": 2, "restart": "always"}), State::Running);
        let another = known("0808080808080808", json!({"pid": 9, "startTime": 2}), State::Running);
        let called = Known { name: "shop".parse().unwrap(), ..runs.clone() };
        for (before, now, expected) in [
            (Some(&runs), Some(&called), &["rename"][..]),
            (None, Some(&made), &["create"]),
            (None, Some(&runs), &["create", "start"]),
            (Some(&made), Some(&runs), &["start"]),
            (Some(&runs), Some(&runs), &[]),
            (Some(&runs), Some(&sick), &["health_status"]),
            (Some(&runs), Some(&paused), &["pause"]),
            (Some(&paused), Some(&runs), &["unpause"]),
            (Some(&paused), Some(&over), &["oom", "die", "stop"]),
            (Some(&over), Some(&over), &[]),
            (Some(&over), Some(&again), &["start"]),
            (Some(&runs), Some(&again), &["die", "start"]),
            (Some(&made), Some(&over), &["start", "oom", "die", "stop"]),
            (Some(&again), Some(&another), &["destroy", "create", "start"]),
            (Some(&another), Some(&always), &["update"]),
            (
                Some(&Known { limits: Some(LinuxResources::default()), ..always.clone() }),
                Some(&always),
                &["update"],
            ),
            (Some(&over), None, &["destroy"]),
        ] {
            let events = changes(&id, before, now);
            let names: Vec<&str> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
            assert_eq!(names, expected, "{before:?} {now:?}");
        }
        let renamed = docker(&changes(&id, Some(&called), Some(&runs))[0]);
        let attributes = &renamed["Actor"]["Attributes"];
        assert_eq!((&attributes["name"], &attributes["oldName"]), (&json!("web"), &json!("/shop")));
        let past = over.past(&id);
        assert_eq!(past[1].1["exitStatus"], 137);
        assert_eq!(past[1].1["time"], "2026-01-01T00:00:00.000000000Z");
    }

    #[test]
    fn filters_of_one_kind_are_alternatives() {
        let event = json!({"id": "web", "name": "shop", "event": "die", "image": "busybox:latest"});
        let filters =
            |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<Filter>>();
        for (texts, expected) in [
            (&[][..], true),
            (&["container=web"], true),
            (&["container=shop"], true),
            (&["container=db"], false),
            (&["container=db", "container=web"], true),
            (&["container=web", "event=start"], false),
            (&["image=busybox", "event=start", "event=die"], true),
            (&["image=busy"], false),
            (&["type=container", "container=web"], true),
        ] {
            assert_eq!(admits(&filters(texts), &event), expected, "{texts:?}");
        }
        assert!("label=x".parse::<Filter>().is_err() && "type=image".parse::<Filter>().is_err());
    }
}

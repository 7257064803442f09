//! Rows in the form of `docker ps`, and the filters of it.

use serde_json::{Value, json};
use toolkit::{
    listing::{Bounds, Filters, Row, labels_in_a_line},
    prelude::*,
    rows,
};

use super::container::{ago, size};

/// The fields, with their headings (docs.docker.com, "docker container ls", Format).
pub(crate) const HEADINGS: [(&str, &str); 15] = [
    ("ID", "CONTAINER ID"),
    ("Names", "NAMES"),
    ("Image", "IMAGE"),
    ("Command", "COMMAND"),
    ("CreatedAt", "CREATED AT"),
    ("RunningFor", "CREATED"),
    ("Ports", "PORTS"),
    ("State", "STATE"),
    ("Status", "STATUS"),
    ("Labels", "LABELS"),
    ("Mounts", "MOUNTS"),
    ("Networks", "NETWORKS"),
    ("LocalVolumes", "LOCAL VOLUMES"),
    ("Platform", "PLATFORM"),
    ("Size", "SIZE"),
];

/// How many characters of a command are shown.
const SHOWN: usize = 20;

/// The keys of `--filter`.
pub(crate) const FILTERS: [&str; 13] = [
    "ancestor", "before", "exited", "expose", "health", "id", "label", "name", "network", "publish", "since",
    "status", "volume",
];

/// A row of container-ls as Docker has it.
pub(crate) fn row(row: &Value, no_trunc: bool) -> Row {
    let labels = row["labels"].as_object().cloned().unwrap_or_default();
    let command = rows::word(&row["command"]);
    let short: String = command.chars().take(SHOWN - 1).collect();
    let command = if no_trunc || command.chars().count() <= SHOWN { command } else { short + "…" };
    let list = |name: &str| row[name].as_array().into_iter().flatten();
    let joined = |name: &str, by: &str| list(name).map(rows::word).collect::<Vec<_>>().join(by);
    let mounts: Vec<_> =
        list("mounts").filter(|one| one["type"] == "bind").map(|one| rows::word(&one["source"])).collect();
    let created = row["created"].as_i64();
    let at = created.and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    let mut fields = json!({
            "ID": row["id"],
            "Names": row["name"],
            "Image": rows::word(&row["image"]),
            "Command": format!("{command:?}"),
            "CreatedAt": at.map(|at| at.strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string()).unwrap_or_default(),
            "RunningFor": created.map(ago).unwrap_or_default(),
            "Ports": joined("ports", ", "),
            "State": row["state"],
            "Status": row["status"],
            "Labels": labels_in_a_line(&labels),
            "Mounts": mounts.join(","),
            "Networks": joined("networks", ","),
            "LocalVolumes": "0",
            "Platform": "linux",
    });
    // Without --size nobody has counted.
    if let Some(size) = size(row) {
        fields["Size"] = size.into();
    }
    Row { fields, labels }
}

/// The rows that the filters of `docker ps` keep. `created` returns when a container was made, for `before` and
/// `since`.
///
/// # Errors
/// When a filter is unknown, or has a value that cannot be.
pub(crate) fn filtered<T: PartialOrd>(
    rows: Vec<Value>,
    filters: &[(String, String)],
    created: impl Fn(&str) -> Option<T>,
) -> Result<Vec<Value>> {
    let filters = Filters::new(filters, &FILTERS)?;
    for code in filters.of("exited") {
        code.parse::<i32>().map_err(|_| anyhow!("filter exited={code}: it is an exit status"))?;
    }
    for (key, known) in [
        ("status", &["created", "restarting", "running", "removing", "paused", "exited", "dead"][..]),
        ("health", &["starting", "healthy", "unhealthy", "none"]),
    ] {
        if let Some(value) = filters.of(key).find(|value| !known.contains(value)) {
            return Err(hint(
                anyhow!("filter {key}={value}: there is no such {key}"),
                format!("there are {}", known.join(", ")),
            ));
        }
    }
    let bounds = Bounds::new(filters, |key, name| {
        created(name).ok_or_else(|| anyhow!("filter {key}={name}: no container {name:?}"))
    })?;
    let mut kept = Vec::new();
    for row in rows {
        let text = |name: &str| rows::word(&row[name]);
        let has = |name: &str, fits: &dyn Fn(&str) -> bool| {
            row[name].as_array().into_iter().flatten().any(|one| one.as_str().is_some_and(fits))
        };
        let is_kept = filters.name("name", &text("name"))?
            && filters.any("id", |wanted| text("id").starts_with(wanted))
            && filters.labels(&row["labels"].as_object().cloned().unwrap_or_default())
            && filters.any("exited", |code| row["state"] == "exited" && text("exitStatus") == code)
            && filters.any("status", |state| row["state"] == state)
            && filters.any("health", |health| row["health"].as_str().unwrap_or("none") == health)
            && filters.any("network", |network| has("networks", &|own| own == network))
            && filters.any("ancestor", |image| is_of_image(&text("image"), image))
            && filters.any("publish", |port| has("ports", &|own| publishes(own, port, false)))
            && filters.any("expose", |port| has("ports", &|own| publishes(own, port, true)))
            && filters.any("volume", |place| {
                let mut mounts = row["mounts"].as_array().into_iter().flatten();
                mounts.any(|one| ["source", "destination"].iter().any(|end| one[end] == place))
            })
            && bounds.hold(|| created(&text("id")));
        if is_kept {
            kept.push(row);
        }
    }
    Ok(kept)
}

/// Whether a container's image has this name. Without a tag, the tag is `latest`.
fn is_of_image(image: &str, wanted: &str) -> bool {
    match (image.parse::<oci::Reference>(), wanted.parse::<oci::Reference>()) {
        (Ok(image), Ok(wanted)) => image == wanted,
        _ => image == wanted,
    }
}

/// Whether a published port, `0.0.0.0:10080->80/tcp`, is `PORT`, `FIRST-LAST`, or either with `/PROTOCOL`.
fn publishes(own: &str, wanted: &str, is_inside: bool) -> bool {
    let (ports, protocol) = wanted.split_once('/').unwrap_or((wanted, "tcp"));
    let range = |text: &str| -> Option<(u16, u16)> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        Some((first.parse().ok()?, last.parse().ok()?))
    };
    let Some((host, inside)) = own.split_once("->") else { return false };
    let Some((inside, own_protocol)) = inside.split_once('/') else { return false };
    let host = host.rsplit_once(':').map_or(host, |(_, port)| port);
    let overlaps = |(first, last): (u16, u16), (from, to): (u16, u16)| first <= to && from <= last;
    let own = range(if is_inside { inside } else { host });
    own_protocol == protocol && own.zip(range(ports)).is_some_and(|(own, wanted)| overlaps(own, wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(rows: &[Value], filters: &[(&str, &str)]) -> std::result::Result<String, String> {
        let filters: Vec<_> =
            filters.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let created = |name: &str| rows.iter().find(|row| row["id"] == name)?["created"].as_u64();
        let kept = filtered(rows.to_vec(), &filters, created).map_err(|error| error.to_string())?;
        Ok(kept.iter().map(|row| rows::word(&row["id"])).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn filters_of_docker_ps() {
        let rows = [
            json!({"id": "web", "name": "shop", "created": 1, "state": "running", "image": "busybox:latest", "labels": {"a": "1"}, "health": "healthy",
                "networks": ["front"], "ports": ["0.0.0.0:10080->80/tcp", "[::1]:53-55->53-55/udp"]}),
            json!({"id": "db", "name": "db", "created": 2, "state": "exited", "exitStatus": 3, "image": "debian:12", "labels": {}, "networks": [], "ports": []}),
        ];
        for (filters, expected) in [
            (&[][..], "web db"),
            (&[("name", "sh")], "web"),
            (&[("name", "w")], ""),
            (&[("id", "d")], "db"),
            (&[("label", "a")], "web"),
            (&[("label", "a=2")], ""),
            (&[("exited", "3")], "db"),
            (&[("exited", "0")], ""),
            (&[("status", "running"), ("status", "exited")], "web db"),
            (&[("status", "running"), ("name", "db")], ""),
            (&[("health", "healthy")], "web"),
            (&[("health", "none")], "db"),
            (&[("network", "front")], "web"),
            (&[("ancestor", "docker.io/library/busybox")], "web"),
            (&[("ancestor", "debian")], ""),
            (&[("publish", "10080")], "web"),
            (&[("publish", "80")], ""),
            (&[("expose", "80/tcp")], "web"),
            (&[("publish", "54/udp")], "web"),
            (&[("publish", "54")], ""),
            (&[("before", "db")], "web"),
            (&[("since", "web")], "db"),
        ] {
            assert_eq!(names(&rows, filters).as_deref(), Ok(expected), "{filters:?}");
        }
        for (filter, error) in [
            (("isolation", "x"), "unknown filter \"isolation\""),
            (("exited", "x"), "filter exited=x: it is an exit status"),
            (("status", "gone"), "filter status=gone: there is no such status"),
            (("before", "x"), "filter before=x: no container \"x\""),
        ] {
            assert_eq!(names(&rows, &[filter]), Err(error.to_owned()));
        }
    }

    #[test]
    fn commands_are_short() {
        let command =
            |words: Value, no_trunc| row(&json!({"command": words}), no_trunc).fields["Command"].clone();
        assert_eq!(command(json!(["sleep", "1000"]), false), "\"sleep 1000\"");
        let long = json!(["sh", "-c", "while true; do :; done"]);
        assert_eq!(command(long.clone(), false), "\"sh -c while true; d…\"");
        assert_eq!(command(long, true), "\"sh -c while true; do :; done\"");
    }
}

//! A container in the form of `docker inspect`, for templates.

use std::collections::BTreeMap;

use document::{
    Document, Id,
    members::{Checked, Image, Ports, Process, Rootfs},
};
use life::State;
use operation::Scope;
use serde_json::{Map, Value, json};
use toolkit::prelude::*;

use super::{container::created, mounted};

/// A time that is not known (Go's zero time).
const NEVER: &str = "0001-01-01T00:00:00Z";

/// The exit status of a process whose end nobody saw.
const UNSEEN: i32 = 255;

/// The container, by the names of Docker's API ("ContainerInspect").
pub(crate) fn of(scope: &Scope, id: &Id, record: &Document) -> Result<Value> {
    let container = life::Container::of(id, record.clone())?;
    let process: Option<Process> = record.get()?;
    let image: Option<Image> = record.get()?;
    let spec = container.as_ref().map(|one| serde_json::to_value(&one.operation.spec)).transpose()?;
    let spec = spec.unwrap_or_default();
    let words: Vec<Value> = spec["process"]["args"].as_array().cloned().unwrap_or_default();
    let etc = scope.container(id.as_str()).join("etc");
    let born = created(scope, id).and_then(|since| time(i64::try_from(since.as_secs()).ok()?));
    let log = process.as_ref().and_then(|process| process.log.clone()).unwrap_or_default();
    Ok(json!({
        "Id": id,
        "Name": format!("/{}", record.called(id)?),
        "Created": born.unwrap_or_else(|| NEVER.to_owned()),
        "Path": words.first().cloned().unwrap_or_default(),
        "Args": words.get(1..).unwrap_or_default(),
        "State": state(container.as_ref(), process.as_ref())?,
        "Image": image.as_ref().map(|image| image_id(scope, image)).unwrap_or_default(),
        "ResolvConfPath": etc.join("resolv.conf"),
        "HostnamePath": etc.join("hostname"),
        "HostsPath": etc.join("hosts"),
        "LogPath": log,
        "RestartCount": process.as_ref().and_then(|process| process.restarts).unwrap_or_default(),
        "Driver": "overlay2",
        "Platform": "linux",
        "HostConfig": host_config(record, container.as_ref(), &spec)?,
        "GraphDriver": graph(record)?,
        "Mounts": mounts(scope, container.as_ref()),
        "Config": config(image.as_ref(), process.as_ref(), &spec),
        "NetworkSettings": network(record)?,
    }))
}

/// The digest of the image's configuration; of its manifest if the image is no longer in the store.
fn image_id(scope: &Scope, image: &Image) -> String {
    let layout = oci::Layout::look(scope.root.join("images"));
    let id = layout.and_then(|layout| layout.image(&image.descriptor, None)).and_then(|image| image.id());
    id.map_or_else(|_| image.descriptor.digest().to_string(), |id| id.to_string())
}

fn time(seconds: i64) -> Option<String> {
    Some(jiff::Timestamp::from_second(seconds).ok()?.to_string())
}

fn state(container: Option<&life::Container>, process: Option<&Process>) -> Result<Value> {
    let state = container.map_or(Ok(State::Created), life::Container::state)?;
    let is_up = [State::Running, State::Paused].contains(&state);
    let on_record = process.and_then(|process| process.started.clone());
    let started = match container.filter(|_| is_up && on_record.is_none()) {
        Some(container) => time(i64::try_from(container.started()?.as_secs()).unwrap_or(i64::MAX)),
        None => on_record,
    };
    let health = process.and_then(|process| process.health.as_ref()).map(|health| {
        // A check that took too long has Docker's -1.
        let one = |checked: &Checked| {
            json!({"Start": checked.started, "End": checked.finished, "ExitCode": checked.exit_status.unwrap_or(-1), "Output": checked.output})
        };
        let log: Vec<Value> = health.log.iter().map(one).collect();
        json!({"Status": health.status, "FailingStreak": health.failing_streak, "Log": log})
    });
    // As with containerd, 255 for an end that nobody saw: 0 would mean success.
    let unseen = if state == State::Exited { UNSEEN } else { 0 };
    Ok(json!({
        "Status": state.name(),
        // As with Docker, a container that is about to run again counts as running.
        "Running": is_up || state == State::Restarting,
        "Paused": state == State::Paused,
        "Restarting": state == State::Restarting,
        "OOMKilled": process.and_then(|process| process.oom_killed).unwrap_or_default(),
        "Dead": false,
        "Pid": process.map(|process| process.pid).filter(|_| is_up).unwrap_or_default(),
        "ExitCode": process.and_then(|process| process.exit_status).unwrap_or(unseen),
        "Error": process.and_then(|process| process.error.clone()).unwrap_or_default(),
        "StartedAt": started.unwrap_or_else(|| NEVER.to_owned()),
        "FinishedAt": process.and_then(|process| process.finished.clone()).unwrap_or_else(|| NEVER.to_owned()),
        "Health": health,
    }))
}

fn host_config(record: &Document, container: Option<&life::Container>, spec: &Value) -> Result<Value> {
    let policy = container.map(|one| one.policy().to_string()).unwrap_or_else(|| "no".to_owned());
    let (name, most) = policy.split_once(':').unwrap_or((&policy, "0"));
    let resources = &spec["linux"]["resources"];
    let [quota, period] = ["quota", "period"].map(|name| resources["cpu"][name].as_i64().unwrap_or_default());
    let nano = if quota > 0 && period > 0 { quota.saturating_mul(1_000_000_000) / period } else { 0 };
    let attachments = record.attachments()?;
    Ok(json!({
        "NetworkMode": attachments.first().map_or_else(|| network_mode(spec), |one| one.name.clone()),
        "RestartPolicy": {"Name": name, "MaximumRetryCount": most.parse().unwrap_or(0)},
        "PortBindings": bindings(record)?,
        "ReadonlyRootfs": spec["root"]["readonly"].as_bool().unwrap_or_default(),
        "Memory": resources["memory"]["limit"].as_i64().unwrap_or_default(),
        "MemorySwap": resources["memory"]["swap"].as_i64().unwrap_or_default(),
        "NanoCpus": nano,
        "CpuShares": resources["cpu"]["shares"].as_u64().unwrap_or_default(),
        "CpuQuota": quota,
        "CpuPeriod": period,
        "CpusetCpus": resources["cpu"]["cpus"].as_str().unwrap_or_default(),
        "PidsLimit": resources["pids"]["limit"].as_i64(),
        "LogConfig": log_config(container),
        "Annotations": annotations(spec),
        "OomScoreAdj": spec["process"]["oomScoreAdj"].as_i64().unwrap_or_default(),
    }))
}

/// The log as Docker's driver json-file describes it. Limits that are the defaults are left out.
fn log_config(container: Option<&life::Container>) -> Value {
    let Some(operation) = container.map(|one| &one.operation) else {
        return json!({"Type": "none", "Config": {}});
    };
    let size = operation.log_limit.filter(|size| *size != life::LOG_LIMIT);
    let mut options = Map::new();
    options.extend(operation.log_files.map(|files| ("max-file".to_owned(), files.to_string().into())));
    options.extend(size.map(|size| {
        let text = if size == u64::MAX { "-1".to_owned() } else { size.to_string() };
        ("max-size".to_owned(), text.into())
    }));
    json!({"Type": "json-file", "Config": options})
}

/// The annotations that the user gave.
fn annotations(spec: &Value) -> Option<Map<String, Value>> {
    let all = spec["annotations"].as_object()?.iter();
    // In the order of their names, as with Docker.
    let own: BTreeMap<_, _> = all
        .filter(|(name, _)| !runtime::spec::is_reserved_annotation(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    (!own.is_empty()).then(|| own.into_iter().collect())
}

/// The network of a container without an attachment: `none`, `host`, or podman's `ns:` and the path of a namespace that
/// it has joined.
fn network_mode(spec: &Value) -> String {
    let Some(namespaces) = spec["linux"]["namespaces"].as_array() else { return "none".to_owned() };
    match namespaces.iter().find(|namespace| namespace["type"] == "network") {
        None => "host".to_owned(),
        Some(namespace) => {
            namespace["path"].as_str().map_or_else(|| "none".to_owned(), |path| format!("ns:{path}"))
        }
    }
}

/// Docker's ports: `{"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "10080"}]}`.
fn bindings(record: &Document) -> Result<Map<String, Value>> {
    let mut ports: Map<String, Value> = Map::new();
    if record.has_ended() {
        return Ok(ports);
    }
    for port in record.get::<Ports>()?.map(|ports| ports.0).unwrap_or_default() {
        let address = port.host_ip.map_or_else(|| "0.0.0.0".to_owned(), |ip| ip.to_string());
        for (offset, inside) in port.container_ports().enumerate() {
            let outside = usize::from(port.host_port) + offset;
            let binding = json!({"HostIp": address, "HostPort": outside.to_string()});
            let list = ports.entry(format!("{inside}/{}", port.protocol)).or_insert_with(|| json!([]));
            list.as_array_mut().into_iter().for_each(|list| list.push(binding.clone()));
        }
    }
    Ok(ports)
}

fn graph(record: &Document) -> Result<Value> {
    let Some(rootfs) = record.get::<Rootfs>()? else { return Ok(json!({"Name": "overlay2", "Data": null})) };
    let lower: Vec<_> =
        rootfs.lower.iter().chain(&rootfs.levels).rev().map(|path| path.to_string_lossy()).collect();
    let data = json!({"LowerDir": lower.join(":"), "UpperDir": rootfs.upper, "WorkDir": rootfs.work, "MergedDir": rootfs.path});
    Ok(json!({"Name": "overlay2", "Data": data}))
}

fn mounts(scope: &Scope, container: Option<&life::Container>) -> Vec<Value> {
    let all = container.map(|one| mounted::of(scope, one)).unwrap_or_default();
    let one = |mount: mounted::Mounted| {
        let kept = |name: &&String| !["bind", "rbind", "rprivate", "nodev"].contains(&name.as_str());
        let mode: Vec<_> = mount.options.iter().filter(kept).cloned().collect();
        let propagation = if mount.r#type == "bind" { "rprivate" } else { "" };
        json!({
            "Type": mount.r#type,
            "Name": mount.name.unwrap_or_default(),
            "Source": mount.source.unwrap_or_default(),
            "Destination": mount.destination,
            "Mode": mode.join(","),
            "RW": !mount.readonly,
            "Propagation": mount.options.iter().find(|option| option.contains("slave") || option.contains("shared")).map_or(propagation, String::as_str),
        })
    };
    all.into_iter().map(one).collect()
}

/// The settings of the container: those of the image, and what was used instead.
fn config(image: Option<&Image>, process: Option<&Process>, spec: &Value) -> Value {
    let whole = image.map(|image| image.configuration.whole()["config"].clone()).unwrap_or_default();
    let mut config = json!({
        "User": "", "Env": null, "Cmd": null, "Entrypoint": null, "WorkingDir": "", "Labels": {}, "Volumes": null,
        "ExposedPorts": null, "OnBuild": null, "Healthcheck": null, "StopSignal": null,
    });
    let changed = process.and_then(|process| process.config.clone()).unwrap_or_default();
    for from in [whole, changed] {
        for (name, value) in from.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null()) {
            config[name.as_str()] = value.clone();
        }
    }
    config["Hostname"] = spec["hostname"].as_str().unwrap_or_default().into();
    config["Domainname"] = spec["domainname"].as_str().unwrap_or_default().into();
    config["Tty"] = spec["process"]["terminal"].as_bool().unwrap_or_default().into();
    config["Env"] = spec["process"]["env"].clone();
    config["Image"] = image.and_then(|image| image.reference.clone()).unwrap_or_default().into();
    config
}

fn network(record: &Document) -> Result<Value> {
    let mut networks = Map::new();
    for attachment in record.attachments()? {
        let inside = attachment.cni.interfaces.iter().rev().find(|one| one.sandbox.is_some());
        let cni = serde_json::to_value(&attachment.cni)?;
        let ips = |v6: bool| {
            let all = cni["ips"].as_array().into_iter().flatten();
            all.filter_map(|ip| {
                Some((ip["address"].as_str()?.split_once('/')?, ip["gateway"].as_str().unwrap_or_default()))
            })
            .find(|((address, _), _)| address.contains(':') == v6)
        };
        let part = |v6| {
            ips(v6).map_or(("", 0, ""), |((address, length), gateway)| {
                (address, length.parse().unwrap_or(0), gateway)
            })
        };
        let ((ip, length, gateway), (ip6, length6, gateway6)) = (part(false), part(true));
        let fields = json!({
            "IPAddress": ip, "IPPrefixLen": length, "Gateway": gateway, "GlobalIPv6Address": ip6,
            "GlobalIPv6PrefixLen": length6, "IPv6Gateway": gateway6,
            "MacAddress": inside.and_then(|one| serde_json::to_value(one).ok()).map(|one| one["mac"].clone()).unwrap_or_default(),
            "NetworkID": attachment.name, "Aliases": null,
        });
        networks.insert(attachment.name, fields);
    }
    let namespace = record.get::<document::members::Network>()?.map(|network| network.namespace);
    let mut settings = json!({"SandboxKey": namespace.unwrap_or_default(), "Ports": bindings(record)?});
    // Docker has those of the default network here as well.
    let first = networks.values().next().cloned();
    for name in [
        "IPAddress",
        "IPPrefixLen",
        "Gateway",
        "GlobalIPv6Address",
        "GlobalIPv6PrefixLen",
        "IPv6Gateway",
        "MacAddress",
    ] {
        let empty = if name.ends_with("PrefixLen") { json!(0) } else { json!("") };
        settings[name] = first.as_ref().map_or(empty, |first| first[name].clone());
    }
    settings["Networks"] = Value::Object(networks);
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_of_the_specification() {
        for (namespaces, mode) in [
            (json!([{"type": "pid"}, {"type": "network"}]), "none"),
            (json!([{"type": "pid"}]), "host"),
            (json!([{"type": "network", "path": "/proc/7/ns/net"}]), "ns:/proc/7/ns/net"),
        ] {
            assert_eq!(network_mode(&json!({"linux": {"namespaces": namespaces}})), mode);
        }
        assert_eq!(network_mode(&Value::Null), "none", "not started");
    }
}

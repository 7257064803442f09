//! A bundle: a directory with a `config.json` (OCI runtime-spec, bundle.md and config.md).

use std::{
    fs,
    path::{Path, PathBuf},
};

use oci_spec::runtime::{Capability, Process, Spec};
use serde_json::{Map, Value, json};

use crate::{Error, Result, check, properties};

/// A configuration that this crate can run.
#[derive(Debug, Clone)]
pub struct Configuration {
    /// The configuration, with all paths of the host absolute.
    pub spec: Box<Spec>,
    /// The same configuration as JSON.
    pub json: Value,
    /// Warnings about properties that were ignored.
    pub warnings: Vec<String>,
}

/// ns-exec's annotation for a process that ends with its parent. Here the parent of a container ends at once.
const ENDS_WITH_PARENT: &str = "stave.endsWithParent";

/// The largest configuration, in bytes.
const LONGEST: u64 = 64 << 20;

/// Reads the configuration at `path`. `bundle` is the absolute path of the bundle directory.
///
/// # Errors
/// For a configuration that violates the specification, and for a property that is not supported, with its
/// JSON path.
pub fn read(path: &Path, bundle: &Path) -> Result<Configuration> {
    let (mut json, mut warnings) = filtered(path, "")?;
    if let Some(process) = json.get_mut("process") {
        warnings.extend(prepare_process(process, "/process"));
    }
    if let Some(annotations) = json.get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.shift_remove(ENDS_WITH_PARENT);
    }
    forget_empty_paths(&mut json);
    map_all(&mut json)?;
    resolve(&mut json, bundle, &mut warnings)?;
    let spec = parse::<Spec>(&json, "")?;
    check::all(&spec, &json)?;
    Ok(Configuration { spec: Box::new(spec), json, warnings })
}

/// Reads a process at `path`, in the form of `process` in a configuration. Also returns warnings about
/// ignored properties.
///
/// # Errors
/// As [`read`].
pub fn read_process(path: &Path) -> Result<(Process, Vec<String>)> {
    let (mut json, mut warnings) = filtered(path, "/process")?;
    warnings.extend(prepare_process(&mut json, ""));
    let process = parse::<Process>(&json, "/process")?;
    check::process(&process)?;
    Ok((process, warnings))
}

/// Parses a configuration that was read before.
///
/// # Errors
/// When the JSON is damaged.
pub(crate) fn again(json: &Value) -> Result<Box<Spec>> {
    parse(json, "")
}

fn filtered(path: &Path, within: &str) -> Result<(Value, Vec<String>)> {
    let on = || Error::on::<std::io::Error>("read", format!("{path:?}"));
    let size = fs::metadata(path).map_err(on())?.len();
    if size > LONGEST {
        return Err(Error::new(
            "read",
            format_args!("{path:?}"),
            format!("it has more than {LONGEST} bytes"),
        ));
    }
    let text = fs::read(path).map_err(on())?;
    let mut json: Value = serde_json::from_slice(&text)
        .map_err(|error| Error::new("read", format_args!("{path:?}"), error.to_string()))?;
    if !json.is_object() {
        return Err(Error::new("read", format_args!("{path:?}"), "it is no JSON object"));
    }
    let warnings = properties::filtered(&mut json, within)?;
    Ok((json, warnings))
}

/// Parses JSON. `within` is its JSON path in a `config.json`.
fn parse<T: serde::de::DeserializeOwned>(json: &Value, within: &str) -> Result<T> {
    serde_path_to_error::deserialize(json).map_err(|error| {
        let place = format!("{within}{}", pointer(error.path()));
        Error::new("carry out", place, error.into_inner().to_string())
    })
}

/// A JSON path (RFC 6901). Of a missing member, it is that of the object.
fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment::{Enum, Map, Seq, Unknown};
    let part = |segment: &serde_path_to_error::Segment| match segment {
        Seq { index } => Some(format!("/{index}")),
        Map { key } => Some(format!("/{}", properties::escaped(key))),
        Enum { .. } | Unknown => None,
    };
    path.iter().filter_map(part).collect()
}

/// A namespace with an empty path is a new one. Programs in Go write a path that is not set in this way.
fn forget_empty_paths(json: &mut Value) {
    let namespaces = json.pointer_mut("/linux/namespaces").and_then(Value::as_array_mut);
    for namespace in namespaces.into_iter().flatten().filter_map(Value::as_object_mut) {
        if namespace.get("path").is_some_and(|path| path == "") {
            namespace.shift_remove("path");
        }
    }
}

/// A new user namespace without mappings maps all ids of the caller's one to one, as with crun.
fn map_all(json: &mut Value) -> Result<()> {
    let Some(linux) = json.get_mut("linux").and_then(Value::as_object_mut) else { return Ok(()) };
    let namespaces = linux.get("namespaces").and_then(Value::as_array).into_iter().flatten();
    let is_new = |one: &&Value| one["type"] == "user" && one.get("path").is_none();
    let has_none = |name| linux.get(name).and_then(Value::as_array).is_none_or(Vec::is_empty);
    if namespaces.clone().find(is_new).is_none() || !has_none("uidMappings") || !has_none("gidMappings") {
        return Ok(());
    }
    let own = userns::Namespace::current()?;
    let all = |runs: Option<Vec<userns::Mapping>>| match runs {
        None => json!([{"containerID": 0, "hostID": 0, "size": u32::MAX}]),
        Some(runs) => runs
            .iter()
            .map(|run| json!({"containerID": run.inside, "hostID": run.inside, "size": run.size}))
            .collect(),
    };
    let (users, groups) = own.map(|own| (own.uid_mappings, own.gid_mappings)).unzip();
    linux.insert("uidMappings".to_owned(), all(users));
    linux.insert("gidMappings".to_owned(), all(groups));
    Ok(())
}

/// Names that differ between the specification and the library that parses it.
const FLAGS: [(&str, &str); 2] = [
    ("SCHED_FLAG_RESET_ON_FORK", "SCHED_RESET_ON_FORK"),
    ("SCHED_FLAG_DL_OVERRUN", "SCHED_FLAG_D_L_OVERRUN"),
];

/// Sets the defaults of a process, and removes what the specification says to ignore. Returns warnings.
fn prepare_process(process: &mut Value, path: &str) -> Vec<String> {
    let Some(members) = process.as_object_mut() else { return Vec::new() };
    members.entry("user").or_insert_with(|| json!({}));
    if let Some(user) = members.get_mut("user").and_then(Value::as_object_mut) {
        for id in ["uid", "gid"] {
            user.entry(id).or_insert_with(|| json!(0));
        }
    }
    let flags = members.get_mut("scheduler").and_then(|scheduler| scheduler.get_mut("flags"));
    for flag in flags.and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some((_, own)) = FLAGS.iter().find(|(name, _)| flag == *name) {
            *flag = json!(own);
        }
    }
    let sets = members.entry("capabilities").or_insert_with(|| json!({}));
    let Some(sets) = sets.as_object_mut() else { return Vec::new() };
    known_capabilities(sets, path)
}

/// Removes capabilities that no kernel has, with a warning (config.md, "Linux Process").
fn known_capabilities(sets: &mut Map<String, Value>, path: &str) -> Vec<String> {
    let mut warnings = Vec::new();
    for kind in ["bounding", "effective", "inheritable", "permitted", "ambient"] {
        let list = sets.entry(kind).or_insert_with(|| json!([]));
        let Some(list) = list.as_array_mut() else { continue };
        list.retain(|name| {
            let is_known = serde_json::from_value::<Capability>(name.clone()).is_ok();
            if !is_known {
                warnings.push(format!(
                    "ignore {name} in {path}/capabilities/{kind}: there is no such capability"
                ));
            }
            is_known
        });
    }
    warnings
}

/// Makes the paths of the host and the destinations of mounts absolute.
fn resolve(json: &mut Value, bundle: &Path, warnings: &mut Vec<String>) -> Result<()> {
    if let Some(path) = json.pointer_mut("/root/path") {
        let root = bundle.join(path.as_str().unwrap_or_default());
        let found =
            fs::canonicalize(&root).map_err(Error::on("find", format_args!("root file system {root:?}")))?;
        if !found.is_dir() {
            return Err(Error::new("find", format_args!("root file system {root:?}"), "it is no directory"));
        }
        *path = text(&found)?;
    }
    let mounts = json.get_mut("mounts").and_then(Value::as_array_mut).into_iter().flatten();
    for (index, mount) in mounts.enumerate() {
        if let Some(destination) = mount.get_mut("destination") {
            let path = PathBuf::from(destination.as_str().unwrap_or_default());
            if !path.is_absolute() {
                warnings.push(format!(
                    "read /mounts/{index}/destination: {path:?} is below \"/\": it is not absolute"
                ));
            }
            *destination = text(&Path::new("/").join(path))?;
        }
        let options = mount.get("options").and_then(Value::as_array).into_iter().flatten();
        let is_bind = mount.get("type").is_some_and(|kind| kind == "bind")
            || options.into_iter().any(|option| option == "bind" || option == "rbind");
        if let Some(source) = mount.get_mut("source").filter(|_| is_bind) {
            *source = text(&bundle.join(source.as_str().unwrap_or_default()))?;
        }
    }
    Ok(())
}

fn text(path: &Path) -> Result<Value> {
    path.to_str()
        .map(|path| json!(path))
        .ok_or_else(|| Error::new("read", format_args!("{path:?}"), "it is no UTF-8"))
}

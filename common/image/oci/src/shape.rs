//! The forms of descriptors, manifests, indexes and configurations in JSON, as Go's decoder reads them.
//!
//! Most images are written and read by programs in Go. Its decoder takes null for the zero value of a type:
//! an empty string, list or object. So null is normal in images, and every other program reads such images.
//! Only a value of another type is an error. The content of a blob is never changed.

use std::fmt;

use oci_spec::image::{Descriptor, ImageConfiguration, MediaType};
use serde::{Deserialize, de::Error as _};
use serde_json::{Map, Value, json};

use crate::{media_type::Kind, platform::Platform};

/// What a value must be.
enum Shape {
    Text,
    Flag,
    /// The size of a blob in bytes.
    Size,
    List(&'static Shape),
    /// A list of strings, or one of them alone, as Docker before 1.3 wrote it.
    Words,
    /// An object with any members, whose values are all alike.
    Map(&'static Shape),
    /// An object with these members. Others are kept as they are.
    Members(&'static [(&'static str, Shape)]),
}

use Shape::{Flag, List, Members, Size, Text, Words};

const TEXTS: Shape = List(&Text);
/// Go's `map[string]struct{}`: a set.
const SET: Shape = Shape::Map(&Members(&[]));
const ANNOTATIONS: Shape = Shape::Map(&Text);

const PLATFORM: Shape = Members(&[
    ("architecture", Text),
    ("os", Text),
    ("os.version", Text),
    ("os.features", TEXTS),
    ("variant", Text),
    ("features", TEXTS),
]);

/// OCI image-spec, descriptor.md, "Properties", and image-index.md, "platform".
const DESCRIPTOR: Shape = Members(&[
    ("mediaType", Text),
    ("digest", Text),
    ("size", Size),
    ("urls", TEXTS),
    ("annotations", ANNOTATIONS),
    ("data", Text),
    ("artifactType", Text),
    ("platform", PLATFORM),
]);

/// OCI image-spec, manifest.md, "Image Manifest Property Descriptions".
const MANIFEST: Shape = Members(&[
    ("artifactType", Text),
    ("config", DESCRIPTOR),
    ("layers", List(&DESCRIPTOR)),
    ("subject", DESCRIPTOR),
    ("annotations", ANNOTATIONS),
]);

/// OCI image-spec, image-index.md, "Image Index Property Descriptions", without the entries.
const INDEX: Shape =
    Members(&[("artifactType", Text), ("subject", DESCRIPTOR), ("annotations", ANNOTATIONS)]);

/// OCI image-spec, config.md, "Properties", with Docker's additions.
const CONFIGURATION: Shape = Members(&[
    ("created", Text),
    ("author", Text),
    ("architecture", Text),
    ("os", Text),
    ("os.version", Text),
    ("os.features", TEXTS),
    ("variant", Text),
    (
        "config",
        Members(&[
            ("User", Text),
            ("ExposedPorts", SET),
            ("Env", TEXTS),
            ("Entrypoint", Words),
            ("Cmd", Words),
            ("Volumes", SET),
            ("WorkingDir", Text),
            ("Labels", ANNOTATIONS),
            ("StopSignal", Text),
            ("OnBuild", TEXTS),
            ("Shell", TEXTS),
            ("Healthcheck", Members(&[("Test", TEXTS)])),
        ]),
    ),
    ("rootfs", Members(&[("type", Text), ("diff_ids", TEXTS)])),
    (
        "history",
        List(&Members(&[
            ("created", Text),
            ("author", Text),
            ("created_by", Text),
            ("comment", Text),
            ("empty_layer", Flag),
        ])),
    ),
]);

/// A value of the wrong type.
struct Wrong {
    /// The way to the value, such as `.config.Env[0]`; empty for the whole document.
    path: String,
    found: String,
    wanted: &'static str,
}

impl Wrong {
    /// The same problem, seen from the object or list that has the value at `part`.
    fn below(self, part: impl fmt::Display) -> Self {
        Self { path: format!("{part}{}", self.path), ..self }
    }

    fn into_error(self) -> serde_json::Error {
        let Self { path, found, wanted } = self;
        let path = if path.is_empty() { "it" } else { path.trim_start_matches('.') };
        serde_json::Error::custom(format_args!("{path} is {found}, not {wanted}"))
    }
}

impl Shape {
    /// What Go makes of null.
    fn zero(&self) -> Value {
        match self {
            Text => Value::from(""),
            Flag => Value::from(false),
            Size => Value::from(0),
            List(_) | Words => Value::Array(Vec::new()),
            Shape::Map(_) | Members(_) => Value::Object(Map::new()),
        }
    }

    fn word(&self) -> &'static str {
        match self {
            Text => "a string",
            Flag => "a boolean",
            Size => "a number of bytes",
            List(_) | Words => "a list",
            Shape::Map(_) | Members(_) => "an object",
        }
    }

    /// Checks a value's type, and replaces null in it. A member that is null is removed.
    fn normalise(&self, value: &mut Value) -> Result<(), Wrong> {
        match (self, &mut *value) {
            (_, Value::Null) => *value = self.zero(),
            (Text, Value::String(_)) | (Flag, Value::Bool(_)) => {}
            (Size, Value::Number(number)) if number.is_u64() => {}
            (Words, Value::String(word)) => *value = json!([word]),
            (Words, Value::Array(_)) => TEXTS.normalise(value)?,
            (List(shape), Value::Array(list)) => {
                for (at, element) in list.iter_mut().enumerate() {
                    shape.normalise(element).map_err(|wrong| wrong.below(format_args!("[{at}]")))?;
                }
            }
            (Shape::Map(shape), Value::Object(members)) => {
                for (name, member) in members {
                    shape.normalise(member).map_err(|wrong| wrong.below(format_args!("[{name:?}]")))?;
                }
            }
            (Members(known), Value::Object(members)) => {
                spell(members, known.iter().map(|(name, _)| *name))?;
                for (name, shape) in *known {
                    match members.get_mut(*name) {
                        None => {}
                        Some(Value::Null) => drop(members.remove(*name)),
                        Some(member) => {
                            shape.normalise(member).map_err(|wrong| wrong.below(format_args!(".{name}")))?;
                        }
                    }
                }
            }
            (_, found) => {
                return Err(Wrong { path: String::new(), found: words_for(found), wanted: self.word() });
            }
        }
        Ok(())
    }
}

/// Gives the members the letters of `known`. Go's decoder takes upper and lower case for the same, and of two
/// spellings the last one. That is ambiguous, and an error here.
fn spell<'a>(
    members: &mut Map<String, Value>,
    known: impl IntoIterator<Item = &'a str>,
) -> Result<(), Wrong> {
    for name in known {
        let is_it = |member: &&String| name.eq_ignore_ascii_case(member);
        let other = match members.keys().filter(is_it).collect::<Vec<_>>()[..] {
            [] => continue,
            [only] if only == name => continue,
            [only] => only.clone(),
            _ => {
                let found = "there twice, in other letters".to_owned();
                return Err(Wrong { path: format!(".{name}"), found, wanted: "once" });
            }
        };
        if let Some(value) = members.shift_remove(&other) {
            members.insert(name.to_owned(), value);
        }
    }
    Ok(())
}

/// Gives the members that tell a manifest from an index their usual letters.
///
/// # Errors
/// When one of them is there in two spellings.
pub(crate) fn kind(value: &mut Value) -> Result<(), serde_json::Error> {
    let Value::Object(members) = value else { return Ok(()) };
    let telling = ["schemaVersion", "mediaType", "config", "layers", "manifests"];
    spell(members, telling).map_err(Wrong::into_error)
}

fn words_for(value: &Value) -> String {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(_) => "a string".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

/// Normalises a manifest or an index. Of an index, only the entries that are descriptors remain: one bad entry
/// does not spoil the images of the others.
///
/// # Errors
/// When a value has the wrong type, or an index has entries and none is a descriptor.
pub(crate) fn document(value: &mut Value, kind: Kind) -> Result<(), serde_json::Error> {
    match kind {
        Kind::Manifest => {
            MANIFEST.normalise(value).map_err(Wrong::into_error)?;
            // As in Go, where no list is an empty list. Without a configuration it is no manifest of an image.
            if let Value::Object(members) = value
                && members.contains_key("config")
            {
                members.entry("layers").or_insert_with(|| json!([]));
            }
            let typed = |part: &mut Value| {
                if let Value::Object(members) = part {
                    members.entry("mediaType").or_insert_with(|| "".into());
                }
            };
            ["config", "subject"]
                .into_iter()
                .for_each(|name| value.get_mut(name).into_iter().for_each(typed));
            value.get_mut("layers").and_then(Value::as_array_mut).into_iter().flatten().for_each(typed);
            Ok(())
        }
        Kind::Index => {
            INDEX.normalise(value).map_err(Wrong::into_error)?;
            let Some(Value::Array(entries)) = value.get_mut("manifests") else { return Ok(()) };
            let (mut kept, mut problem) = (Vec::new(), None);
            for (at, entry) in std::mem::take(entries).into_iter().enumerate() {
                match descriptor(&entry).and_then(|descriptor| {
                    crate::Digest::try_from(descriptor.digest()).map_err(serde_json::Error::custom)?;
                    serde_json::to_value(descriptor)
                }) {
                    Ok(entry) => kept.push(entry),
                    Err(error) => {
                        let say = || serde_json::Error::custom(format_args!("manifests[{at}]: {error}"));
                        problem.get_or_insert_with(say);
                    }
                }
            }
            match problem {
                Some(problem) if kept.is_empty() => Err(problem),
                _ => {
                    *entries = kept;
                    Ok(())
                }
            }
        }
        _ => Ok(()),
    }
}

/// An entry of an index as a descriptor. A platform without members is none.
///
/// # Errors
/// When the entry is no descriptor.
pub(crate) fn descriptor(entry: &Value) -> Result<Descriptor, serde_json::Error> {
    let mut entry = entry.clone();
    DESCRIPTOR.normalise(&mut entry).map_err(Wrong::into_error)?;
    // Most lists are of manifests, and some writers do not say so.
    if let Value::Object(members) = &mut entry
        && members.get("mediaType").is_none_or(|kind| kind == "")
    {
        members.insert("mediaType".to_owned(), json!(MediaType::ImageManifest));
    }
    if let Some(Value::Object(platform)) = entry.get_mut("platform") {
        if platform.is_empty() {
            entry["platform"].take();
        } else {
            for name in ["architecture", "os"] {
                platform.entry(name).or_insert_with(|| "".into());
            }
        }
    }
    Descriptor::deserialize(entry)
}

/// Normalises an image configuration. As for Docker, the platform is this machine's if the configuration does
/// not say, and the kind of root file system is `layers`, the only one.
///
/// # Errors
/// When a value has the wrong type, or there is no `rootfs`, as in the configuration of an artifact.
pub(crate) fn configuration(value: &mut Value) -> Result<ImageConfiguration, serde_json::Error> {
    CONFIGURATION.normalise(value).map_err(Wrong::into_error)?;
    let Some(Value::Object(rootfs)) = value.get_mut("rootfs") else {
        return Err(serde_json::Error::custom("it has no rootfs"));
    };
    let is_missing = |member: Option<&Value>| member.is_none_or(|member| member == "");
    if is_missing(rootfs.get("type")) {
        rootfs.insert("type".to_owned(), "layers".into());
    }
    rootfs.entry("diff_ids").or_insert_with(|| json!([]));
    let host = Platform::host();
    for (name, own) in [("architecture", host.architecture), ("os", host.os)] {
        if is_missing(value.get(name)) {
            value[name] = own.into();
        }
    }
    ImageConfiguration::deserialize(&*value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_is_the_zero_value() {
        let mut value = json!({
            "architecture": null, "created": null, "x": null,
            "config": {"Volumes": {"/x": null}, "ExposedPorts": {"80/tcp": null}, "Labels": {"a": null},
                "Env": [null, "A=b"], "Cmd": [null], "User": null, "Healthcheck": null},
            "history": [null, {"empty_layer": null}], "rootfs": {"type": null, "diff_ids": null},
        });
        let read = configuration(&mut value).unwrap();
        let host = Platform::host();
        assert_eq!(
            value,
            json!({
                "architecture": host.architecture, "os": host.os, "x": null,
                "config": {"Volumes": {"/x": {}}, "ExposedPorts": {"80/tcp": {}}, "Labels": {"a": ""},
                    "Env": ["", "A=b"], "Cmd": [""]},
                "history": [{}, {}], "rootfs": {"type": "layers", "diff_ids": []},
            })
        );
        assert_eq!(Platform::from(&read), host);
    }

    #[test]
    fn letters_do_not_matter_unless_there_are_two_spellings() {
        let mut value = json!({"OS": "linux", "Architecture": "arm64", "Config": {"cmd": ["sh"], "ENV": ["A=b"]},
            "RootFS": {"Type": "layers", "Diff_IDs": []}});
        let read = configuration(&mut value).unwrap();
        let config = read.config().as_ref().unwrap();
        assert_eq!(config.cmd().as_deref(), Some(&["sh".to_owned()][..]));
        assert_eq!(config.env().as_deref(), Some(&["A=b".to_owned()][..]));
        assert_eq!(read.architecture().to_string(), "arm64");
        let twice = "config.Cmd is there twice, in other letters, not once";
        for config in [json!({"Cmd": [], "cmd": []}), json!({"CMD": [], "cmd": []})] {
            let mut value = json!({"config": config, "rootfs": {}});
            assert_eq!(configuration(&mut value).unwrap_err().to_string(), twice);
        }
    }

    #[test]
    fn wrong_types_are_told_in_words_of_json() {
        let rootfs = json!({"type": "layers", "diff_ids": []});
        for (mut value, wrong) in [
            (json!([]), "it is a list, not an object"),
            (json!({}), "it has no rootfs"),
            (json!({"os": 1, "rootfs": rootfs}), "os is 1, not a string"),
            (json!({"config": {"Env": ["A=b", 1]}}), "config.Env[1] is 1, not a string"),
            (json!({"config": {"Labels": {"a": {}}}}), "config.Labels[\"a\"] is an object, not a string"),
            (json!({"config": {"Volumes": {"/x": true}}}), "config.Volumes[\"/x\"] is true, not an object"),
            (json!({"history": ["x"]}), "history[0] is a string, not an object"),
        ] {
            assert_eq!(configuration(&mut value).unwrap_err().to_string(), wrong);
        }
    }

    #[test]
    fn good_entries_of_an_index_remain() {
        let digest = format!("sha256:{}", "0".repeat(64));
        let good = json!({"mediaType": "m", "digest": digest, "size": 1});
        let with = |name: &str, member: Value| {
            let mut entry = good.clone();
            entry[name] = member;
            entry
        };
        let kept = |entries: &[Value]| {
            let mut index = json!({"manifests": entries});
            document(&mut index, Kind::Index).map(|()| index["manifests"].clone()).map_err(|e| e.to_string())
        };
        for (entry, normal) in [
            (with("platform", json!({})), good.clone()),
            (
                with("platform", json!({"os": "linux"})),
                with("platform", json!({"os": "linux", "architecture": ""})),
            ),
            (with("annotations", json!({"a": null})), with("annotations", json!({"a": ""}))),
            (with("annotations", Value::Null), good.clone()),
        ] {
            assert_eq!(kept(&[entry]).unwrap(), json!([normal]));
        }
        // As if it was left out.
        let null = kept(&[with("mediaType", Value::Null)]).unwrap();
        assert_eq!(null[0]["mediaType"], "application/vnd.oci.image.manifest.v1+json");
        for (entry, wrong) in [
            (Value::Null, "manifests[0]: missing field `digest`"),
            (json!("x"), "manifests[0]: it is a string, not an object"),
            (with("size", json!("418")), "manifests[0]: size is a string, not a number of bytes"),
            (with("size", json!(-1)), "manifests[0]: size is -1, not a number of bytes"),
            (with("digest", json!("sha256:x")), "manifests[0]: Invalid digest length 1 expected 64"),
        ] {
            assert_eq!(kept(&[entry.clone(), good.clone()]).unwrap(), json!([good]));
            assert_eq!(kept(&[entry]).unwrap_err(), wrong);
        }
        assert_eq!(kept(&[]).unwrap(), json!([]));
    }
}

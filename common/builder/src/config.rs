//! The image configuration during a build: that of OCI (image-spec, config.md) with Docker's additions.
//! Unknown members are kept.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

/// `{}`: the value of each element of a set in Go's JSON.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

/// An image configuration.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Image {
    /// When the last layer was made (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// MAINTAINER.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// The processor architecture, `amd64` for example.
    #[serde(default)]
    pub architecture: String,
    /// The operating system, `linux`.
    #[serde(default)]
    pub os: String,
    /// The settings of a container.
    #[serde(default, deserialize_with = "or_default")]
    pub config: Config,
    /// The layers.
    #[serde(default, deserialize_with = "or_default")]
    pub rootfs: RootFs,
    /// One entry for each instruction.
    #[serde(default, deserialize_with = "or_default")]
    pub history: Vec<History>,
    /// Other members.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// The settings of a container.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Config {
    /// USER.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// EXPOSE.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub exposed_ports: BTreeMap<String, Empty>,
    /// ENV.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// ENTRYPOINT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// CMD.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    /// HEALTHCHECK.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Value>,
    /// VOLUME.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, Empty>,
    /// WORKDIR.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// ONBUILD.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub on_build: Vec<String>,
    /// LABEL.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// STOPSIGNAL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// SHELL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shell: Option<Vec<String>>,
    /// Other members.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// The layers, as DiffIDs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RootFs {
    /// `layers`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The DiffIDs, lowest layer first.
    #[serde(default, deserialize_with = "or_default")]
    pub diff_ids: Vec<String>,
}

impl Default for RootFs {
    fn default() -> Self {
        Self { kind: "layers".to_owned(), diff_ids: Vec::new() }
    }
}

/// The entry of one instruction in the history.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// When the instruction ran (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The instruction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// Whether the instruction made no layer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
    /// Other members.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// Reads `null`, which Go writes for empty values, as the default.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Docker's PATH for an image that sets none.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The members that tell how an image was made, and nothing of what is in it: Docker's old builder recorded its
/// version, its build container and the image below; BuildKit and Stave put the cache of the build into the image
/// (`type=inline`), and BuildKit once also its sources.
const OF_THE_MAKING: [&str; 8] = [
    "container",
    "container_config",
    "docker_version",
    "id",
    "parent",
    "moby.buildkit.cache.v0",
    "moby.buildkit.buildinfo.v1",
    crate::cache::MEMBER,
];

impl Image {
    /// Removes the members that tell how the image was made. They would be wrong for an image that is made of it.
    pub fn forget_making(&mut self) {
        OF_THE_MAKING.iter().for_each(|name| drop(self.other.remove(*name)));
    }

    /// The configuration of `scratch`.
    pub fn scratch(platform: Option<&oci::Platform>) -> Self {
        let platform = platform.cloned().unwrap_or_else(oci::Platform::host);
        let config = Config { working_dir: "/".to_owned(), ..Config::default() };
        let mut image =
            Self { architecture: platform.architecture, os: platform.os, config, ..Self::default() };
        image.config.ensure_path();
        image.other.extend(platform.variant.map(|variant| ("variant".to_owned(), variant.into())));
        image
    }

    /// Makes the history fit the layers: the entries without `empty_layer` are one for each layer (OCI image-spec,
    /// config.md, "history"). Some builders write fewer entries, or none. Then what is added would seem to have made
    /// a layer of the base. Missing entries are added, and entries too many lose their layer, the last ones first.
    pub fn fit_history(&mut self) {
        let layers = self.rootfs.diff_ids.len();
        let full = self.history.iter().filter(|entry| !entry.empty_layer).count();
        let comment = ("comment".to_owned(), "layer of the base image".into());
        let missing = History {
            created: self.created.clone(),
            other: [comment].into_iter().collect(),
            ..History::default()
        };
        self.history.extend(std::iter::repeat_n(missing, layers.saturating_sub(full)));
        let surplus = self.history.iter_mut().rev().filter(|entry| !entry.empty_layer);
        surplus.take(full.saturating_sub(layers)).for_each(|entry| entry.empty_layer = true);
    }

    /// Adds an entry to the history.
    pub fn add_history(&mut self, created: &str, created_by: String, empty_layer: bool) {
        self.created = Some(created.to_owned());
        self.history.push(History {
            created: Some(created.to_owned()),
            created_by: Some(created_by),
            empty_layer,
            other: Map::new(),
        });
    }
}

impl Config {
    /// The value of an environment variable.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.env
            .iter()
            .find_map(|pair| pair.split_once('=').filter(|(own, _)| *own == name))
            .map(|(_, value)| value)
    }

    /// Sets an environment variable. An existing variable keeps its position in the list.
    pub fn set_variable(&mut self, name: &str, value: &str) {
        let pair = format!("{name}={value}");
        match self.env.iter_mut().find(|own| own.split_once('=').is_some_and(|(own, _)| own == name)) {
            Some(place) => *place = pair,
            None => self.env.push(pair),
        }
    }

    /// Sets PATH if it is not set, so that `ENV PATH=/x:$PATH` works.
    pub fn ensure_path(&mut self) {
        if self.variable("PATH").is_none() {
            self.env.push(format!("PATH={DEFAULT_PATH}"));
        }
    }

    /// The shell for commands in shell form.
    pub fn shell(&self) -> Vec<String> {
        match &self.shell {
            Some(shell) if !shell.is_empty() => shell.clone(),
            _ => vec!["/bin/sh".to_owned(), "-c".to_owned()],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_stays_and_null_is_empty() {
        let text = r#"{"architecture":"amd64","os":"linux","variant":"v2","config":{"User":"a","Env":null,"Cmd":["x"],"Labels":null,
            "ArgsEscaped":true,"Shell":["/bin/bash","-c"],"Healthcheck":{"Test":["NONE"]}},"rootfs":{"type":"layers","diff_ids":null},
            "history":null,"container":"z"}"#;
        let image: Image = serde_json::from_str(text).unwrap();
        let written = serde_json::to_value(&image).unwrap();
        assert_eq!(written["variant"], "v2");
        assert_eq!(written["container"], "z");
        assert_eq!(written["config"]["ArgsEscaped"], true);
        assert_eq!(written["config"]["Healthcheck"]["Test"][0], "NONE");
        assert_eq!(image.config.shell(), ["/bin/bash", "-c"]);
        serde_json::from_value::<oci::spec::ImageConfiguration>(written).unwrap();
    }

    #[test]
    fn what_tells_of_the_making_goes() {
        let text = r#"{"architecture":"amd64","os":"linux","os.version":"1","container":"z","docker_version":"1","id":"a","parent":"b",
            "container_config":{},"moby.buildkit.cache.v0":"e30=","moby.buildkit.buildinfo.v1":"e30=","stave.cache":[],"x":1}"#;
        let mut image: Image = serde_json::from_str(text).unwrap();
        image.forget_making();
        assert_eq!(image.other.keys().collect::<Vec<_>>(), ["os.version", "x"]);
    }

    #[test]
    fn a_history_has_an_entry_for_each_layer() {
        let fitted = |layers: usize, empty: &[bool]| {
            let entry = |empty_layer: &bool| History { empty_layer: *empty_layer, ..History::default() };
            let rootfs = RootFs { diff_ids: vec![String::new(); layers], ..RootFs::default() };
            let mut image = Image { rootfs, history: empty.iter().map(entry).collect(), ..Image::default() };
            image.fit_history();
            image.history.iter().map(|entry| entry.empty_layer).collect::<Vec<_>>()
        };
        assert_eq!(fitted(2, &[]), [false, false]);
        assert_eq!(fitted(2, &[false, true]), [false, true, false]);
        assert_eq!(fitted(1, &[false, true, false, false]), [false, true, true, true]);
        assert_eq!(fitted(1, &[true, false]), [true, false]);
        assert_eq!(fitted(0, &[]), [false; 0]);
    }

    #[test]
    fn variables_are_set_in_place() {
        let mut config = Config { env: vec!["A=1".into(), "B=2".into()], ..Config::default() };
        config.set_variable("A", "3");
        config.set_variable("C", "x=y");
        assert_eq!(config.env, ["A=3", "B=2", "C=x=y"]);
        assert_eq!((config.variable("C"), config.variable("D")), (Some("x=y"), None));
    }
}

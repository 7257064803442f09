//! What a container declares about itself, named as in Docker: labels, ports, the time to stop, and its health check.

use std::{collections::BTreeMap, path::PathBuf, str::FromStr};

use clap::Args;
use document::{
    Document,
    members::{Image, Ports},
};
use oci_spec::image::Config;
use serde_json::{Map, Value, json};
use toolkit::prelude::*;

#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Declared {
    #[arg(
        help = "Give the container a label besides the image's; without VALUE, an empty one; repeatable",
        long,
        value_name = "NAME[=VALUE]",
        conflicts_with = "join"
    )]
    label: Vec<Label>,
    /// Give the container the labels of a file with one NAME=VALUE or NAME per line; --label overrides it; repeatable
    #[arg(long, value_name = "FILE", conflicts_with = "join")]
    label_file: Vec<PathBuf>,
    #[arg(
        help = "Give the container an annotation of the OCI runtime specification, for other programs that read it; repeatable",
        long,
        value_name = "NAME[=VALUE]",
        value_parser = annotation,
        conflicts_with = "join"
    )]
    pub(crate) annotation: Vec<(String, String)>,
    #[arg(
        help = "Declare that the container listens on a port, as EXPOSE of an image does; repeatable",
        long,
        value_name = "PORT[-LAST][/tcp|/udp|/sctp]",
        conflicts_with = "join"
    )]
    expose: Vec<Exposed>,
    /// Seconds that container-stop waits for the end before SIGKILL; 10 by default, -1 for ever
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true, value_parser = clap::value_parser!(i64).range(-1..), conflicts_with = "join")]
    stop_timeout: Option<i64>,
}

impl Declared {
    /// Returns the settings of the container by their names in the configuration of images, where they are not the
    /// image's. `used`: those of the command, if they are not the image's. `check`: the health check; the outer none
    /// for a container that is not checked because it has no monitor.
    ///
    /// # Errors
    /// When a file of labels or the image's configuration cannot be read.
    pub(crate) fn settings(
        &self,
        document: &Document,
        (own, used): (Config, Config),
        check: Option<Option<&Value>>,
    ) -> Result<Option<Value>> {
        let image: Option<Image> = document.get()?;
        let whole = image.as_ref().map(|image| image.configuration.whole());
        let of_image = |name: &str| whole.map(|whole| whole["config"][name].clone()).unwrap_or_default();
        let mut changed: Map<String, Value> = Map::new();
        let labels = self.labels()?;
        if !labels.is_empty() {
            changed.insert("Labels".into(), with(of_image("Labels"), labels));
        }
        let ports = self.ports(document)?;
        if ports.keys().any(|port| of_image("ExposedPorts").get(port).is_none()) {
            changed.insert("ExposedPorts".into(), with(of_image("ExposedPorts"), ports));
        }
        if let Some(seconds) = self.stop_timeout {
            changed.insert("StopTimeout".into(), seconds.into());
        }
        if let Some(check) = check {
            let plain = life::health_of_image(whole, &life::CheckFlags::default());
            if plain.map_err(|problem| anyhow!("{problem}"))?.as_ref() != check {
                let none = || json!({"Test": ["NONE"]});
                changed.insert("Healthcheck".into(), check.cloned().unwrap_or_else(none));
            }
        }
        if changed.is_empty() && used == own {
            return Ok(None);
        }
        let mut settings = serde_json::to_value(used)?;
        settings.as_object_mut().into_iter().for_each(|settings| settings.append(&mut changed));
        Ok(Some(settings))
    }

    fn labels(&self) -> Result<BTreeMap<String, Value>> {
        let mut labels = BTreeMap::new();
        for path in &self.label_file {
            for line in life::environment::of_file(path, |_| Some(String::new()))? {
                let (name, value) = line.split_once('=').unwrap_or((&line, ""));
                labels.insert(name.to_owned(), value.into());
            }
        }
        labels.extend(self.label.iter().map(|label| (label.name.clone(), label.value.clone().into())));
        Ok(labels)
    }

    /// Returns the declared ports and the published ones, each as `80/tcp`.
    fn ports(&self, document: &Document) -> Result<BTreeMap<String, Value>> {
        let published = document.get::<Ports>()?.map(|ports| ports.0).unwrap_or_default();
        let published = published
            .iter()
            .flat_map(|port| port.container_ports().map(move |inside| format!("{inside}/{}", port.protocol)));
        let declared = self.expose.iter().flat_map(|exposed| exposed.ports.clone());
        Ok(published.chain(declared).map(|port| (port, json!({}))).collect())
    }
}

/// Returns an object with more members, sorted by name.
fn with(object: Value, more: BTreeMap<String, Value>) -> Value {
    let members = object.as_object().cloned().unwrap_or_default();
    Value::Object(members.into_iter().chain(more).collect::<BTreeMap<_, _>>().into_iter().collect())
}

/// A label.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Label {
    name: String,
    value: String,
}

impl FromStr for Label {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=').unwrap_or((text, "")) {
            ("", _) => Err("it is NAME or NAME=VALUE".to_owned()),
            (name, value) => Ok(Self { name: name.to_owned(), value: value.to_owned() }),
        }
    }
}

/// Parses an annotation.
fn annotation(text: &str) -> Result<(String, String), String> {
    let Label { name, value } = text.parse()?;
    match runtime::spec::is_reserved_annotation(&name) {
        true => Err(format!("{name} has a meaning of its own here")),
        false => Ok((name, value)),
    }
}

/// Ports that the container declares.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Exposed {
    /// Each as `80/tcp`.
    ports: Vec<String>,
}

impl FromStr for Exposed {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let protocol = protocol.to_lowercase();
        match (first.parse::<u16>(), last.parse::<u16>(), &*protocol) {
            (Ok(first), Ok(last), "tcp" | "udp" | "sctp") if first > 0 && first <= last => {
                Ok(Self { ports: (first..=last).map(|port| format!("{port}/{protocol}")).collect() })
            }
            _ => Err("it is PORT or FIRST-LAST, with /tcp, /udp or /sctp".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_as_docker_exposes_them() {
        let ports = |text: &str| text.parse::<Exposed>().map(|exposed| exposed.ports.join(" "));
        assert_eq!(ports("80").as_deref(), Ok("80/tcp"));
        assert_eq!(ports("80-81/UDP").as_deref(), Ok("80/udp 81/udp"));
        for text in ["", "0", "81-80", "80/icmp", "8080:80", "65536", "80-"] {
            assert!(ports(text).is_err(), "{text}");
        }
    }

    #[test]
    fn only_what_is_not_the_images_is_kept() {
        let image = json!({"descriptor": {"mediaType": "application/vnd.oci.image.manifest.v1+json", "size": 1,
            "digest": "sha256:0000000000000000000000000000000000000000000000000000000000000000"},
            "configuration": {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []},
            "config": {"Labels": {"a": "1"}, "ExposedPorts": {"80/tcp": {}}, "Healthcheck": {"Test": ["CMD", "x"]}}}});
        let document = Document::parse(json!({"stave": 1, "image": image}).to_string().as_bytes()).unwrap();
        let own = json!({"Test": ["CMD", "x"]});
        let settings = |declared: &Declared, check| {
            let plain = || (Config::default(), Config::default());
            declared.settings(&document, plain(), check).unwrap()
        };
        let label = |text: &str| Declared { label: vec![text.parse().unwrap()], ..Declared::default() };
        assert_eq!(settings(&Declared::default(), Some(Some(&own))), None);
        assert_eq!(settings(&Declared::default(), None), None, "without a monitor");
        assert_eq!(settings(&Declared::default(), Some(None)).unwrap()["Healthcheck"]["Test"][0], "NONE");
        assert_eq!(settings(&label("b"), None).unwrap()["Labels"], json!({"a": "1", "b": ""}));
        assert_eq!(settings(&label("a=2=3"), None).unwrap()["Labels"], json!({"a": "2=3"}));
        let exposed = |text: &str| Declared { expose: vec![text.parse().unwrap()], ..Declared::default() };
        assert_eq!(settings(&exposed("80"), None), None);
        assert_eq!(
            settings(&exposed("81"), None).unwrap()["ExposedPorts"],
            json!({"80/tcp": {}, "81/tcp": {}})
        );
    }
}

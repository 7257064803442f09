//! An image configuration in the document, with members that OCI does not define.

use std::ops::Deref;

use oci_spec::image::ImageConfiguration;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// An OCI image configuration. It also keeps members that OCI does not define, as they came: Docker's
/// `Healthcheck`, `OnBuild` and `Shell`, and those of other tools.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub struct Configuration {
    known: ImageConfiguration,
    whole: Value,
}

impl Configuration {
    /// The whole configuration as JSON, with all members.
    pub fn whole(&self) -> &Value {
        &self.whole
    }
}

impl Deref for Configuration {
    type Target = ImageConfiguration;

    fn deref(&self) -> &ImageConfiguration {
        &self.known
    }
}

impl TryFrom<Value> for Configuration {
    type Error = serde_json::Error;

    fn try_from(whole: Value) -> Result<Self, Self::Error> {
        Ok(Self { known: ImageConfiguration::deserialize(&whole)?, whole })
    }
}

impl From<Configuration> for Value {
    fn from(configuration: Configuration) -> Self {
        configuration.whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_oci_does_not_name_passes_through() {
        let text = r#"{"os":"linux","architecture":"amd64","config":{"Healthcheck":{"Test":["NONE"],"Interval":1},"OnBuild":["RUN x"],"Cmd":["a"]},"moby.buildkit.cache.v0":"x","rootfs":{"type":"layers","diff_ids":[]}}"#;
        let configuration: Configuration = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&configuration).unwrap(), text);
        let command = configuration.config().as_ref().and_then(|config| config.cmd().clone());
        assert_eq!(command.unwrap(), ["a"]);
        assert!(serde_json::from_str::<Configuration>(r#"{"os":1}"#).is_err());
    }
}

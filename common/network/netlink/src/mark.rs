//! The marks that tell our objects in the kernel from those of other programs.

use serde::{Deserialize, Serialize};

/// The origin of an address or a route that we added (`IFA_PROTO`, `rtm_protocol`): "S".
pub const PROTOCOL: u8 = 0x53;

const PREFIX: &str = "stave";

/// The container that a link was made for: its id and instance. The link's alias holds the mark.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Mark(String);

impl Mark {
    /// The mark of the container `id`. `instance` tells it from a later container with the same id.
    pub fn new(id: &str, instance: Option<&str>) -> Self {
        Self([Some(id), instance].into_iter().flatten().collect::<Vec<_>>().join(" "))
    }

    /// The alias of the container's links, and the comment of its tables. It is always recognisable
    /// as ours, whatever the mark's text.
    pub fn alias(&self) -> String {
        format!("{PREFIX} {}", self.0)
    }

    /// The container's id.
    pub(crate) fn id(&self) -> &str {
        self.0.split(' ').next().unwrap_or_default()
    }
}

/// The alias of a link that all containers share, such as a bridge.
pub(crate) fn shared() -> &'static str {
    PREFIX
}

/// Whether an alias is one of ours.
pub(crate) fn is_ours(alias: &str) -> bool {
    alias.strip_prefix(PREFIX).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
}

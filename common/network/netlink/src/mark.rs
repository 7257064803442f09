//! What tells our own things in the kernel from others'.

use serde::{Deserialize, Serialize};

/// Who put an address or a route there (`IFA_PROTO`, `rtm_protocol`): "S".
pub const PROTOCOL: u8 = 0x53;

const PREFIX: &str = "stave";

/// The container that a link was made for: its id and instance. It stands in the link's alias.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Mark(String);

impl Mark {
    /// The mark of the container `id`; `instance` tells it from one that has its id later.
    pub fn new(id: &str, instance: Option<&str>) -> Self {
        Self([Some(id), instance].into_iter().flatten().collect::<Vec<_>>().join(" "))
    }

    /// The alias of its links, and the comment of its tables. Whatever the mark says, the alias is one of ours.
    pub fn alias(&self) -> String {
        format!("{PREFIX} {}", self.0)
    }

    /// The container's id.
    pub(crate) fn id(&self) -> &str {
        self.0.split(' ').next().unwrap_or_default()
    }
}

/// The alias of what all containers share: a bridge.
pub(crate) fn shared() -> &'static str {
    PREFIX
}

/// Whether an alias is one of ours.
pub(crate) fn is_ours(alias: &str) -> bool {
    alias.strip_prefix(PREFIX).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
}

//! The gateway mode of a bridge.

use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the containers on a bridge are reached from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum GatewayMode {
    /// By published ports on the host's addresses. The containers' traffic gets the host's address
    /// (masquerading).
    Nat,
    /// By the containers' own addresses, which others need a route to. The containers' traffic keeps its
    /// address.
    Routed,
}

impl GatewayMode {
    /// The names of the modes, as [`FromStr`] reads them.
    pub const NAMES: [&str; 2] = ["nat", "routed"];
}

impl FromStr for GatewayMode {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "nat" => Ok(Self::Nat),
            "routed" => Ok(Self::Routed),
            _ => Err(format!("{name:?} is no gateway mode")),
        }
    }
}

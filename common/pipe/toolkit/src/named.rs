//! The arguments of a tool whose arguments name containers.

use document::Id;

use crate::Common;

/// The help of `--format`, for a tool that tells exit statuses as well.
pub const FORMAT_WITH_STATUS: &str =
    "Print TEXT for each container, one a line, with {id}, {name} and {exitStatus} replaced";

/// The arguments of a tool that works on containers one by one ([`crate::Each`]), flattened into the tool's own.
#[derive(Debug, Clone, clap::Args)]
pub struct Named {
    /// The containers, by their ids or names
    #[arg(value_name = "ID", required = true)]
    pub ids: Vec<Id>,
    /// Print TEXT for each container, one a line, with {id} and {name} replaced
    #[arg(long, value_name = "TEXT")]
    pub format: Option<String>,
    /// The arguments that every tool takes.
    #[command(flatten)]
    pub common: Common,
}

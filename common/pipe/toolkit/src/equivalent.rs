//! Explanations for tools that have no list of operations.

/// The last lines of `--help` for a tool whose `--explain` prints [`equivalent`] commands.
pub const EQUIVALENT_HELP: &str =
    "--explain prints commands of other programs to the same effect: this tool runs none of them.";

/// Puts a heading before commands of other programs that have the same effect as the tool. For a tool without
/// operations, or one that finds out only on the way what to do. Nothing for nothing.
pub fn equivalent(lines: impl IntoIterator<Item = String>) -> Vec<String> {
    let first = "# commands of other programs to the same effect:".to_owned();
    let mut lines = lines.into_iter().peekable();
    let first = lines.peek().is_some().then_some(first);
    first.into_iter().chain(lines).collect()
}

//! Explanations that are not the list of what a tool does.

/// For the help of a tool whose `--explain` prints [`equivalent`] commands.
pub const EQUIVALENT_HELP: &str =
    "--explain prints commands of other programs to the same effect: this tool runs none of them.";

/// The explanation of a tool that does its job in steps for which there are no commands, or that learns on the way what is
/// to be done: commands of other programs to the same effect, and that they are this.
pub fn equivalent(lines: impl IntoIterator<Item = String>) -> Vec<String> {
    let first = "# commands of other programs to the same effect:".to_owned();
    std::iter::once(first).chain(lines).collect()
}

//! Switches with a value: `--no-cache=false`, `-q=true`. Scripts write them so for Docker, because every boolean flag of
//! a Go program takes a value.

use std::ffi::{OsStr, OsString};

use clap::{ArgAction, Command};
use operation::quantity::truth;

/// Replaces switches with a value by switches without one. Of several for one switch, the last one counts. What is no
/// truth value stays, and is reported as any wrong argument.
///
/// A command line that ends with another program's arguments is left as it is: they are not this tool's.
pub(crate) fn settled(command: &Command, arguments: Vec<OsString>) -> Vec<OsString> {
    if command.get_positionals().any(|positional| positional.is_trailing_var_arg_set()) {
        return arguments;
    }
    let own = arguments.iter().position(|word| word == "--").unwrap_or(arguments.len());
    let said: Vec<Option<(&str, Option<bool>)>> =
        arguments[..own].iter().map(|word| switch(command, word)).collect();
    let last = |name: &str| said.iter().rposition(|said| said.is_some_and(|(own, _)| own == name));
    let has_value = |name: &str| said.iter().flatten().any(|(own, value)| *own == name && value.is_some());
    let settle = |(at, word): (usize, &OsString)| match said.get(at).copied().flatten() {
        Some((name, value)) if has_value(name) => {
            let is_on = last(name) == Some(at) && value.unwrap_or(true);
            is_on.then(|| format!("--{name}").into())
        }
        _ => Some(word.clone()),
    };
    arguments.iter().enumerate().filter_map(settle).collect()
}

/// The long name of the switch that a word is, and its value if it has one.
fn switch<'a>(command: &'a Command, word: &OsStr) -> Option<(&'a str, Option<bool>)> {
    let word = word.to_str()?;
    let (name, value) = match word.split_once('=') {
        Some((name, value)) => (name, Some(truth(value)?)),
        None => (word, None),
    };
    let mut short = name.strip_prefix('-')?.chars();
    let mut switches =
        command.get_arguments().filter(|argument| matches!(argument.get_action(), ArgAction::SetTrue));
    let found = switches.find(|argument| match (name.strip_prefix("--"), short.clone().next()) {
        (Some(long), _) => argument.get_long() == Some(long),
        (None, short) => short.is_some() && argument.get_short() == short,
    })?;
    // `-qv` are two switches.
    let is_one = name.starts_with("--") || (short.next().is_some() && short.next().is_none());
    Some((found.get_long().filter(|_| is_one)?, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(clap::Parser)]
    #[command(name = "x")]
    #[allow(dead_code)]
    struct Tool {
        #[arg(short, long)]
        quiet: bool,
        #[arg(long)]
        no_cache: bool,
        #[arg(short, long)]
        tag: Vec<String>,
        rest: Vec<String>,
    }

    #[derive(clap::Parser)]
    #[allow(dead_code)]
    struct Runner {
        #[arg(long)]
        no_cache: bool,
        #[arg(trailing_var_arg = true)]
        command: Vec<String>,
    }

    fn settle<T: clap::Parser>(line: &str) -> String {
        let words = line.split(' ').map(OsString::from).collect();
        settled(&T::command(), words).join(OsStr::new(" ")).into_string().unwrap()
    }

    #[test]
    fn the_last_value_of_a_switch_counts() {
        for (line, expected) in [
            ("x --no-cache=true a", "x --no-cache a"),
            ("x --no-cache=0 a", "x a"),
            ("x -q=T --no-cache=False", "x --quiet"),
            ("x --no-cache --no-cache=false", "x"),
            ("x --no-cache=false --no-cache", "x --no-cache"),
            ("x --no-cache=1 --no-cache=t -t=1 --tag=true", "x --no-cache -t=1 --tag=true"),
            // These are left to clap.
            ("x --no-cache=maybe --none=true --no-cache=", "x --no-cache=maybe --none=true --no-cache="),
            ("x -q -q -qt a - =true", "x -q -q -qt a - =true"),
            ("x -- --no-cache=false", "x -- --no-cache=false"),
        ] {
            assert_eq!(settle::<Tool>(line), expected, "{line}");
        }
        assert_eq!(settle::<Runner>("x sh --no-cache=false"), "x sh --no-cache=false");
    }
}

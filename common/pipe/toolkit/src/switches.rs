//! Switches with a value: `--no-cache=false`, `-q=true`. Scripts write them so for Docker, because every boolean flag of
//! a Go program takes a value.

use std::ffi::{OsStr, OsString};

use clap::{ArgAction, Command};
use operation::quantity::truth;

/// A command line whose switches have no values.
#[derive(Debug)]
pub(crate) struct Settled {
    /// Its words.
    pub(crate) words: Vec<OsString>,
    /// The long names of the switches that it has switched off.
    pub(crate) off: Vec<String>,
}

/// Replaces switches with a value by switches without one. Of several for one switch, the last one counts. What is no
/// truth value stays, and is reported as any wrong argument.
///
/// Of a command line that ends with another program's arguments, these are left as they are.
pub(crate) fn settled(command: &Command, arguments: &[OsString]) -> Settled {
    let own = own(command, arguments);
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
    let is_off = |(at, said): (usize, &Option<(&str, Option<bool>)>)| {
        said.filter(|(name, value)| *value == Some(false) && last(name) == Some(at))
            .map(|(name, _)| name.to_owned())
    };
    let off = said.iter().enumerate().filter_map(is_off).collect();
    Settled { words: arguments.iter().enumerate().filter_map(settle).collect(), off }
}

/// How many of the words are the tool's own, and not another program's.
fn own(command: &Command, arguments: &[OsString]) -> usize {
    let end = arguments.iter().position(|word| word == "--").unwrap_or(arguments.len());
    if !command.get_positionals().any(|positional| positional.is_trailing_var_arg_set()) {
        return end;
    }
    let mut at = 1;
    while at < end {
        match arguments[at].to_str() {
            Some(word) if word.len() > 1 && word.starts_with('-') => {
                at += if asks(command, word) { 2 } else { 1 }
            }
            _ => return at,
        }
    }
    at.min(arguments.len())
}

/// Whether the value of a flag is the next word.
fn asks(command: &Command, word: &str) -> bool {
    let takes = |argument: &clap::Arg| {
        matches!(argument.get_action(), ArgAction::Set | ArgAction::Append)
            && !argument.is_require_equals_set()
    };
    if let Some(long) = word.strip_prefix("--") {
        let is_it = |argument: &&clap::Arg| {
            argument.get_long() == Some(long)
                || argument.get_all_aliases().is_some_and(|aliases| aliases.contains(&long))
        };
        return command.get_arguments().find(is_it).is_some_and(takes);
    }
    let mut letters = word.chars().skip(1);
    while let Some(letter) = letters.next() {
        let found = command.get_arguments().find(|argument| argument.get_short() == Some(letter));
        if found.is_some_and(takes) {
            return letters.next().is_none();
        }
    }
    false
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
        #[arg(short, long)]
        tag: Vec<String>,
        #[arg(trailing_var_arg = true)]
        command: Vec<String>,
    }

    fn settle<T: clap::Parser>(line: &str) -> String {
        let words = line.split(' ').map(OsString::from).collect();
        let words: Vec<OsString> = words;
        let Settled { words, off } = settled(&T::command(), &words);
        let words = words.join(OsStr::new(" ")).into_string().unwrap();
        if off.is_empty() { words } else { format!("{words} without {}", off.join(" ")) }
    }

    #[test]
    fn the_last_value_of_a_switch_counts() {
        for (line, expected) in [
            ("x --no-cache=true a", "x --no-cache a"),
            ("x --no-cache=0 a", "x a without no-cache"),
            ("x -q=T --no-cache=False", "x --quiet without no-cache"),
            ("x --no-cache --no-cache=false", "x without no-cache"),
            ("x --no-cache=false --no-cache", "x --no-cache"),
            ("x --no-cache=1 --no-cache=t -t=1 --tag=true", "x --no-cache -t=1 --tag=true"),
            // These are left to clap.
            ("x --no-cache=maybe --none=true --no-cache=", "x --no-cache=maybe --none=true --no-cache="),
            ("x -q -q -qt a - =true", "x -q -q -qt a - =true"),
            ("x -- --no-cache=false", "x -- --no-cache=false"),
        ] {
            assert_eq!(settle::<Tool>(line), expected, "{line}");
        }
        for (line, expected) in [
            ("x sh --no-cache=false", "x sh --no-cache=false"),
            ("x --no-cache=false sh --no-cache=false", "x sh --no-cache=false without no-cache"),
            ("x --no-cache=true -t a --no-cache=false -- sh", "x -t a -- sh without no-cache"),
            ("x -t a sh --no-cache=false", "x -t a sh --no-cache=false"),
            ("x -ta sh --no-cache=false", "x -ta sh --no-cache=false"),
            ("x --tag a sh --no-cache=false", "x --tag a sh --no-cache=false"),
            ("x --tag=a --no-cache=1 - --no-cache=false", "x --tag=a --no-cache - --no-cache=false"),
        ] {
            assert_eq!(settle::<Runner>(line), expected, "{line}");
        }
    }
}

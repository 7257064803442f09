//! Names of containers as whole arguments: here they become ids.
//!
//! Each argument of the type [`Id`] or [`At`] is about a container that there is, except `--id`, which names a new one. A tool
//! that finds a name inside another argument (`shop:/path`, `container:shop`) calls [`name::resolve`].

use std::{any::TypeId, ffi::OsString, path::PathBuf};

use clap::{Arg, ArgMatches, Command};
use document::{At, Id, InvalidId, name};
use operation::Scope;

use crate::arguments;

/// Parses the command line again with ids in place of names, if there are names. `matches` is how it was parsed.
pub(crate) fn with_ids(
    command: &mut Command,
    matches: ArgMatches,
    words: &[OsString],
) -> Result<ArgMatches, clap::Error> {
    let is_given =
        |argument: &&Arg| is_container(argument) && matches.contains_id(argument.get_id().as_str());
    let given: Vec<&Arg> = command.get_arguments().filter(is_given).collect();
    if given.is_empty() {
        return Ok(matches);
    }
    let directory = |flag: &str| matches.try_get_one::<PathBuf>(flag).ok().flatten().cloned();
    // The tool tells what is wrong with its directories.
    let Ok(scope) = arguments::scope(directory("root"), directory("run_dir")) else { return Ok(matches) };
    let values = given.iter().filter_map(|argument| matches.get_raw(argument.get_id().as_str())).flatten();
    let is_name = |word: &str| word.parse().is_ok_and(|At { id, .. }| name::resolve(&scope, &id) != id);
    if !values.filter_map(|word| word.to_str()).any(is_name) {
        return Ok(matches);
    }
    *command = std::mem::take(command).mut_args(|argument| looking_up(argument, &scope));
    command.try_get_matches_from_mut(words)
}

/// Whether the values of an argument name containers that there are.
fn is_container(argument: &Arg) -> bool {
    let kind = argument.get_value_parser().type_id();
    (kind == TypeId::of::<Id>() || kind == TypeId::of::<At>()) && argument.get_id() != "id"
}

/// The argument with a parser that looks up its values.
fn looking_up(argument: Arg, scope: &Scope) -> Arg {
    if !is_container(&argument) {
        return argument;
    }
    let scope = scope.clone();
    if argument.get_value_parser().type_id() == TypeId::of::<Id>() {
        return argument.value_parser(move |word: &str| -> Result<Id, InvalidId> {
            word.parse().map(|id| name::resolve(&scope, &id))
        });
    }
    argument.value_parser(move |word: &str| -> Result<At, String> {
        let At { id, snapshot } = word.parse()?;
        Ok(At { id: name::resolve(&scope, &id), snapshot })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use document::{Document, Name, record::Record};

    #[derive(Debug, Parser)]
    struct Tool {
        containers: Vec<Id>,
        #[arg(long)]
        at: Option<At>,
        #[arg(long)]
        id: Option<Id>,
        #[arg(long)]
        run_dir: Option<PathBuf>,
        #[arg(long)]
        root: Option<PathBuf>,
    }

    #[test]
    fn names_become_ids_wherever_a_container_is_meant() {
        let dir = tempfile::tempdir().unwrap();
        let (web, shop): (Id, Name) = ("web".parse().unwrap(), "shop".parse().unwrap());
        let mut document = Document::new();
        document.set(&web).unwrap();
        document.set(&shop).unwrap();
        let record = Record::lock(dir.path(), &web).unwrap();
        name::claim(dir.path(), &web, &shop).unwrap();
        record.write(&document).unwrap();
        let directory = dir.path().to_str().unwrap();
        let parsed = |line: &str| {
            let line = format!("tool --root {directory} --run-dir {directory} {line}");
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            let mut command = <Tool as clap::CommandFactory>::command();
            let matches = command.try_get_matches_from_mut(&words).unwrap();
            let matches = with_ids(&mut command, matches, &words).unwrap();
            let tool = <Tool as clap::FromArgMatches>::from_arg_matches(&matches).unwrap();
            let containers: Vec<_> = tool.containers.iter().map(Id::to_string).collect();
            let at = tool.at.map(|at| at.to_string()).unwrap_or_default();
            (containers.join(" "), at, tool.id.map(|id| id.to_string()).unwrap_or_default())
        };
        for (line, containers, at, id) in [
            ("db shop", "db web", "", ""),
            ("web --at shop@2", "web", "web@2", ""),
            ("--at db@1 --id shop", "", "db@1", "shop"),
            ("shop --id shop", "web", "", "shop"),
        ] {
            assert_eq!(parsed(line), (containers.to_owned(), at.to_owned(), id.to_owned()), "{line}");
        }
    }
}
